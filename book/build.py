"""docs/ and the executed lectures, put together in build/book-source and made into build/book by Sphinx.

Only files whose content has changed are written, so that Sphinx reads no page again for nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from book import library, pages
from book.course import Lecture, found_in, lectures
from book.execute import LECTURES, ROOT, code_cells, failure, latest
from book.library import Entry

SOURCE, BOOK = ROOT / "build" / "book-source", ROOT / "build" / "book"
WIDGET = "application/vnd.jupyter.widget-view+json"
EXPLORE = ROOT / "cmog_lib" / "classroom" / "explore"
JS, CSS = ((EXPLORE / f"explore.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
PICTURE = re.compile(r"data:image/(webp|png);base64,([A-Za-z0-9+/=]+)")
FRONT = "Three decoders at one point of the latent plane"


def main() -> int:
    """Writes the sources, has Sphinx make the pages, and returns its exit status.

    A warning is an error unless a lecture has failed: a link may then lead to a part of it that is missing.
    """
    notebooks = {lecture.stem: latest(lecture) for lecture in LECTURES}
    if stale := [name for name, notebook in notebooks.items() if notebook is None]:
        sys.exit(f"book: {', '.join(stale)} must run first: make book does both")
    written = put_together(notebooks)
    shown = set(re.findall(r"_static/pictures/([\w.]+)", "".join(path.read_text(encoding="utf-8") for path in written)))
    made = {BOOK / path.relative_to(SOURCE).with_suffix(".html") for path in written}
    # Sphinx takes nothing away: pages without a source, pictures that no page shows, code pages of older settings.
    shutil.rmtree(BOOK / "_modules", ignore_errors=True)
    for path in [*SOURCE.rglob("*"), *BOOK.rglob("*.html"), *(BOOK / "_static" / "pictures").glob("*")]:
        of_slides = path.parent == BOOK / "slides"
        if path.is_file() and path not in written | made and path.name not in shown and not of_slides:
            path.unlink()
    command = [sys.executable, "-m", "sphinx", "-b", "html", "--keep-going", "--quiet"]
    command += [] if any(map(failure, notebooks.values())) else ["--fail-on-warning"]
    command += ["-d", str(ROOT / "build" / "book-doctrees"), "-c", str(ROOT / "docs"), str(SOURCE), str(BOOK)]
    if code := subprocess.run(command, cwd=ROOT).returncode:
        return code
    print(f"book: {BOOK.relative_to(ROOT)}/index.html")
    return 0


def put_together(notebooks: dict[str, NotebookNode]) -> set[Path]:
    """Every file of the source folder, written where it has changed."""
    used = pages.used_in(notebooks)
    generated = {
        "START": pages.start("<code>make lab</code>"),
        "MAP": pages.lecture_map(),
        "LECTURES": pages.lectures_index(),
        "NOTATION": pages.notation(used),
        "NAMES": pages.names(),
        "FORMULAS": pages.formulas(),
        "REFERENCES": pages.references(),
        "ROOMS": pages.rooms_index(),
        "EXPLORER": with_files(explorer(notebooks, FRONT), BOOK, "_static/pictures"),
    }
    written = set()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = re.sub(r"<!-- ([A-Z]+) -->", lambda mark: generated[mark[1]], page.read_text(encoding="utf-8"))
        written.add(write(SOURCE / page.relative_to(ROOT / "docs"), text.encode()))
    for name, entries in library.rooms().items():
        written.add(write(SOURCE / "library" / f"{name}.rst", pages.room(name, entries, used).encode()))
    for lecture in lectures():
        page = in_the_book(notebooks[lecture.name], lecture)
        written.add(write(SOURCE / "lectures" / f"{lecture.name}.ipynb", nbformat.writes(page).encode()))
    return written


def write(path: Path, content: bytes) -> Path:
    """The file holds `content`; one that did already is left alone."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def explorer(notebooks: dict[str, NotebookNode], label: str) -> str:
    """The HTML of the explorer of that name, or a note that it is missing because a lecture failed."""
    for notebook in notebooks.values():
        for cell in code_cells(notebook):
            for output in cell.outputs:
                page = output.get("data", {}).get("text/html", "")
                if WIDGET in output.get("data", {}) and f'"label": {json.dumps(label)}' in page:
                    return page
    if failures := [name for name, notebook in notebooks.items() if failure(notebook)]:
        return f"<p><strong>The explorer is missing: {html.escape(', '.join(failures))} did not run.</strong></p>"
    raise ValueError(f"no lecture shows an explorer named {label!r}")


