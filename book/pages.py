"""The pages that nobody writes: notation, formula sheet, references, the library's pages, the map of the lectures."""

from __future__ import annotations

import html
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Iterable

from nbformat import NotebookNode

from book import library
from book.course import Lecture, address, elsewhere, lectures, symbols
from book.docstrings import escaped, lowered
from book.execute import ROOT, Failure
from book.library import Entry

MODEL = r"""$$p(x\mid w) = \int p(x\mid t, w)\,p(t)\,dt, \qquad p(t) = \mathcal N(0, I), \qquad
p(x\mid t, w) = \mathcal N\big(\mu(t, w), \mathrm{diag}\,\sigma^2(t, w)\big)$$"""


def call(entry: Entry) -> str:
    """A link to the function's place in the reference."""
    return f"{{py:obj}}`{entry.name.removeprefix('cmog_lib.')} <{entry.name}>`"


def notation(used: dict[str, list[Lecture]]) -> str:
    """Each symbol of the slides, the function that is it, and the lectures in which one meets it."""
    rows = ["| slide | symbol | function | lectures |", "|---|---|---|---|"]
    for symbol in symbols():
        met = sorted({lecture.number: lecture for e in symbol.entries for lecture in used[e.name]}.items())
        links = ", ".join(f"[{number}](lectures/{lecture.name})" for number, lecture in met)
        rows.append(f"| {symbol.slides} | {lowered(symbol.text)} | {', '.join(map(call, symbol.entries))} | {links} |")
    return "\n".join(rows)


def names() -> str:
    """CONTRIBUTING.md's table of names."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    start = text.index("| symbol | meaning | name in code |")
    return text[start : text.index("\n\n", start)]


def formulas() -> str:
    """The model, and under each lecture the formulas that it displays and its symbols with their functions."""
    parts = [MODEL, "::::{container} sheet"]
    for lecture in lectures():
        parts += [":::{container} sheet-part", f"**{lecture.number} · [{lecture.title}](lectures/{lecture.name})**", ""]
        parts += [f"{broken(formula)}\n" for formula in lecture.formulas]
        parts += [f"- {formula}: {', '.join(map(call, entries))}" for formula, entries in lecture.symbols]
        parts.append(":::")
    return "\n".join([*parts, "::::"])


def broken(formula: str) -> str:
    """A formula for a narrow column: a long one goes on in a new line at each of its outermost signs."""
    depth, lines = 0, [""]
    for token in re.findall(r"\\[A-Za-z]+|\\.|.", formula):
        depth += (token in "([{") - (token in ")]}")
        relation, sign = token in ("=", r"\ge", r"\le", r"\approx"), token in "+-"
        if depth == 0 and (relation or (sign and len(lines[-1]) > 60)):
            lines.append("")
        lines[-1] += token
    if len(formula) < 95 or len(lines) < 3:
        return f"${formula}$"
    rows = r" \\ & ".join(lines[1:])
    size = r"\small " if max(map(len, lines)) > 120 else ""
    return rf"${size}\begin{{array}}{{@{{}}r@{{\;}}l}} {lines[0]} & {rows} \end{{array}}$"


def references() -> str:
    """What each lecture says under *Read on*."""
    return "\n\n".join(
        f"## {lecture.number} · [{lecture.title}](lectures/{lecture.name})\n\n{lecture.read_on}"
        for lecture in lectures()
    )


def lecture_map() -> str:
    """The lectures as a list; beside it, for the eye, lines from each to those that go on from it."""
    edges = [(need, lecture.number) for lecture in lectures() for need in lecture.needs]
    long = [edge for edge in sorted(edges) if edge[1] != edge[0] + 1]
    lanes = {edge: long.index(edge) + 1 if edge in long else 0 for edge in edges}
    items = []
    for lecture in lectures():
        onward = " and ".join(str(number) for number in lecture.needs)
        needs = f"builds on lecture{'s' if len(lecture.needs) > 1 else ''} {onward}" if onward else "start here"
        items.append(
            f'<li>{_gutter(lecture.number, lanes)}<a class="map-card" href="lectures/{lecture.name}.html">'
            f"<strong>{lecture.number} · {html.escape(lecture.title)}</strong>"
            f"<span>read in {lecture.reading} · runs in {lecture.runs_in} · {needs}</span></a></li>"
        )
    return f'<ol class="map" style="--lanes: {1 + len(long)}">{"".join(items)}</ol>'


def _gutter(here: int, lanes: dict[tuple[int, int], int]) -> str:
    """The lines that pass or end beside one lecture: 16 units a lane, the row 100 units high."""
    paths = []
    for (start, end), lane in lanes.items():
        x = 8 + 16 * lane
        if start == here:
            paths.append(f"M8 50 C8 75 {x} 70 {x} 100" if lane else "M8 50 V100")
        if end == here:
            paths.append(f"M{x} 0 C{x} 30 8 25 8 50" if lane else "M8 0 V50")
        if start < here < end:
            paths.append(f"M{x} 0 V100")
    width = 16 * (1 + max(lanes.values(), default=0))
    lines = "".join(f'<path d="{path}"/>' for path in paths)
    return (
        f'<svg aria-hidden="true" viewBox="0 0 {width} 100" preserveAspectRatio="none">{lines}</svg>'
        '<span class="map-stop" aria-hidden="true"></span>'
    )


def room(name: str, entries: Iterable[Entry], used: dict[str, list[Lecture]]) -> str:
    """One room of the library, as reStructuredText."""
    doc = inspect.getdoc(importlib.import_module(f"cmog_lib.{name}")) or ""
    parts = [name, "=" * len(name), "", escaped(" ".join(doc.split())), ""]
    for entry in entries:
        parts += [f".. auto{entry.kind}:: {entry.name}"]
        parts += ["   :members:", ""] if entry.kind == "class" else [""]
        if met := used[entry.name]:
            links = ", ".join(f":doc:`{lecture.number} </lectures/{lecture.name}>`" for lecture in met)
            parts += [f"   Used in lecture{'s' if len(met) > 1 else ''} {links}.", ""]
    return "\n".join(parts)


def rooms_index() -> str:
    """The library's front page: its rooms, one line each."""
    rows = []
    for name in library.rooms():
        doc = (inspect.getdoc(importlib.import_module(f"cmog_lib.{name}")) or "").splitlines()[0]
        rows.append(f"| [`{name}`]({name}.rst) | {doc.replace('|', chr(92) + '|')} |")
    return "\n".join(["| module | contents |", "|---|---|", *rows, "", *_toctree(library.rooms())])


