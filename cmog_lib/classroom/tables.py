"""Tables in which measured times are marked, so that a comparison of two runs can leave them out."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from IPython.display import HTML


@dataclass(frozen=True)
class Measured:
    """A text that differs from run to run and from machine to machine.

    Attributes:
        text: as the table shows it.
    """

    text: str


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> HTML:
    """A table with a title.

    Args:
        title: its caption.
        head: names of the columns.
        rows: the first entry of each row is its name; a `Measured` entry is marked as such.

    Returns:
        The table as HTML.
    """
    body = "".join(
        f"<tr><th scope='row' style='text-align:left'>{html.escape(str(name))}</th>{''.join(map(_cell, entries))}</tr>"
        for name, *entries in rows
    )
    columns = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in head)
    caption = f"<caption>{html.escape(title)}</caption>"
    return HTML(f"<table>{caption}<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>")


def duration(seconds: float) -> str:
    """Seconds as a text, in the unit that makes them readable, up to ages of the universe."""
    age = 4.35e17  # of the universe: 13.8 billion years
    for unit, size in (("ages of the universe", age), ("years", 3.156e7), ("days", 86400.0), ("hours", 3600.0)):
        if seconds >= size:
            return f"{_short(seconds / size)} {unit}"
    return f"{_short(seconds)} seconds" if seconds >= 1 else f"{_short(1000 * seconds)} milliseconds"


def size(numbers: float) -> str:
    """The memory that so many double-precision numbers take up, as a text."""
    value, units = 8.0 * numbers, ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{_short(value)} {units[0]}"


def _cell(entry: Any) -> str:
    if isinstance(entry, Measured):
        return f"<td class='measured'>{html.escape(entry.text)}</td>"
    return f"<td>{html.escape(str(entry))}</td>"


def count(number: float) -> str:
    """A number as a text, with three digits and thousands separators, or with a power of ten."""
    return f"{number:,.0f}" if 1000 <= number < 1e7 else _short(number)


def _short(value: float) -> str:
    if value < 1e5:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} × 10^{int(exponent)}"
