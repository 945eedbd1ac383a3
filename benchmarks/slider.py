"""From a slider's move to its picture on the screen, in JupyterLab in headless Chromium: the 95th percentile of MOVES.

Everyone shows the same figure, two panels with a curve each, at 60 positions of one slider. The peer is
`ipywidgets.interact` with an inline figure, made anew at each move as its users make it. Ours is an explorer that holds
its states in the browser and, in the row `slider_live`, one that asks the kernel for each; its figure stays and its
lines move. The clock is the browser's: from the event that moves the slider until the new picture is decoded and a
frame has begun.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import NotHere

ROOT = Path(__file__).parents[1]
TITLE, UNIT, OURS, PEER = "Slider to picture, precomputed", "pictures", "explorer", "ipywidgets.interact"
# JupyterLab and Playwright are in the project's own environment, the peers of the other rows are not.
PYTHON = ROOT / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
MOVES = 30

FIGURE = """
import matplotlib.pyplot as plt
import numpy as np
from cmog_lib.classroom.explore import explore
t = np.linspace(-4, 4, 400)
def curves(k):
    return np.exp(-0.5 * (t - k / 15 + 2) ** 2), np.sin(t * (1 + k / 20))
def panels(k):
    figure, axes = plt.subplots(1, 2, figsize=(9, 4))
    lines = [axis.plot(t, y)[0] for axis, y in zip(axes, curves(k))]
    for axis, name in zip(axes, ("p(t|x)", "mu(t)")):
        axis.set(xlabel="t", ylabel=name, ylim=(-1.1, 1.1), title=f"{name} for k = {k}")
    return figure, lines
"""
SCRUBBED = """
def draw(k):
    figure, _ = panels(k)
    plt.close(figure)
    return figure
explore(draw, k=range(60))
"""
LIVE = """
figure, lines = panels(0)
plt.close(figure)
def draw(k):
    for line, y, name in zip(lines, curves(k), ("p(t|x)", "mu(t)")):
        line.set_ydata(y)
        line.axes.set_title(f"{name} for k = {k}")
    return figure
explore(draw, k=range(60), live=True)
"""
INTERACT = """
%matplotlib inline
from ipywidgets import interact
def draw(k=0):
    panels(k)
    plt.show()
interact(draw, k=(0, 59))
None
"""

# The same clock as that of the tests' driver, for a slider of ipywidgets and the picture in its output.
MEASURE_INTERACT = """
async ([root, samples]) => {
  const handle = root.querySelector(".noUi-handle");
  NEXT_FRAME
  const times = [];
  for (let k = 0; k < samples; k++) {
    const last = root.querySelector("img").src;
    const key = handle.getAttribute("aria-valuenow") === handle.getAttribute("aria-valuemax") ? "Home" : "ArrowRight";
    const changed = new Promise((done) => {
      const look = () => {
        const image = root.querySelector("img");
        if (image && image.src !== last) { watch.disconnect(); done(image); }
      };
      const watch = new MutationObserver(look);
      watch.observe(root, { subtree: true, childList: true, attributes: true });
    });
    const began = performance.now();
    handle.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    await (await changed).decode();
    await nextFrame();
    times.push(performance.now() - began);
    await new Promise((done) => setTimeout(done, 20));
  }
  return times;
}
"""


def prepare(folder: Path) -> None:
    """Looks whether there is a browser and JupyterLab."""
    if not any(map(shutil.which, BROWSERS)):
        raise NotHere("it needs Chromium (on Debian: apt-get install chromium)")
    if not PYTHON.exists():
        raise NotHere("it needs the project's own environment (make setup)")


def load(folder: Path) -> None:
    """Nothing."""


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def shown(cell: str, root: str, measure: str | None = None) -> Callable[[Any], Callable[[int], list[float]]]:
    """A contender: opens its notebook once, and in a turn moves its slider MOVES times. Milliseconds."""

    def start(_: Any) -> Callable[[int], list[float]]:
        import nbformat
        from playwright.sync_api import sync_playwright

        sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "browser")]
        import driver
        from lab_server import running_lab

        stack = contextlib.ExitStack()
        atexit.register(stack.close)
        folder = Path(tempfile.mkdtemp())
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cells = [nbformat.v4.new_code_cell(source) for source in (FIGURE, cell)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "slider.ipynb")
        playwright = stack.enter_context(sync_playwright())
        path = next(filter(None, map(shutil.which, BROWSERS)))
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        stack.callback(browser.close)
        lab = stack.enter_context(running_lab(folder / "lab"))
        page = stack.enter_context(driver.opened(browser, lab, folder / "slider.ipynb"))
        found = page.locator(root).first
        found.wait_for()
        found.scroll_into_view_if_needed()
        code = measure.replace("NEXT_FRAME", driver.NEXT_FRAME) if measure else driver.MEASURE

        def answer(_: int) -> list[float]:
            return page.evaluate(code, [found.element_handle(), MOVES])

        return answer

    return start


CONTENDERS = {OURS: shown(SCRUBBED, ".cmog"), PEER: shown(INTERACT, ".widget-interact", MEASURE_INTERACT)}


def judged(times: list[float]) -> dict[str, Any]:
    """The browser's clock."""
    seconds = float(np.percentile(times, 95)) / 1000
    return {"value": 1, "seconds": seconds, "median": float(np.median(times)), "memory": None}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """The median."""
    return {name: (f"median {answer['median']:.0f} ms", True) for name, answer in answers.items()}