def lectures_index() -> str:
    """What happens in each lecture, as the README's table has it."""
    rows = [
        f"| {e.number} | [{e.title}]({e.name}) | {e.slides} | {lowered(e.happens)} | {e.runs_in} |" for e in lectures()
    ]
    head = ["| | lecture | slides | what happens | runs in |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, "", *_toctree(lecture.name for lecture in lectures())])


def _toctree(names: Iterable[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", "", *names, "```"]


def start(words: str) -> str:
    """Returns the words, linked to the README's Start section if the project has an address."""
    return f'<a href="{address()}#start">{words}</a>' if address() else f"<span>{words}</span>"


def run_it(lecture: Lecture) -> str:
    """The ways from the page to a kernel, and to the lecturer's desk."""
    links = "".join(f'<a href="{html.escape(link)}">{where}</a> ' for where, link in elsewhere(lecture).items())
    return (
        '<nav class="run-it" aria-label="Run or present this lecture"><span>Run it:</span> '
        f"{links}{start('on your machine, <code>make lab</code>')}"
        f' <span>Present it:</span> <a href="../slides/{lecture.name}.html">as slides</a></nav>'
        '<p class="turn-it">The figures need a wide screen: turn your phone to landscape to read them.</p>'
    )


def failed(where: Failure, medium: str) -> str:
    """The note on the page or the slides of a lecture that failed."""
    if not where.number:
        place = f"It failed outside of its cells with {_verbatim(where.error)}."
    else:
        place = f"Cell [{where.number}], {_verbatim(where.line)}, failed with {_verbatim(where.error)}."
    verb = "shows" if medium == "page" else "show"
    return f"**This lecture did not run to its end.** {place} The {medium} {verb} the lecture up to there."


def _verbatim(text: str) -> str:
    """Any one line of text as code, with more backticks around it than in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def used_in(notebooks: dict[str, NotebookNode]) -> dict[str, list[Lecture]]:
    """For every name of the library, the lectures whose code calls it."""
    used: dict[str, list[Lecture]] = defaultdict(list)
    for lecture in lectures():
        for entry in library.used(notebooks[lecture.name]):
            used[entry.name].append(lecture)
    return used
