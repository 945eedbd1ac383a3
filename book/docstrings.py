"""The house's docstrings on their way to napoleon: the formula on a line of its own, and the text escaped."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

SPECIAL = re.compile(r"([\\*|_<>`])")
# An index or a power: of a letter that stands alone, of max and the like, of a sum or a bracket.
INDEX = re.compile(
    r"((?<![A-Za-z_])(?:max|min|argmax|[^\W\d_])[\u0300-\u036f]?|[Σ∏∇)])"
    r"\\?([_^])(\{[^}]+\}|−?(?:(?![²³ᵀ⁻])[^\W_])+)(?![A-Za-z]|\\_)"
)
SECTION = re.compile(r"\w+:")
NAME = re.compile(r"(?:\*{0,2}\w+, )*\*{0,2}\w+: ")  # of an item
TEXT = ("Returns:", "Yields:")  # sections that have no items
# What would begin a list, such as "d. " or "- ".
LIST = re.compile(r"^(?=[-+•] |\(?(?:\w|\d+|[ivxlcdm]+)[.)](?: |$))", re.IGNORECASE)


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """For autodoc, before napoleon: `lines` are changed in place."""
    if lines:
        # An empty comment: napoleon splits the first line of a property at its colon and removes the indents below it.
        start = ["..", ""] if what in ("attribute", "data", "property") else []
        lines[:] = start + restructured("\n".join(lines), formula=what in ("function", "class", "method", "property"))


def restructured(docstring: str, *, formula: bool) -> list[str]:
    """The docstring's lines as napoleon reads them: sections and names as they are, all text escaped."""
    first, *blocks = re.split(r"\n\s*\n", docstring.strip())
    first = " ".join(first.split())
    head = [".. container:: formula", "", f"   {typeset(first)}", ""] if formula else [_text(first), ""]
    return head + [line for block in blocks for line in _block(block)]


def _block(block: str) -> list[str]:
    """A paragraph or a section, with each paragraph and each item on one line."""
    header, *lines = block.splitlines()
    if not (lines and SECTION.fullmatch(header)):
        return [_text(block), ""]
    body = textwrap.dedent("\n".join(lines))
    # Without the first colon, napoleon takes what stands before the text's own colon for its type.
    items = [f": {_text(body)}"] if header in TEXT else [_item(item) for item in re.split(r"\n(?! )", body)]
    return [header, *(f"    {item}" for item in items), ""]


def _item(item: str) -> str:
    """An item of a section: its name as it is, its text escaped."""
    found = NAME.match(item)
    name = found[0] if found else ""
    return name + _text(item.removeprefix(name))


def _text(text: str) -> str:
    """Text on one line, escaped, also where it would begin a list."""
    return LIST.sub(r"\\", escaped(" ".join(text.split())))


def typeset(text: str) -> str:
    """A formula in Unicode, its indices lowered and its powers raised; a name such as `half_width` stays as it is."""
    return escaped(text, lambda plain: INDEX.sub(_raised_or_lowered, plain))


def lowered(text: str) -> str:
    """The same for Markdown."""
    tag = {"_": "sub", "^": "sup"}
    return INDEX.sub(lambda found: f"{found[1]}<{tag[found[2]]}>{found[3].strip('{}')}</{tag[found[2]]}>", text)


def escaped(text: str, set_formula: Callable[[str], str] = lambda plain: plain) -> str:
    """Text with reStructuredText's own signs escaped; what stands between backticks is code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(f"`{part}`" if part.startswith("`") else set_formula(SPECIAL.sub(r"\\\1", part)) for part in parts)


def _raised_or_lowered(found: re.Match[str]) -> str:
    base, mark, index = found.groups()
    return rf"{base}\ :{'sub' if mark == '_' else 'sup'}:`{index.strip('{}')}`\ "
