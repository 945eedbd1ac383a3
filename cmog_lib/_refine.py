"""The adaptive sum behind `quadrature.exact`: cells of the latent space, split where the mass is until it stops moving.

A sum over equal cells converges faster than any power of their side once that is about the width of a smooth
posterior; so the sum over every second cell, in each of its 2^d positions, tells the error of the whole at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cmog_lib import _cells

# The first lattice by latent dimension: side of its cells, most cells a dimension, how often they may be halved.
SIDE = {1: 1 / 32, 2: 1 / 4, 3: 2 / 3}
MOST = {1: 8192, 2: 256, 3: 48}
LEVELS = {1: 40, 2: 22, 3: 14}
TABLE = 2**22  # entries of the first table held at a time
HELD = 2**22  # cells of all data held at a time
UNSETTLED = 8.0  # nats a dimension by which a sum over cells wider than the posterior may be too large
WIDEST = 2.0**10  # half the width of the largest box


@dataclass(frozen=True)
class Lattice:
    """The box [-half_width, half_width]^d in n^d cells; at level l each side is halved l times."""

    half_width: float
    n: int
    latent_dim: int
    bent: float

    def side(self, level: int) -> float:
        return 2 * self.half_width / self.n / 2**level

    def centre(self, index: np.ndarray, level: int) -> np.ndarray:
        return -self.half_width + (index + 0.5) * self.side(level)


class Cells(NamedTuple):
    """Cells that carry mass, sorted by datum. value: log of p(x,t|w) times volume at the centre; bound: in the cell."""

    datum: np.ndarray
    place: np.ndarray
    value: np.ndarray
    bound: np.ndarray


class Sum(NamedTuple):
    """What became of a block of data: log p(x|w), its error, whether mass lies beyond the box; the cost; the cells."""

    log_p_x: np.ndarray
    error: np.ndarray
    outside: np.ndarray
    evaluations: int
    cells: list[tuple[np.ndarray, np.ndarray]]


def margin(tolerance: float) -> float:
    """How many nats below the sum a cell's bound must lie for it to be dropped."""
    return np.log(1 / tolerance) + 14


def lattice(w: Any, half_width: float) -> Lattice:
    """The coarsest lattice on which the decoder is nearly straight within a cell, so that its slopes bound it."""
    d = w.latent_dim
    rng = np.random.default_rng(0)
    T = np.concatenate([rng.normal(size=(1536, d)), rng.uniform(-half_width, half_width, (512, d))])
    n = min(MOST[d], 2 * int(np.ceil(half_width / SIDE[d])))
    while True:
        bent = float(np.mean(_cells.bends(w, jnp.asarray(T), jnp.asarray(2 * half_width / n))))
        if bent < 0.02 or 2 * n > MOST[d]:
            return Lattice(half_width, n, d, bent)
        n *= 2


