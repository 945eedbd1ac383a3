"""The adaptive sum behind `quadrature.exact`: cells of the latent space, split where the mass is until it stops moving.

A sum over equal cells converges faster than any power of their side once that is about the width of a smooth
posterior; so the sum over every second cell, in each of its 2^d positions, tells the error of the whole at no cost.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cmog_lib.engine.cells import lattice, probes, steps, values
from cmog_lib.engine.cells.lattice import Cells, Lattice, Probes

# The first lattice by latent dimension: side of its cells, most cells a dimension.
SIDE = {1: 1 / 32, 2: 1 / 4, 3: 2 / 3}
MOST = {1: 8192, 2: 256, 3: 48}
TABLE = 2**23  # entries of the first table held at a time
BLOCK = 2**12  # data at a time: the more, the more of them share a latent
HELD = 2**22  # cells of all data held at a time
STRAIGHT, BENT = 0.02, 0.5  # share of cells with a bend below which slopes are trusted, above which they mean nothing
WIDEST = 2.0**10  # half the width of the largest box


class Sum(NamedTuple):
    """What became of a block of data: log p(x|w), its error, whether mass lies beyond the box; the cost; the cells."""

    log_p_x: np.ndarray
    error: np.ndarray
    outside: np.ndarray
    evaluations: int
    cells: tuple[np.ndarray, np.ndarray] | None


def margin(tolerance: float) -> float:
    """How many nats below the sum a cell's bound must lie for it to be dropped."""
    return np.log(1 / tolerance) + 14


def first_lattice(w: Any, half_width: float) -> Lattice:
    """The coarsest lattice on which the decoder is nearly straight within a cell, so that its slopes bound it."""
    d = w.latent_dim
    rng = np.random.default_rng(0)
    T = np.concatenate([rng.normal(size=(1536, d)), rng.uniform(-half_width, half_width, (512, d))])
    n = min(MOST[d], 2 * int(np.ceil(half_width / SIDE[d])))
    while True:
        bent = float(values.bends(w, T, 2 * half_width / n).mean())
        if bent < STRAIGHT or 2 * n > MOST[d]:
            return Lattice(half_width, n, d, bent)
        n *= 2


def settle(w: Any, X: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, int, Any]:
    """log p(x_i|w), its error, how many latents were decoded; and, of a single datum, the cells as t and log weight."""
    log_p_x, error = np.empty(len(X)), np.full(len(X), np.inf)
    # The prior's own mass fits in the first box; data that reach further get a box of twice the width, and again.
    half_width, evaluations, cells = float(np.ceil(np.sqrt(2 * margin(tolerance))) + 1), 0, None
    pending = np.arange(len(X))
    while len(pending) and half_width <= WIDEST:
        grid = first_lattice(w, half_width)
        surprises = probes.unforeseen(w, grid)
        evaluations += lattice.PROBES
        outside = np.zeros(len(pending), bool)
        for at in range(0, len(pending), BLOCK):
            block = pending[at : at + BLOCK]
            size = min(BLOCK, 2 ** int(np.ceil(np.log2(len(pending)))))
            answer = refine(w, values.pad(X[block], size), len(block), grid, surprises, tolerance)
            log_p_x[block], outside[at : at + BLOCK] = answer.log_p_x, answer.outside
            error[block] = np.where(answer.outside | (grid.bent > BENT), np.inf, answer.error)
            evaluations, cells = evaluations + answer.evaluations, answer.cells
        pending, half_width = pending[outside], 2 * half_width
    return log_p_x, error, evaluations, cells


def refine(w: Any, X: np.ndarray, N: int, grid: Lattice, surprises: np.ndarray, tolerance: float) -> Sum:
    """log p(x_i|w) on cells of `grid` and below, for the first N data of a block."""
    d, shown = grid.latent_dim, None
    if len(surprises):
        datum, probe = np.divmod(np.arange(N * len(surprises)), len(surprises))
        shown = Probes(surprises, values.pairs(w, X, datum, surprises, probe).reshape(N, -1))
    log_p_x, outside, dropped, cells = _first(w, X, N, grid, shown, margin(tolerance))
    begun = log_p_x, dropped, np.full(N, np.inf), np.zeros((len(X), d)), (1 + 2 * d) * grid.n**d
    block = steps.Block(w, X, grid, shown, tolerance, *begun)

    work = [(cells, 0)] if len(cells.datum) else []
    while work:
        wave = steps.wave(*work.pop())
        if len(wave.row) > HELD and len(wave.data) > 1:
            below = wave.row < len(wave.data) // 2
            work += [(lattice.some(wave.cells, part), wave.level) for part in (below, ~below)]
            continue
        wave = steps.add_up(block, steps.evaluate(block, wave))
        if wave.level < steps.LEVELS[d] and len(wave.data):
            work += steps.split(block, steps.bound(block, wave))

    error = np.where(block.error > 1, np.inf, block.error)
    # Settled or not, no sum is better than the rounding of its terms.
    error += np.finfo(float).eps * np.asarray(values.scale(w, jnp.asarray(X), jnp.asarray(block.best)))[:N]
    return Sum(block.log_p_x, error, outside, block.evaluations, block.last)


def _first(
    w: Any, X: np.ndarray, N: int, grid: Lattice, shown: Probes | None, far: float
) -> tuple[Any, Any, Any, Cells]:
    """Level 0, all data on all cells: log Σ, whether mass reaches the edge, log of what is dropped, what is kept."""
    d, side = grid.latent_dim, grid.side(0)
    place = np.stack(np.meshgrid(*[np.arange(grid.n)] * d, indexing="ij"), axis=-1).reshape(-1, d)
    edge, rows = ((place == 0) | (place == grid.n - 1)).any(axis=1), min(max(TABLE // len(place), 1), len(X))
    parts = []
    for at in range(0, N, rows):
        here = values.pad(X[at : at + rows], rows), min(rows, N - at)
        value, rise = (part[: here[1]] for part in values.table(w, here[0], grid.centre(place, 0), side, 2.0))
        value = value + d * np.log(side)
        bound, total = value + rise, np.logaddexp.reduce(value, axis=1)
        probe = np.full(value.shape, -1)
        if shown is not None:
            probes.probed(value, bound, probe, grid, shown.t, shown.value[at : at + len(value)] + d * np.log(side))
        outside = value[:, edge].max(axis=1) > total - far
        keep = bound > total[:, None] - far - steps.UNSETTLED * d
        dropped = np.logaddexp.reduce(np.where(keep, -np.inf, bound), axis=1)
        datum, cell = np.nonzero(keep & ~outside[:, None])
        chosen = (part[datum, cell] for part in (value, bound, probe))
        parts.append((total, outside, dropped, datum + at, place[cell], *chosen))
    total, outside, dropped, *cells = (np.concatenate(part) for part in zip(*parts, strict=True))
    return total, outside, dropped, Cells(*cells)
