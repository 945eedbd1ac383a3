"""The explorer in a real browser: in JupyterLab, in a plain HTML file, on a dark page and on a narrow one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from driver import REST, drive_explorer, drive_notebook, opened
from lab_server import REPOSITORY, Lab
from playwright.sync_api import Browser
from robust import of_this_push

from book.course import lectures

pytestmark = pytest.mark.browser

PREPARE = """
import numpy as np
from matplotlib.figure import Figure
from cmog_lib.classroom.explore import Pad, Slider, explore, failures
x = np.linspace(-3, 3, 300)
def curve(y, title, width=8.0):
    figure = Figure(figsize=(width, 3.2), layout="tight")
    axes = figure.subplots()
    axes.plot(x, y, color="#0072B2")
    axes.set(title=title, ylim=(-2, 2), xlabel="x", ylabel="p(x)")
    return figure
"""
ONE = """
def draw(d):
    return curve(np.sin(d * x), f"d = {d}"), f"latent dimension {d}: error {1 / d:.2f}"
explore(draw, label="One slider", d=Slider(range(1, 13), label="latent dimension d", start=3))
"""
TWO = """
def draw(amplitude, shape):
    return curve(amplitude * getattr(np, shape)(x), shape)
explore(draw, label="Two sliders", amplitude=(0.1, 1.9, 0.2), shape=["sin", "cos", "tanh"])
"""
PAD = """
def draw(t):
    return curve(t[0] * np.sin(x) + t[1] * np.cos(x), "decoded", 6), f"t at {t[0]:.1f}, {t[1]:.1f}"
explore(draw, label="A pad", t=Pad((-1, 1, 5), (-1, 1, 5), label="latent point t"))
"""
LIVE = """
figure = curve(x, "live")
line, = figure.axes[0].lines
def still(phase, height):
    line.set_ydata(height * np.sin(x + phase))
    return figure, f"phase {phase:.2f}, height {height:.2f}"
explore(still, label="Live", phase=np.linspace(0, 6, 61), height=(0.1, 2.0))
"""
FAILING = """
def draw(n):
    if n == 1:
        raise ZeroDivisionError("there is no <b>second</b> one")
    return curve(n * x, f"n = {n}")
explore(draw, label="Failing", n=range(3))
"""


def notebook(folder: Path, name: str, *cells: str) -> Path:
    """A notebook of these cells, with a line of text after each that the explorer must not move."""
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for cell in (PREPARE, *cells):
        book.cells += [nbformat.v4.new_code_cell(cell.strip()), nbformat.v4.new_markdown_cell("What stands below.")]
    path = folder / name
    nbformat.write(book, path)
    return path


def test_explorers_in_jupyterlab(browser: Browser, lab: Lab, artifacts: Path, latencies: dict[str, dict]) -> None:
    path = notebook(lab.folder, "synthetic.ipynb", ONE, TWO, PAD, LIVE, FAILING)
    drive_notebook(browser, lab, path, artifacts, latencies, fails=("Failing",))


def test_play_goes_to_the_end_and_stops(browser: Browser, lab: Lab) -> None:
    with opened(browser, lab, notebook(lab.folder, "play.ipynb", TWO)) as page:
        root = page.locator(".cmog")
        play = root.get_by_role("button", name="Play amplitude")
        play.click()
        page.wait_for_function("() => document.querySelector('.cmog input').value === '9'", timeout=30_000)
        play.wait_for(timeout=30_000)
        assert root.locator("output").first.inner_text() == "1.9"


# At a push the one of less run time of the two that `robust.py` chooses for it; weekly all. The book's page of each
# lecture is driven at every push.
RUNS_IN = {lecture.name: float(lecture.runs_in.removesuffix(" s")) for lecture in lectures()}
AT_THIS_PUSH = min(of_this_push()[0], key=lambda path: RUNS_IN[path.stem]).name


def named(name: str) -> Any:
    return pytest.param(name, marks=[] if name == AT_THIS_PUSH else pytest.mark.weekly)


@pytest.mark.parametrize("name", [named(path.name) for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))])
def test_every_explorer_of_the_lecture(
    browser: Browser, lab: Lab, artifacts: Path, latencies: dict[str, dict], name: str
) -> None:
    drive_notebook(browser, lab, REPOSITORY / "notebooks" / name, artifacts, latencies)


def test_explorers_are_readable_on_a_dark_page_and_on_a_narrow_one(
    browser: Browser, artifacts: Path, labs: Callable[[str], Lab]
) -> None:
    dark = labs("Dark")
    path = notebook(dark.folder, "dark.ipynb", ONE, PAD, FAILING)
    for width in (1280, 390):
        with opened(browser, dark, path, width=width) as page:
            for k, root in enumerate(page.locator(".cmog").all()):
                root.scroll_into_view_if_needed()
                root.screenshot(path=artifacts / f"dark-{width}-{k + 1}.png")
                page.screenshot(path=artifacts / f"dark-{width}-{k + 1}-page.png")
                box, card = root.bounding_box(), root.locator(".cmog-card").bounding_box()
                assert box and card and card["x"] + card["width"] <= box["x"] + box["width"] + 1
                words = root.locator(".cmog-label").first
                colour = words.evaluate("(node) => getComputedStyle(node).color.match(/[\\d.]+/g).map(Number)")
                assert min(colour[:3]) > 150, f"words in {colour} on a dark page"


@pytest.mark.parametrize("width", [1280, 390])
def test_html_form_works_from_a_file_without_network(
    browser: Browser, artifacts: Path, tmp_path: Path, width: int
) -> None:
    scope: dict = {}
    exec(PREPARE, scope)
    explorers = []
    for cell in (ONE, TWO, PAD, LIVE):
        exec(cell.replace("\nexplore(", "\nmade = explore("), scope)
        explorers.append(scope["made"])
    page_file = tmp_path / "page.html"
    cells = "".join(f'<div class="jp-Cell">{each.html()}</div><p>What stands below.</p>' for each in explorers)
    page_file.write_text(f'<!doctype html><meta charset="utf-8"><body>{cells}</body>', encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(page_file.as_uri())
    for k, root in enumerate(page.locator(".cmog").all()):
        drive_explorer(page, root)
        root.screenshot(path=artifacts / f"html-{width}-{k + 1}.png")
    context.close()
    assert len(explorers) == 4 and not complaints
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


LATE = """
Object.defineProperty(HTMLImageElement.prototype, "complete", { get: () => false });
HTMLImageElement.prototype.decode = () => new Promise((done) => setTimeout(done, 300));
"""


def test_an_explorer_is_busy_until_a_picture_that_comes_late_is_there(browser: Browser, tmp_path: Path) -> None:
    scope: dict = {}
    exec(PREPARE + PAD.replace("\nexplore(", "\nmade = explore("), scope)
    page_file = tmp_path / "late.html"
    page_file.write_text(f'<!doctype html><meta charset="utf-8"><body>{scope["made"].html()}</body>', encoding="utf-8")
    context = browser.new_context(offline=True)
    context.add_init_script(LATE)
    page = context.new_page()
    page.goto(page_file.as_uri())
    root, said = page.locator(".cmog"), []
    for key in ("Home", "End"):
        root.locator(".cmog-plane").press(key)
        assert root.locator("[aria-busy=true]").count() == 1
        root.evaluate(REST)
        said.append(root.locator(".cmog-picture").get_attribute("aria-label"))
    context.close()
    assert len({*said}) == 2, said