def with_files(page: str, site: Path, folder: str) -> str:
    """`page` with its pictures as files in a folder of the site, which a browser gets when it needs them."""

    def file(picture: re.Match[str]) -> str:
        content = base64.b64decode(picture[2])
        name = f"{hashlib.sha256(content).hexdigest()[:20]}.{picture[1]}"
        write(site / folder.removeprefix("../") / name, content)
        return f"{folder}/{name}"

    return PICTURE.sub(file, with_script(page))


def with_script(page: str) -> str:
    """An explorer with the script and the style of today: a lecture need not run again for them."""
    page = re.sub(r"<style>.*?</style>(?=<div id=\"cmog-)", lambda _: f"<style>{CSS}</style>", page, flags=re.S)
    start = '<script type="module">'
    return re.sub(rf"{start}.*?(?=\nconst spec = )", lambda _: start + JS, page, flags=re.S)


def in_the_book(notebook: NotebookNode, lecture: Lecture) -> NotebookNode:
    """The lecture as a page: without what only Colab needs, with the ways to run it and to the library."""
    cells = [cell for cell in notebook.cells if "colab" not in cell.metadata.get("tags", [])]
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source)
            continue
        if hidden := hidden_part(cell.source):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), hidden]
        # Of a widget that has no HTML of its own, such as a progress bar, nothing is left without a kernel.
        cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {}) or "text/html" in o.data]
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop(WIDGET, None)
            if "text/html" in data:
                data["text/html"] = with_files(data["text/html"], BOOK, "../_static/pictures")
    first = next(k for k, cell in enumerate(cells) if cell.cell_type == "markdown")
    if where := failure(notebook):
        note = f":::{{error}}\n{pages.failed(where, 'page')}\n:::"
        title, text = re.fullmatch(r"(# [^\n]+\n?)?(.*)", cells[first].source, re.S).groups(default="")
        cells[first].source = f"{title}\n{note}\n\n{text}"
    cells.insert(first + 1, text_cell(pages.run_it(lecture), "run-it"))
    cells.append(text_cell(f"## In the library\n\n{calls(library.used(notebook))}", "in-the-library"))
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def hidden_part(code: str) -> str | None:
    """Code that only asks for a formula's source is left out, for the source is there; that of a figure folded up."""
    if re.fullmatch(r"style\.source\([^()]*\)", code.strip()):
        return "remove-input"
    return "hide-input" if re.search(r"^(explore|style\.show)\(", code, re.M) else None


def calls(entries: list[Entry]) -> str:
    """What the lecture calls, room by room."""
    rooms: dict[str, list[str]] = {}
    for entry in entries:
        rooms.setdefault(entry.name.split(".")[1], []).append(pages.call(entry))
    return "\n".join(f"- [{room}](../library/{room}.rst): {', '.join(links)}" for room, links in rooms.items())


def linked(text: str) -> str:
    """Lectures that are named by their file, and the functions of the recap, as links."""
    text = re.sub(r"`(0(\d)_\w+\.ipynb)`", r"[lecture \2](\1)", text)
    return re.sub(
        r"(?m)^(\|.*\| `(cmog_lib/[\w/.]+)`: )(.+?)( \|)$", lambda row: row[1] + _linked(row[2], row[3]) + row[4], text
    )


def _linked(file: str, names: str) -> str:
    return re.sub(r"`(\w+)`", lambda name: pages.call(e) if (e := found_in(file, name[1])) else name[0], names)


def text_cell(source: str, name: str) -> NotebookNode:
    """A cell of text whose id does not change from build to build."""
    cell = nbformat.v4.new_markdown_cell(source)
    cell["id"] = name
    return cell


if __name__ == "__main__":
    sys.exit(main())