def settle(w: Any, X: np.ndarray, tolerance: float, max_cells: int) -> tuple[np.ndarray, np.ndarray, int, list]:
    """log p(x_i|w), its error, how many latents were decoded; and the cells, as t and log weight, of the last block."""
    log_p_x, error = np.empty(len(X)), np.full(len(X), np.inf)
    # The prior's own mass fits in the first box; data that reach further get a box of twice the width, and again.
    half_width, evaluations, cells = float(np.ceil(np.sqrt(2 * margin(tolerance))) + 1), 0, []
    pending = np.arange(len(X))
    while len(pending) and half_width <= WIDEST:
        grid = lattice(w, half_width)
        rows = min(max(TABLE // grid.n**w.latent_dim, 1), 2 ** int(np.ceil(np.log2(len(pending)))))
        outside = np.zeros(len(pending), bool)
        for at in range(0, len(pending), rows):
            block = pending[at : at + rows]
            answer = refine(w, _cells.pad(X[block], rows), len(block), grid, tolerance, max_cells)
            log_p_x[block], outside[at : at + rows] = answer.log_p_x, answer.outside
            error[block] = np.where(answer.outside | (grid.bent > 0.2), np.inf, answer.error)
            evaluations, cells = evaluations + answer.evaluations, answer.cells
        pending, half_width = pending[outside], 2 * half_width
    return log_p_x, error, evaluations, cells


def refine(w: Any, X: np.ndarray, N: int, grid: Lattice, tolerance: float, max_cells: int) -> Sum:
    """log p(x_i|w) on cells of `grid` and below, for the first N data of a block."""
    d, far = grid.latent_dim, margin(tolerance)
    index = np.stack(np.meshgrid(*[np.arange(grid.n)] * d, indexing="ij"), axis=-1).reshape(-1, d)
    value, steepness = (part[:N] for part in _cells.table(w, X, grid.centre(index, 0)))
    value, reach = value + d * np.log(grid.side(0)), 0.5 * grid.side(0) * steepness
    log_p_x, error = _log_sum(value), np.full(N, np.inf)
    edge = ((index == 0) | (index == grid.n - 1)).any(axis=1)
    outside = (value + reach)[:, edge].max(axis=1) > log_p_x - far
    bound = value + 2 * reach
    keep = bound > log_p_x[:, None] - far - UNSETTLED * d
    dropped = _log_sum(np.where(keep, -np.inf, bound))  # the most, in log, that the dropped cells may hold
    datum, cell = np.nonzero(keep & ~outside[:, None])
    first = Cells(datum, index[cell], value[datum, cell], bound[datum, cell])
    work = [(first, 0)] if len(datum) else []
    evaluations, finished, best = len(index), [], np.zeros((len(X), d))

    while work:
        cells, level = work.pop()
        present, start, count = np.unique(cells.datum, return_index=True, return_counts=True)
        if count.sum() > HELD and len(present) > 1:
            half = start[len(start) // 2]
            work += [(Cells(*(p[:half] for p in cells)), level), (Cells(*(p[half:] for p in cells)), level)]
            continue
        if level > 0:
            key = cells.place @ (grid.n * 2**level) ** np.arange(d)
            _, chosen, node = np.unique(key, return_index=True, return_inverse=True)
            T = grid.centre(cells.place[chosen], level)
            value, steepness = _cells.pairs(w, X, cells.datum, T, node)
            value, reach = value + d * np.log(grid.side(level)), 0.5 * grid.side(level) * steepness
            cells = cells._replace(value=value, bound=value + 2 * reach)
            evaluations += len(T)
        total, second, fourth = _sums(cells, start, count, d)
        change = np.abs(total - log_p_x[present]) if level else np.zeros(len(present))
        log_p_x[present] = total
        error[present] = np.maximum(second, change)
        low = total - far - np.where(error[present] > 0.5, UNSETTLED * d, 0)
        keep = cells.bound > np.repeat(low, count)
        np.logaddexp.at(dropped, cells.datum[~keep], cells.bound[~keep])
        error[present] += np.exp(np.minimum(dropped[present] - total, 99))
        children = np.add.reduceat(keep, start, dtype=int) * 2**d
        go_on = (error[present] >= tolerance) | (fourth >= 0.5)
        stuck = go_on & ((children > max_cells) | (level == LEVELS[d]))
        error[present[stuck & (error[present] > 1)]] = np.inf
        go_on &= ~stuck
        parents, done = keep & np.repeat(go_on, count), ~np.repeat(go_on, count)
        if go_on.any():
            work.append((_split(Cells(*(p[parents] for p in cells)), d), level + 1))
        t, log_weight = grid.centre(cells.place[done], level), (cells.value - np.repeat(total, count))[done]
        finished.append((t, log_weight))
        order = np.argsort(log_weight)
        best[cells.datum[done][order]] = t[order]  # where a datum occurs often, the last, its heaviest cell, stays
    # Settled or not, no sum is better than the rounding of its terms.
    error += np.finfo(float).eps * np.asarray(_cells.scale(w, jnp.asarray(X), jnp.asarray(best)))[:N]
    return Sum(log_p_x, error, outside, evaluations, finished)


def _sums(cells: Cells, start: np.ndarray, count: np.ndarray, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log Σ over all cells of each datum, and how far the sums over every second and every fourth cell differ."""
    peak = np.maximum.reduceat(cells.value, start)
    row = np.repeat(np.arange(len(start)), count)
    which = row * 4**d + (cells.place % 4) @ 4 ** np.arange(d)
    parts = np.bincount(which, np.exp(cells.value - peak[row]), len(start) * 4**d).reshape(len(start), *[2, 2] * d)
    total = parts.sum(axis=tuple(range(1, 2 * d + 1)))
    seconds = parts.sum(axis=tuple(range(1, 2 * d + 1, 2))).reshape(len(start), -1)
    with np.errstate(divide="ignore"):
        second = np.abs(np.log(seconds * 2**d / total[:, None])).max(axis=1)
        fourth = np.abs(np.log(parts.reshape(len(start), -1) * 4**d / total[:, None])).max(axis=1)
    return peak + np.log(total), second, fourth


def _split(cells: Cells, d: int) -> Cells:
    corner = np.stack(np.meshgrid(*[np.arange(2)] * d, indexing="ij"), axis=-1).reshape(-1, d)
    index = (2 * cells.place[:, None] + corner[None]).reshape(-1, d)
    datum, value, bound = (np.repeat(part, 2**d) for part in (cells.datum, cells.value, cells.bound))
    return Cells(datum, index, value, bound)


def _log_sum(value: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(value, axis=1)
