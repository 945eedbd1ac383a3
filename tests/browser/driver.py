"""Opens a notebook in JupyterLab, runs it, and moves everything in it that can be moved."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from lab_server import Lab
from playwright.sync_api import Browser, Locator, Page

RUN_SECONDS = 1200  # four times what the longest lecture takes on a slow machine: a limit, not a measurement
SAMPLES = 60
# p95 in milliseconds, from the slider's event to the changed picture: ten times what an idle machine takes, because
# other tests run at the same time. latency.json keeps what was measured.
LIMIT = {"scrubbed": 250, "live": 800}

# When the next frame has begun: what is posted from within it is read after it.
NEXT_FRAME = """
const nextFrame = () => new Promise((done) => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = done;
  channel.port2.postMessage(0);
}));
"""
# A range input or a pad is moved as a hand would, and the clock stops when the new picture has been decoded and the
# frame after it has begun.
MEASURE = """
async ([root, samples]) => {
  NEXT_FRAME
  const ranges = [...root.querySelectorAll("input[type=range]")].filter((range) => Number(range.max) > 0);
  const plane = root.querySelector(".cmog-plane");
  const shown = () => new Promise((done) => root.addEventListener("cmog-shown", done, { once: true }));
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const times = [];
  for (let k = 0; k < samples; k++) {
    const wait = shown();
    const began = performance.now();
    if (ranges.length) {
      const range = ranges[k % ranges.length];
      range.value = (Number(range.value) + 1) % (Number(range.max) + 1);
      range.dispatchEvent(new Event("input", { bubbles: true }));
    } else {
      const atEdge = plane.getAttribute("aria-valuetext");
      const press = (key) => plane.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
      press("ArrowRight");
      if (plane.getAttribute("aria-valuetext") === atEdge) press("Home");
    }
    await wait;
    const image = root.querySelector(".cmog-changing img");
    if (image) await image.decode();
    await nextFrame();
    times.push(performance.now() - began);
    await pause(20);
  }
  return times;
}
""".replace("NEXT_FRAME", NEXT_FRAME)

# No picture is on its way, and the last one has been painted.
REST = """
async (root) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  do { await frame(); await frame(); } while (root.querySelector("[aria-busy]"));
}
"""

# Where what follows the explorer begins, seen from the explorer: the next cell, or the end of its own.
NEXT = """
(root) => {
  const cell = root.closest(".jp-Cell");
  const box = (cell.nextElementSibling ?? cell).getBoundingClientRect();
  const edge = cell.nextElementSibling ? box.top : box.bottom;
  return Math.round(edge - root.getBoundingClientRect().top);
}
"""


@contextmanager
def opened(browser: Browser, lab: Lab, notebook: Path, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A copy of `notebook`, open in JupyterLab, every cell run."""
    if notebook.parent != lab.folder:
        shutil.copy(notebook, lab.folder)
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    try:
        page.goto(lab.address(notebook.name), timeout=60_000)
        page.wait_for_function(
            "(name) => window.jupyterapp?.shell.currentWidget?.context?.isReady"
            " && window.jupyterapp.shell.currentWidget.context.path === name"
            " && window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'",
            arg=notebook.name,
            timeout=90_000,
        )
        page.evaluate("() => { jupyterapp.shell.collapseLeft(); jupyterapp.shell.collapseRight(); }")
        page.evaluate(
            "() => { window.cmogRan = false;"
            " jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.cmogRan = true; }); }"
        )
        page.wait_for_function("() => window.cmogRan", timeout=RUN_SECONDS * 1000)
        page.wait_for_timeout(500)
        yield page
    finally:
        page.evaluate(
            "async () => { const own = window.jupyterapp?.shell.currentWidget;"
            " await own?.context?.save(); await own?.sessionContext?.shutdown(); }"
        )
        context.close()


