"""The scoreboard of the series: one line for each method, its distance from the reference in nats, and its cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import numpy as np
from jax import Array

from cmog_lib.classroom.style import bar
from cmog_lib.classroom.tables import Measured, table


@dataclass
class Scoreboard:
    """Mean |log p(x) − reference value| over the data, in nats, beside decoder evaluations and seconds.

    Attributes:
        title: which model and which data.
        truth: [N], the reference values of log p(x_i|w), in nats.
        rows: the lines so far.
    """

    title: str
    truth: Array = field(repr=False)
    rows: list[tuple[str, float, int, float]] = field(default_factory=list)

    def measure(self, method: str, compute: Callable[[], Array], *, evaluations: int) -> None:
        """Adds a line. `compute()` is called twice: the first call compiles, the second is timed.

        Args:
            method: its name.
            compute: a function that returns [N] values of log p(x_i|w), in nats.
            evaluations: number of decoder evaluations of one call.
        """
        for _ in bar(range(2), method):
            start = time.perf_counter()
            values = jax.block_until_ready(compute())
            seconds = time.perf_counter() - start
        nats = float(np.mean(np.abs(np.asarray(values, float) - np.asarray(self.truth, float))))
        self.rows.append((method, nats, int(evaluations), seconds))

    def _repr_html_(self) -> str:
        head = ("method", "nats from the truth, per datum", "decoder evaluations", "milliseconds here")
        rows = [
            (method, in_nats(nats), f"{evaluations:,}", Measured(f"{1000 * seconds:.1f}"))
            for method, nats, evaluations, seconds in self.rows
        ]
        return table(self.title, head, rows).data


def in_nats(nats: float) -> str:
    """A distance as a text of two digits; below 1e-9 it is rounding, which differs from machine to machine."""
    return "below 1e-9" if nats < 1e-9 else f"{nats:.2g}"
