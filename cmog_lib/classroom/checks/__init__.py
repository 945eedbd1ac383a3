"""Exercise checkers that name the mistake.

An exercise holds the right answer and the known mistakes as functions. A checker says "you took the sum where the mean
was meant" only if the function with that mistake returns the same numbers. It never guesses.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

LAST_LINE = "Look at the last line of the cell: there your function's name stands without brackets of its own."


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    Attributes:
        status: "passed", "mistake" (a known one, which is named), "wrong" or "open".
        message: one or more sentences for the reader.
    """

    status: str
    message: str

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def __repr__(self) -> str:
        return f"{self._mark} {self.message}"

    @property
    def _mark(self) -> str:
        return {"passed": "✓", "mistake": "✗", "wrong": "✗", "open": "…"}[self.status]

    def _repr_html_(self) -> str:
        edge = {"passed": "#007A5C", "mistake": "#D55E00", "wrong": "#D55E00", "open": "#6B6B6B"}[self.status]
        return (
            f'<div role="status" style="border-left:6px solid {edge};padding:.4em .8em">'
            f"<strong>{self._mark}</strong> {html.escape(self.message)}</div>"
        )


@dataclass(frozen=True)
class Exercise:
    """A question with its answer and the common mistakes.

    Attributes:
        answer: the right function.
        cases: a function that returns the argument tuples with which it is called.
        mistakes: two sentences ↦ the function that makes the mistake. The first sentence names the mistake, the second
            says where to look.
        praise: the message for a right answer.
        tolerance: relative to the size of the right answer.
        view: what is compared of an attempt, if several attempts are equally right.
    """

    answer: Callable
    cases: Callable[[], Sequence[tuple]]
    mistakes: Mapping[str, Callable]
    praise: str
    tolerance: float = 1e-4
    view: Callable = field(default=lambda attempt: attempt)

    def __call__(self, attempt: Any) -> Verdict:
        """Compares an attempt with the right answer, then with every known mistake. Never raises for a wrong one.

        Args:
            attempt: the reader's function.

        Returns:
            A `Verdict`.
        """
        if not callable(attempt):
            given = type(attempt).__name__
            return Verdict("wrong", f"You gave the checker {given}, not your function itself. {LAST_LINE}")
        cases = self.cases()
        try:
            looked_at = self.view(attempt)
            got = [_array(looked_at(*case)) for case in cases]
        except Exception as error:  # whatever a student's code raises is shown to the student, in one line
            stopped = f"Your function stopped with {type(error).__name__}: {str(error).rstrip('.')}."
            return Verdict("wrong", f"{stopped} Look at its docstring for what comes in and what has to come out.")
        if any(part is None or part is Ellipsis for value in got for part in _parts(value)):
            return Verdict("open", "Not answered yet: replace the ... and run this cell again.")
        if self._agree(got, self.answer, cases):
            return Verdict("passed", self.praise)
        for sentences, mistake in self.mistakes.items():
            if self._agree(got, mistake, cases):
                return Verdict("mistake", sentences)
        return Verdict("wrong", self._difference(got[0], self.view(self.answer)(*cases[0])))

    def _agree(self, got: Sequence[Any], want: Callable, cases: Sequence[tuple]) -> bool:
        right = self.view(want)
        return all(_close(value, right(*case), self.tolerance) for value, case in zip(got, cases, strict=True))

    def _difference(self, got: Any, want: Any) -> str:
        shapes = [str([list(np.shape(part)) for part in _parts(value)]) for value in (got, want)]
        if shapes[0] != shapes[1]:
            return f"The shape is {shapes[0]}, expected {shapes[1]}. Look at the shapes in the docstring."
        gap = max(
            float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float))))
            for a, b in zip(_parts(got), _parts(want), strict=True)
        )
        unknown = f"Not yet, and not a mistake that this checker knows: the largest difference is {gap:.3g}."
        return f"{unknown} Look at the first hint below."


def _array(value: Any) -> Any:
    """The value; a list of numbers becomes an array, a tuple remains several answers."""
    return np.asarray(value) if isinstance(value, list) and all(np.isscalar(part) for part in value) else value


def _parts(value: Any) -> list[Any]:
    """The arrays in an answer, which may be one array or a tuple of them."""
    return jax.tree.leaves(value, is_leaf=lambda leaf: leaf is None)


def _close(got: Any, want: Any, tolerance: float) -> bool:
    got_parts, want_parts = _parts(got), _parts(want)
    if len(got_parts) != len(want_parts):
        return False
    for a, b in zip(got_parts, want_parts, strict=True):
        try:
            a, b = np.asarray(a, float), np.asarray(b, float)
        except (TypeError, ValueError):
            return False
        finite = b[np.isfinite(b)]
        scale = 1.0 if not finite.size else max(float(np.max(np.abs(finite))), 1e-12)
        if a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=tolerance * scale, equal_nan=True):
            return False
    return True
