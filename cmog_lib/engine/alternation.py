"""The loop of every EM: E-step, M-step, and again, with a record that an interrupt or a kill leaves whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from cmog_lib.decoders import as_module
from cmog_lib.engine import table
from cmog_lib.engine.devices import gathered
from cmog_lib.engine.optimise.checkpoint import Checkpoint
from cmog_lib.engine.optimise.faults import given_back
from cmog_lib.engine.optimise.interrupts import look
from cmog_lib.nodes import Nodes

# Cells a dimension of the grid that gives log p(X|w): fine enough for posteriors a tenth as wide as the prior.
AUDIT = {1: 2048, 2: 96}


class Run(eqx.Module):
    """What an EM went through. Half-step 2k is the E-step and 2k + 1 the M-step of iteration k, k = 0 … steps − 1.

    Attributes:
        w: the last decoder.
        path: the decoders w_0 … w_steps.
        log_p_x: 1/N log p(X|w) at each of them, in nats per datum; NaN where d > 2 and no nodes were given.
        bound: 1/N L(w, q) after every half-step, in nats per datum; empty for Monte Carlo EM, which has no bound.
        evaluations: number of decoder evaluations up to each decoder; those for this record are not counted.
        q: what the last E-step found and the next one can begin with: chains for Monte Carlo EM, Gaussians for
            variational EM, None for EM on nodes.
        interrupted: whether the run was stopped with Ctrl-C.
    """

    w: Any
    path: tuple[Any, ...]
    log_p_x: Float[np.ndarray, "ws"]
    bound: Float[np.ndarray, "half_steps"]
    evaluations: Int[np.ndarray, "ws"]
    q: Any = None
    interrupted: bool = False


class Record(NamedTuple):
    """What a run has found so far. Every iteration makes a new one, so that an interrupt finds the last one whole."""

    path: tuple[Any, ...]
    log_p_x: tuple[float, ...]
    bound: tuple[float, ...]
    evaluations: tuple[int, ...]
    q: Any


def alternate(
    iteration: Callable[[int, Any, Any], tuple[Any, Any, tuple[float, ...], int]],
    w: Any,
    q: Any,
    *,
    steps: int,
    value: Callable[[Any], float],
    unit: str,
    progress: bool,
    file: Kept | None = None,
) -> Run:
    """w_{k+1}, q_{k+1} = iteration(k, w_k, q_k), k = 0 … steps − 1, with value(w_k) recorded at every decoder.

    Args:
        iteration: from k, w and q to the new decoder, the new q, the bounds after E-step and M-step if there are any,
            and the number of decoder evaluations.
        w: the first decoder.
        q: what the first E-step begins with.
        steps: number of iterations.
        value: 1/N log p(X|w), as `mean_log_p_x` makes it.
        unit: name of an iteration, for the progress bar.
        progress: whether to show the bar.
        file: where the record is saved after every iteration, and from which the run goes on.
    """
    from tqdm.auto import tqdm

    found = file.load() if file is not None else None
    record = found or Record((w,), (value(w),), (), (0,), q)
    interrupted, done = False, len(record.path) - 1
    with tqdm(total=steps, initial=done, disable=not progress, unit=unit, leave=False) as bar:
        try:
            for k in range(done, steps):
                w_new, q_new, lower, spent = iteration(k, as_module(record.path[-1]), record.q)
                record = Record(
                    (*record.path, w_new),
                    (*record.log_p_x, value(w_new)),
                    (*record.bound, *lower),
                    (*record.evaluations, record.evaluations[-1] + spent),
                    q_new,
                )
                if file is not None:
                    file.save(record)
                bar.update()
                bar.set_postfix(log_p_x=f"{record.log_p_x[-1]:.6g}")
                look()
        except KeyboardInterrupt:
            interrupted = True
    values, bounds, evaluations = map(np.asarray, (record.log_p_x, record.bound, record.evaluations))
    return Run(record.path[-1], record.path, values, bounds, evaluations, record.q, interrupted)


def mean_log_p_x(X: Array, nodes: Nodes | None) -> Callable[[Any], float]:
    """The function w ↦ 1/N Σ_i log p(x_i|w) on the nodes, in nats per datum; NaN where there are none."""

    def value(w: Any) -> float:
        return float("nan") if nodes is None else mean(table.logsumexp(as_module(w), X, nodes))

    return value


def mean(values: Array) -> float:
    """The mean in double precision, of numbers that may lie on several devices."""
    return float(gathered(values).mean(dtype=np.float64))


class Kept:
    """The checkpoint of one run: every decoder so far, the record, and what the next E-step begins with.

    Args:
        path: of the file.
        w: the first decoder.
        blank: a q of the shape that every E-step returns; its `evaluations` is a number of Python.
        run: all that the run is made of; a file of another run is refused.
    """

    def __init__(self, path: str | Path, w: Any, blank: Any, *run: Any) -> None:
        self.first, self.blank = w, blank
        self.w, self.rest = eqx.partition(as_module(w), eqx.is_array)
        self.ws: list[Any] = []
        self.file = Checkpoint(path, self.w, *run)

    def _state(self, ws: list[Any], rows: Any, q: Any) -> Any:
        return ws, np.asarray(rows), eqx.filter(q, eqx.is_array), np.asarray(q.evaluations)

    def save(self, record: Record) -> None:
        """Puts the record in the place of the one before."""
        self.ws += [eqx.filter(as_module(w), eqx.is_array) for w in record.path[len(self.ws) :]]
        rows = list(zip(record.log_p_x, record.evaluations, strict=True))
        self.file.save(len(record.path) - 1, self._state(self.ws, rows, record.q))

    def load(self) -> Record | None:
        """The record of the file, or None where there is no file."""
        found = self.file.load(
            lambda step: self._state([self.w] * (step + 1), [(0.0, 0)] * (step + 1), self.blank),
        )
        if found is None:
            return None
        _, (self.ws, rows, arrays, evaluations) = found
        q = dataclasses.replace(eqx.combine(arrays, self.blank), evaluations=int(evaluations))
        path = [given_back(eqx.combine(self.rest, w)) for w in self.ws]
        values, spent = ([kind(row[k]) for row in rows] for k, kind in enumerate((float, int)))
        return Record((self.first, *path[1:]), tuple(values), (), tuple(spent), q)
