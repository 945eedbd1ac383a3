"""The course as its own files describe it: the README's tables and the first and last cell of each lecture."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import nbformat
from nbformat import NotebookNode

from book.execute import LECTURES, ROOT
from book.library import Entry, by_place

README = ROOT / "README.md"
ROW = re.compile(r"^\| (\d) \| \[(.+?)\]\(notebooks/(\w+)\.ipynb\) \| (.+?) \| (.+) \| (.+?) \|$", re.M)
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
NUMBERS = {word: k for k, word in enumerate(ORDINALS, 1)}


@dataclass(frozen=True)
class Lecture:
    """What a reader wants to know before it. needs: the numbers of the lectures that it goes on from."""

    number: int
    title: str
    name: str
    slides: str
    happens: str
    runs_in: str
    reading: str
    needs: tuple[int, ...]
    symbols: tuple[tuple[str, tuple[Entry, ...]], ...]
    formulas: tuple[str, ...]
    read_on: str


@dataclass(frozen=True)
class Symbol:
    """A line of the README's table of slides."""

    slides: str
    text: str
    entries: tuple[Entry, ...]


def address() -> str:
    """Returns the project's address, which `make publish` writes into pyproject.toml, or an empty string."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def elsewhere(lecture: Lecture) -> dict[str, str]:
    """Returns the lecture's Colab and Binder links, or none without an address."""
    if not address():
        return {}
    slug, file = address().removeprefix("https://github.com/"), f"notebooks/{lecture.name}.ipynb"
    return {
        "in Colab": f"https://colab.research.google.com/github/{slug}/blob/main/{file}",
        "on Binder": f"https://mybinder.org/v2/gh/{slug}/HEAD?urlpath=lab/tree/{file}",
    }


@cache
def lectures() -> list[Lecture]:
    """All of them, from the README's table and their own words."""
    rows = ROW.findall(README.read_text(encoding="utf-8"))
    if [row[2] for row in rows] != [path.stem for path in LECTURES]:
        raise ValueError("README.md must have one line for each lecture in its table, in their order")
    return [_lecture(row, nbformat.read(path, 4)) for row, path in zip(rows, LECTURES, strict=True)]


@cache
def symbols() -> list[Symbol]:
    """The README's table *slide | symbol | function*."""
    rows = re.findall(r"^\| (.+?) \| (.+) \| (`cmog_lib/.+`) \|$", README.read_text(encoding="utf-8"), re.M)
    places = (re.findall(r"`(cmog_lib/[\w/]+\.py):(\w+)`", files) for _, _, files in rows)
    return [
        Symbol(slides, text, tuple(by_place()[place] for place in named))
        for (slides, text, _), named in zip(rows, places, strict=True)
    ]


def _lecture(row: tuple[str, ...], notebook: NotebookNode) -> Lecture:
    number, title, name, slides, happens, runs_in = row
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    reading = re.search(r"reading it, (.+?)\.", texts[0])
    need = re.search(r"\*\*You need\*\* (.+)", texts[0])
    read_on = re.search(r"\*\*Read on\.\*\* (.+)", texts[-1])
    if not (reading and need and read_on):
        raise ValueError(
            f"{name} must say «reading it, …» and «**You need**» in its first text, «**Read on.**» in its last"
        )
    return Lecture(
        int(number), title, name, slides, happens, runs_in, reading[1],
        tuple(_needed(need[1])), tuple(_symbols(texts[-1])), tuple(_formulas(texts)),
        read_on[1],
    )  # fmt: skip


def _needed(text: str) -> Iterator[int]:
    """`From the fourth: …` names what a lecture goes on from; where nothing is named, it is all that it asks for."""
    if named := re.findall(rf"From the ({'|'.join(NUMBERS)}):", text):
        yield from (NUMBERS[word] for word in named)
    elif asked := re.match(r"lectures? (\d)(?: and (\d))?", text):
        yield from (int(number) for number in asked.groups() if number)


def _symbols(recap: str) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    """The recap's table: each formula with the functions beside it."""
    for formula, file, names in re.findall(r"^\|[^|]*\| (.+) \| `(cmog_lib/[\w/.]+)`: (.+) \|$", recap, re.M):
        found = (found_in(file, name) for name in re.findall(r"`(\w+)`", names))
        yield formula, tuple(entry for entry in found if entry)


def _formulas(texts: list[str]) -> Iterator[str]:
    """What the lecture displays, one formula a line; a term on its own is none."""
    seen = set()
    for shown in re.findall(r"\$\$(.+?)\$\$", "\n\n".join(texts), re.S):
        for formula in re.split(r",?\s*\\qquad", re.sub(r"[\s.,]+$", "", " ".join(shown.split()))):
            plain = re.sub(r"\\[;,!]|\s", "", formula)
            if plain not in seen and re.search(r"=|\\g?le|\\ge|\\approx|\\sim|\\max", formula):
                seen.add(plain)
                yield formula.strip()


def found_in(file: str, name: str) -> Entry | None:
    """The function of that name in a file, or in a file of that folder."""
    return next(
        (
            e
            for (place, own), e in by_place().items()
            if own == name and (place == file or place.startswith(f"{file}/"))
        ),
        None,
    )
