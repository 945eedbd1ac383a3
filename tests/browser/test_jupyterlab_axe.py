"""axe-core in JupyterLab, light and dark: whatever is ours has names and roles, and its words can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from driver import opened
from lab_server import Lab
from playwright.sync_api import Browser, Page
from test_explorers import FAILING, LIVE, ONE, PAD, TWO, notebook

pytestmark = pytest.mark.browser

# What else the lectures show that is ours: verdicts of checkers, tables, the scoreboard, sources, hints.
WORDS = """
import jax.numpy as jnp
from IPython.display import display
from cmog_lib import model
from cmog_lib.classroom import style
from cmog_lib.classroom.checks import Verdict
from cmog_lib.classroom.scoreboard import Scoreboard
from cmog_lib.classroom.tables import Measured, table
for status in ("passed", "mistake", "wrong", "open"):
    display(Verdict(status, "One sentence names it. Another says where to look."))
display(table("Nats from the truth", ["method", "nats", "seconds"], [("quadrature", "0.0", Measured("1.5"))]))
board = Scoreboard("One model", jnp.zeros(3))
board.measure("quadrature", lambda: jnp.zeros(3), evaluations=3)
display(board, style.source(model.log_p_x_given_t))
print("printed")
"""
HINT = "<details open><summary>Hint 1: where to look</summary>\n\nAt `log_p_xt`.\n\n</details>"
KINDS = [".cmog-caption", ".cmog-label", ".cmog-value", ".cmog-plane span", ".cmog-words p", ".cmog-error"]
KINDS += ["[role=status]", "caption", "th", "td", ".measured", "pre", "code", "summary", "details p"]
UNSEEN = """
([kinds, found]) => kinds.filter((kind) => !found.some((place) => document.querySelector(place).closest(kind)))
"""
ALL_IN_VIEW = """
() => {
  const frame = document.querySelector(".jp-WindowedPanel-outer");
  frame.scrollTop = 0;
  const { bottom } = [...frame.querySelectorAll(".jp-Cell")].at(-1).getBoundingClientRect();
  return bottom < frame.getBoundingClientRect().bottom && bottom < innerHeight;
}
"""
# Too pale on a white page, 4.48, and too dark on a black one.
PALE = "#777"


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_axe_finds_no_wrong_name_or_role_and_no_pale_word_in_jupyterlab(
    browser: Browser, artifacts: Path, labs: Callable[[str], Lab], theme: str
) -> None:
    lab = labs(theme)
    path = notebook(lab.folder, "axe.ipynb", ONE, TWO, PAD, LIVE, FAILING, WORDS)
    shown = nbformat.read(path, 4)
    shown.cells.append(nbformat.v4.new_markdown_cell(HINT))
    nbformat.write(shown, path)
    with opened(browser, lab, path) as page:
        lay_out_for_axe(page)
        assert complaints(page) == []
        page.screenshot(path=artifacts / f"axe-{theme.lower()}.png")
        # And it would find them: with all words pale, each kind of them is named.
        page.add_style_tag(content=f".jp-Notebook * {{ color: {PALE} !important }}")
        found = [where for rule, where in complaints(page) if rule == "color-contrast"]
        assert page.evaluate(UNSEEN, [KINDS, found]) == []


def lay_out_for_axe(page: Page) -> None:
    """All is in the window, an error box too: what is scrolled away or in a body of no height axe takes for hidden."""
    page.locator(".cmog[aria-label=Failing] input").press("ArrowRight")
    page.locator("[role=alert]:visible").wait_for()
    page.add_style_tag(content="body { height: 100vh }")
    height = page.locator(".jp-WindowedPanel-outer").evaluate("(frame) => frame.scrollHeight")
    page.set_viewport_size({"width": 1280, "height": height + 500})
    page.wait_for_function(ALL_IN_VIEW)


def complaints(page: Page) -> list[tuple[str, str]]:
    """What is serious in what is ours, and the words of which axe could not say how well they can be read."""
    # The colours in code are JupyterLab's own; those of its comments are 4.2 on its dark page.
    only = {"include": [[".jp-OutputArea-output"], [".jp-MarkdownOutput"]], "exclude": [["pre span"]]}
    answer = Axe().run(page, only, {"resultTypes": ["violations", "incomplete"], "preload": False}).response
    found = [each for each in answer["violations"] if each["impact"] in ("serious", "critical")]
    found += [each for each in answer["incomplete"] if each["id"] == "color-contrast"]
    return [
        (each["id"], node["target"][0])
        for each in found
        for node in each["nodes"]
        # A mark alone, such as ✓, is not measured; it has the colour of the sentence behind it.
        if not any((check["data"] or {}).get("messageKey") == "nonBmp" for check in node["any"])
    ]
