"""The house's docstrings as reStructuredText: the formula on a line of its own, then each argument on its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

SPECIAL = re.compile(r"([\\*|_<>])")
ARGUMENT = re.compile(r"(?:(?<=^)|(?<=[.)\]] ))((?:\w+, )*\w+): ")
# An index or a power: of a letter that stands alone, of max and the like, of a sum or a bracket.
INDEX = re.compile(
    r"((?<![A-Za-z_])(?:max|min|argmax|[^\W\d_])[\u0300-\u036f]?|[Σ∏∇)])"
    r"\\?([_^])(\{[^}]+\}|−?(?:(?![²³ᵀ⁻])[^\W_])+)(?![A-Za-z]|\\_)"
)
# Where the arguments end and the rest of the text goes on.
REST = re.compile(r"(?<=[.)] )(?=Returns |Raises |Slides? \d|Source|Measured|After Ctrl-C)")


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """For autodoc: `lines` are changed in place."""
    if lines:
        lines[:] = restructured("\n".join(lines), formula=what in ("function", "class", "method", "property"))


def restructured(docstring: str, *, formula: bool) -> list[str]:
    """The docstring's lines in the form that Sphinx reads."""
    first, *paragraphs = re.split(r"\n\s*\n", docstring.strip())
    head = (
        [".. container:: formula", "", f"   {typeset(' '.join(first.split()))}", ""]
        if formula
        else [escaped(first), ""]
    )
    return head + [line for paragraph in paragraphs for line in _paragraph(paragraph)]


def _paragraph(text: str) -> list[str]:
    text = " ".join(text.split())
    head, *rest = REST.split(text, maxsplit=1)
    starts = list(ARGUMENT.finditer(head))
    if not starts:
        return [escaped(text), ""]
    before = [escaped(head[: starts[0].start()]), ""] if starts[0].start() else []
    ends = [found.start() for found in starts[1:]] + [len(head)]
    arguments = [
        f"- ``{found[1]}``: {escaped(head[found.end() : end].strip())}" for found, end in zip(starts, ends, strict=True)
    ]
    return [*before, *arguments, "", *([escaped(rest[0]), ""] if rest else [])]


def typeset(text: str) -> str:
    """A formula in Unicode, its indices lowered and its powers raised; a name such as `half_width` stays as it is."""
    return escaped(text, lambda plain: INDEX.sub(_raised_or_lowered, plain))


def lowered(text: str) -> str:
    """The same for Markdown."""
    tag = {"_": "sub", "^": "sup"}
    return INDEX.sub(lambda found: f"{found[1]}<{tag[found[2]]}>{found[3].strip('{}')}</{tag[found[2]]}>", text)


def escaped(text: str, set_formula: Callable[[str], str] = lambda plain: plain) -> str:
    """Without reStructuredText's own signs; what stands between backticks is code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(f"`{part}`" if part.startswith("`") else set_formula(SPECIAL.sub(r"\\\1", part)) for part in parts)


def _raised_or_lowered(found: re.Match[str]) -> str:
    base, mark, index = found.groups()
    return rf"{base}\ :{'sub' if mark == '_' else 'sup'}:`{index.strip('{}')}`\ "