def drive_notebook(
    browser: Browser,
    lab: Lab,
    notebook: Path,
    artifacts: Path,
    latencies: dict[str, dict],
    *,
    fails: tuple[str, ...] = (),
) -> None:
    """Runs `notebook` and moves every explorer in it; those whose label is in `fails` must show an error box."""
    with opened(browser, lab, notebook) as page:
        broken = page.locator(
            ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr'], .jp-RenderedText"
        )
        tracebacks = [text for text in broken.all_inner_texts() if "Traceback (most recent call last)" in text]
        assert not tracebacks, f"a cell of {notebook.name} failed:\n{tracebacks[0][-2000:]}"
        explorers = page.locator(".jp-Notebook .cmog")
        count = explorers.count()
        assert count, f"{notebook.name} shows no explorer"
        for k in range(count):
            root = explorers.nth(k)
            label = root.get_attribute("aria-label") or ""
            name = f"{notebook.stem} {k + 1} {label}"
            drive_explorer(page, root, may_fail=label in fails)
            root.screenshot(path=artifacts / (re.sub(r"\W+", "-", name).strip("-").lower()[:80] + ".png"))
            if label not in fails:
                latencies[name] = measure(root, name)


def drive_explorer(page: Page, root: Locator, *, may_fail: bool = False) -> None:
    """Every slider and pad, by mouse and by keys: the picture and its words change, and nothing on the page moves."""
    root.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    below = root.evaluate(NEXT)
    moved = _by_mouse_and_keys(page, root)
    assert root.evaluate(NEXT) == below, "the page below the explorer has moved"
    errors = root.locator("[role=alert]:visible").count() + moved.count("error")
    assert may_fail or not errors, f"an error box: {root.locator('[role=alert]').inner_text()}"
    if may_fail:
        assert "error" in moved, "no position showed the error box that was expected"


def _by_mouse_and_keys(page: Page, root: Locator) -> list[str]:
    found = []
    for control in root.locator("input[type=range], .cmog-plane").all():
        plane = control.get_attribute("role") == "slider"
        before = _look(root, control)
        seen = []
        control.scroll_into_view_if_needed()
        box = control.bounding_box()
        assert box is not None
        y = [0.5, 0.25, 0.75, 0.1] if plane else [0.5] * 4
        at = [
            (box["x"] + share * box["width"], box["y"] + h * box["height"])
            for share, h in zip((0.5, 0.1, 0.4, 0.95), y, strict=True)
        ]
        page.mouse.move(*at[0])
        page.mouse.down()
        for x, y_ in at[1:]:
            page.mouse.move(x, y_, steps=6)
            seen.append(_look(root, control, before, seen))
        page.mouse.up()
        _assert_changed(before, seen, "the mouse")
        seen = []
        before = _look(root, control)
        for key in ("Home", "ArrowRight", "End", "ArrowLeft"):
            page.keyboard.press(key)
            seen.append(_look(root, control, before, seen))
        values = [look["value"] for look in seen]
        assert len({*values}) >= min(3, _count(control)), f"the keys led only to {values}"
        _assert_changed(before, seen, "the keys")
        found += ["error" for look in seen if look["error"]]
    return found


def _count(control: Locator) -> int:
    return int(control.get_attribute("max") or control.get_attribute("aria-valuemax") or 0) + 1


def _look(root: Locator, control: Locator, before: dict | None = None, seen: Sequence[dict] = ()) -> dict:
    """What the explorer shows at the moment, when it has come to rest.

    A screenshot takes longer than all else: of looks `seen` after `before`, one with another picture is enough.
    """
    root.evaluate(REST)
    changed = before is not None and any(look["picture"] != before["picture"] for look in seen)
    return {
        "value": control.get_attribute("aria-valuetext"),
        "words": root.locator(".cmog-picture").get_attribute("aria-label"),
        "error": root.locator("[role=alert]:visible").count() > 0,
        "picture": seen[-1]["picture"] if changed else root.locator(".cmog-card").screenshot(),
    }


def _assert_changed(before: dict, after: list[dict], by: str) -> None:
    for what in ("value", "words", "picture"):
        assert any(look[what] != before[what] for look in after), f"{by} did not change the {what}"


def measure(root: Locator, name: str) -> dict:
    """Median and p95 of the latency, asserted to be below the limit."""
    root.scroll_into_view_if_needed()
    kind = root.get_attribute("data-kind") or "scrubbed"
    times = root.page.evaluate(MEASURE, [root.element_handle(), SAMPLES])
    median, p95 = (round(float(value), 1) for value in np.percentile(times, [50, 95]))
    assert p95 <= LIMIT[kind], f"{name}: p95 {p95} ms from slider to picture, more than {LIMIT[kind]} ms"
    return {"kind": kind, "median_ms": median, "p95_ms": p95, "limit_p95_ms": LIMIT[kind], "samples": SAMPLES}
