"""The slides in a browser without a network: none is overfull at 1280 × 720, and their explorers are alive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from book_site import Site, built, move
from playwright.sync_api import Browser, Page

from book.execute import LECTURES

pytestmark = pytest.mark.browser
# What does not fit is shown smaller, down to letters of this share.
SMALLEST = 0.6

MEASURE = """
() => {
  const slide = Reveal.getCurrentSlide();
  const boxes = [...slide.querySelectorAll("*")].filter((node) => !node.closest("mjx-assistive-mml, svg, .cmog-spoken"))
    .map((node) => node.getBoundingClientRect()).filter((box) => box.width && box.height);
  const spilt = [...slide.querySelectorAll(".cmog-row > *")].filter((part) =>
    part.getBoundingClientRect().right > part.parentNode.getBoundingClientRect().right + 1);
  return {
    spilt: spilt.length,
    zoom: Number(slide.dataset.fitted),
    right: Math.max(...boxes.map((box) => box.right)),
    bottom: Math.max(...boxes.map((box) => box.bottom)),
    text: slide.innerText.trim().slice(0, 60),
  };
}
"""


@pytest.fixture(scope="session")
def slides(browser: Browser) -> Iterator[Site]:
    """The slides of the lectures as they are now."""
    with built("book/slides", "book.slides") as site:
        yield site


def each_slide(page: Page) -> Iterator[int]:
    """From the first to the last, each as soon as it stands."""
    for number in range(page.evaluate("Reveal.getTotalSlides()")):
        page.wait_for_function("Reveal.getCurrentSlide().dataset.fitted")
        yield number
        page.evaluate("Reveal.next()")


@pytest.mark.parametrize("lecture", LECTURES, ids=lambda path: path.stem)
def test_no_slide_is_overfull_and_every_explorer_on_them_moves(
    slides: Site, browser: Browser, artifacts: Path, lecture: Path
) -> None:
    overfull, explorers = [], 0
    with slides.window(browser, height=720, reduced_motion="reduce") as page:
        slides.visit(page, f"{lecture.stem}.html")
        for number in each_slide(page):
            found = page.evaluate(MEASURE)
            if found["right"] > 1280 or found["bottom"] > 720 or found["zoom"] < SMALLEST or found["spilt"]:
                overfull.append((number, found))
            page.screenshot(path=artifacts / f"slide-{lecture.stem[:2]}-{number:02d}.png")
            for explorer in page.locator("section.present:not(.stack) .cmog").all():
                move(page, explorer)
                explorers += 1
        assert number > 20 and explorers >= 2
    assert overfull == []
    assert slides.left == [] and slides.complaints == []


def test_the_list_of_slides_leads_to_each_lecture(slides: Site, browser: Browser) -> None:
    with slides.window(browser) as page:
        slides.visit(page, "index.html")
        shown = [link.get_attribute("href") for link in page.locator("li a").all()]
    assert shown == [f"{lecture.stem}.html" for lecture in LECTURES]
