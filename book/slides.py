"""The lectures as slides: nbconvert's reveal.js, everything local, into a folder of the book that also stands alone.

What is shown is chosen by what a cell is, so that a changed lecture has changed slides: a heading begins a slide, texts
go on below it, explorers stand alone; hints, set-up and long print-outs stay in the lecture. Of code only the exercises
are seen, and the sources of formulas. A cell's own `slide_type` goes before all this.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert.exporters import SlidesExporter
from nbformat import NotebookNode
from traitlets.config import Config

from book import pages
from book.build import BOOK, WIDGET, text_cell, with_files, write
from book.course import lectures
from book.execute import LECTURES, ROOT, failed_cell, failure, latest

SLIDES = BOOK / "slides"
# How many pixels stand on one slide before the next cell begins another; what is a little too much is shown smaller.
ROOM = 860
LINES_OF_CODE, LINES_OF_PRINT = 38, 8


def main() -> None:
    """All lectures, and a page that lists them."""
    notebooks = {lecture.stem: latest(lecture) for lecture in LECTURES}
    if stale := [name for name, notebook in notebooks.items() if notebook is None]:
        sys.exit(f"slides: {', '.join(stale)} must run first: make slides does both")
    exporter = SlidesExporter(
        config=Config(TagRemovePreprocessor={"enabled": True, "remove_input_tags": {"no-code"}}),
        template_name="slides",
        extra_template_basedirs=[str(ROOT / "docs")],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        reveal_url_prefix="reveal",
        reveal_theme="white",
    )
    shown = set()
    for name, notebook in notebooks.items():
        page, _ = exporter.from_notebook_node(on_slides(notebook), {"metadata": {"name": name}})
        write(SLIDES / f"{name}.html", page.encode())
        shown |= set(re.findall(r"pictures/([\w.]+)", page))
    for picture in (SLIDES / "pictures").glob("*"):
        if picture.name not in shown:
            picture.unlink()
    write(SLIDES / "index.html", contents().encode())
    copy_scripts()
    print(f"slides: {SLIDES.relative_to(ROOT)}/index.html")


def on_slides(notebook: NotebookNode) -> NotebookNode:
    """The lecture with each cell's `slide_type`, and only what is shown of it."""
    cells, used = [], 0
    for cell in itertools.chain.from_iterable(map(at_headings, with_failure(notebook))):
        kind, size = slide_type(cell, used)
        kind = cell.metadata.get("slideshow", {}).get("slide_type") or kind
        if kind == "skip":
            continue
        used = size + (used if kind == "-" else 0)
        cells.append(shown(cell, kind))
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def with_failure(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells; of a lecture that failed, with a note after its title and in place of the failed cell."""
    where = failure(notebook)
    if where is None:
        return list(notebook.cells)
    cells = [cell for cell in notebook.cells if not failed_cell(cell)]
    first = next(k for k, cell in enumerate(cells) if cell.cell_type == "markdown")
    text = pages.failed(where, "slides")
    return [
        *cells[: first + 1],
        text_cell(f"## This lecture failed\n\n{text}", "failed"),
        *cells[first + 1 :],
        text_cell(f"## The lecture stopped here\n\n{text}", "stopped"),
    ]


def at_headings(cell: NotebookNode) -> list[NotebookNode]:
    """A text in pieces, each of which begins with its heading."""
    pieces = re.split(r"(?m)^(?=#{1,3} )", cell.source) if cell.cell_type == "markdown" else []
    pieces = [piece for piece in pieces if piece.strip()]
    if len(pieces) < 2:
        return [cell]
    parts = [nbformat.v4.new_markdown_cell(piece, metadata={**cell.metadata}) for piece in pieces]
    for k, part in enumerate(parts):
        part["id"] = f"{cell.id}-{k}"
    return parts


def slide_type(cell: NotebookNode, used: int) -> tuple[str, int]:
    """Where the cell stands when so much of the slide is used, and how much it takes."""
    text = cell.source.strip()
    if cell.cell_type == "markdown":
        if not text or text.startswith("<details"):
            return "skip", 0
        return ("slide" if re.match(r"##? ", text) else "subslide"), height_of_text(text)
    tags = cell.metadata.get("tags", [])
    if "colab" in tags or "style.begin(" in text:
        return "skip", 0
    if any(tag.startswith("exercise:") for tag in tags):
        size = 24 * text.count("\n") + 30
    else:
        lines = sum(_words(output).count("\n") for output in cell.outputs)
        pages = "".join(output.get("data", {}).get("text/html", "") for output in cell.outputs)
        size = 26 * lines + height_of_page(pages)
        if not size or lines > (LINES_OF_CODE if text.startswith("style.source(") else LINES_OF_PRINT):
            return "skip", 0
        if used + size > ROOM and not pages and not text.startswith("style.source("):
            return "skip", 0  # a print-out never stands alone
    return ("-" if used and used + size <= ROOM else "subslide"), size


def height_of_text(text: str) -> int:
    """Some 95 characters make a line."""
    return 34 * len(text) // 95 + 25 * text.count("\n\n") + 45 * text.count("$$") + 40 * text.startswith("#")


def height_of_page(page: str) -> int:
    """Of explorers and figures, and of tables by their rows."""
    explorers = re.findall(r'"size": \[\d+, (\d+)\]', page)
    figures = 0 if explorers else 350 * page.count("<img")
    return sum(int(height) + 80 for height in explorers) + figures + 45 * page.count("<tr")


def shown(cell: NotebookNode, kind: str) -> NotebookNode:
    """Of an exercise the code, of other code what came of it."""
    cell.metadata["slideshow"] = {"slide_type": kind}
    if cell.cell_type == "code":
        exercise = any(tag.startswith("exercise:") for tag in cell.metadata.get("tags", []))
        cell.outputs = [] if exercise else [output for output in cell.outputs if _fit_to_show(output)]
        cell.metadata["tags"] = [] if exercise else ["no-code"]
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop(WIDGET, None)
            if "text/html" in data:
                data["text/html"] = with_files(data["text/html"], SLIDES, "pictures")
    else:
        # What to read on is for the desk.
        cell.source = re.sub(r"(?ms)^\*\*Read on\.\*\*.*", "", cell.source)
    return cell


def contents() -> str:
    """The page from which one chooses."""
    items = "".join(f'<li><a href="{each.name}.html">{each.title}</a></li>' for each in lectures())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Slides</title><link rel="icon" href="favicon.svg">'
        '<link rel="stylesheet" href="slides.css"><body style="margin: 3rem auto; max-width: 44rem; font: 22px/1.6 '
        f'system-ui, sans-serif"><main><h1>Slides</h1><ol>{items}</ol><p>Space goes on, Escape shows all, '
        "S opens the lecturer's window.</p></main></body></html>"
    )


def copy_scripts() -> None:
    """reveal.js as sphinx-revealjs has it, MathJax as the book has it, and the few lines of our own."""
    from docs.conf import MATHJAX, NEEDED

    package = importlib.metadata.distribution("sphinx-revealjs")
    reveal = Path(str(package.locate_file("sphinx_revealjs/_static/revealjs")))
    own = ROOT / "docs" / "slides"
    for source, name in [
        (reveal / "dist" / "reveal.js", "reveal/reveal.js"),
        (reveal / "plugin" / "notes" / "notes.js", "reveal/notes.js"),
        (reveal / "dist" / "reveal.css", "reveal/dist/reveal.css"),
        (reveal / "dist" / "theme", "reveal/dist/theme"),
        (own / "slides.css", "slides.css"),
        (own / "slides.js", "slides.js"),
        (ROOT / "docs" / "_static" / "favicon.svg", "favicon.svg"),
        *((MATHJAX / needed, f"mathjax/{needed}") for needed in NEEDED),
    ]:
        target = SLIDES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)


def _words(output: NotebookNode) -> str:
    return output.get("text", "") or output.get("data", {}).get("text/markdown", "")


def _fit_to_show(output: NotebookNode) -> bool:
    return WIDGET not in output.get("data", {}) or "text/html" in output.data


if __name__ == "__main__":
    main()
