"""The adaptive sum behind `quadrature.exact`: cells of the latent space, split where the mass is until it stops moving.

A sum over equal cells converges faster than any power of their side once that is about the width of a smooth
posterior; so the sum over every second cell, in each of its 2^d positions, tells the error of the whole at no cost.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cmog_lib.engine.cells import lattice, values
from cmog_lib.engine.cells.lattice import Cells, Lattice, Probes

# The first lattice by latent dimension: side of its cells, most cells a dimension, how often they may be halved.
SIDE = {1: 1 / 32, 2: 1 / 4, 3: 2 / 3}
MOST = {1: 8192, 2: 256, 3: 48}
LEVELS = {1: 40, 2: 22, 3: 14}
TABLE = 2**23  # entries of the first table held at a time
BLOCK = 2**12  # data at a time: the more, the more of them share a latent
HELD = 2**22  # cells of all data held at a time
SURPRISES = 2**11  # probes that are followed; more there are only where the first lattice bends everywhere
UNSEEN = 2.0  # nats between a probe and the centre of its cell where that has not seen what the probe has
UNSETTLED = 8.0  # nats a dimension by which a sum over cells wider than the posterior may be too large
STRAIGHT, BENT = 0.02, 0.5  # share of cells with a bend below which slopes are trusted, above which they mean nothing
RESOLVED = 0.5  # nats by which every fourth cell may differ where cells are narrower than what they add up
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


def unforeseen(w: Any, grid: Lattice) -> np.ndarray:
    """Latents [P, d] between the centres of the first lattice at which the decoder is not what that leads to expect."""
    T = lattice.probes(grid.latent_dim)
    place, node = lattice.distinct(grid.place(T), grid.n)
    return T[values.unforeseen(w, T, grid.centre(place, 0), node, grid.side(0))][:SURPRISES]


def settle(w: Any, X: np.ndarray, tolerance: float, max_cells: int) -> tuple[np.ndarray, np.ndarray, int, Any]:
    """log p(x_i|w), its error, how many latents were decoded; and, of a single datum, the cells as t and log weight."""
    log_p_x, error = np.empty(len(X)), np.full(len(X), np.inf)
    # The prior's own mass fits in the first box; data that reach further get a box of twice the width, and again.
    half_width, evaluations, cells = float(np.ceil(np.sqrt(2 * margin(tolerance))) + 1), 0, None
    pending = np.arange(len(X))
    while len(pending) and half_width <= WIDEST:
        grid = first_lattice(w, half_width)
        surprises = unforeseen(w, grid)
        evaluations += lattice.PROBES
        outside = np.zeros(len(pending), bool)
        for at in range(0, len(pending), BLOCK):
            block = pending[at : at + BLOCK]
            size = min(BLOCK, 2 ** int(np.ceil(np.log2(len(pending)))))
            answer = refine(w, values.pad(X[block], size), len(block), grid, surprises, tolerance, max_cells)
            log_p_x[block], outside[at : at + BLOCK] = answer.log_p_x, answer.outside
            error[block] = np.where(answer.outside | (grid.bent > BENT), np.inf, answer.error)
            evaluations, cells = evaluations + answer.evaluations, answer.cells
        pending, half_width = pending[outside], 2 * half_width
    return log_p_x, error, evaluations, cells


def refine(
    w: Any, X: np.ndarray, N: int, grid: Lattice, surprises: np.ndarray, tolerance: float, max_cells: int
) -> Sum:
    """log p(x_i|w) on cells of `grid` and below, for the first N data of a block."""
    d = grid.latent_dim
    pairs = np.divmod(np.arange(N * len(surprises)), max(len(surprises), 1))
    probes = (
        Probes(surprises, values.pairs(w, X, pairs[0], surprises, pairs[1]).reshape(N, -1)) if len(surprises) else None
    )
    log_p_x, outside, dropped, cells = _first(w, X, N, grid, probes, margin(tolerance))
    error, best, last = np.full(N, np.inf), np.zeros((len(X), d)), None
    work, evaluations = [(cells, 0)] if len(cells.datum) else [], (1 + 2 * d) * grid.n**d

    while work:
        cells, level = work.pop()
        start = np.flatnonzero(np.diff(cells.datum, prepend=-1))
        here, row = cells.datum[start], np.repeat(np.arange(len(start)), np.diff(start, append=len(cells.datum)))
        if len(row) > HELD and len(here) > 1:
            below = row < len(here) // 2
            work += [(lattice.some(cells, below), level), (lattice.some(cells, ~below), level)]
            continue
        if level > 0:
            place, node = lattice.distinct(cells.place, grid.n * 2**level)
            value = values.pairs(w, X, cells.datum, grid.centre(place, level), node)
            cells = cells._replace(value=value + d * np.log(grid.side(level)))
            evaluations += len(place)
        total, second, fourth, heaviest = lattice.sums(cells, row, start, d)
        # Every second cell is as coarse as the level before was; the whole is at least twice as good.
        change = np.maximum(np.abs(total - log_p_x[here]), second / 2) if level else second
        # Cells wider than what they add up: the sum is a matter of luck, perhaps far too large.
        lucky = np.where(change > 0.5, np.exp(-UNSETTLED * d), 1)
        if level == 0:  # a posterior that beats in time with the cells deceives every sum over them, but not its slopes
            rise = np.bincount(row, np.exp(cells.value - total[row]) * (cells.bound - cells.value))
            fourth = np.where(rise > 0.6 * d, np.inf, fourth)
        # Second and fourth cells tell a smooth posterior, whose sums converge at once, from one with kinks.
        kinked = second > np.maximum(fourth**3, tolerance / 16)
        change = np.where(kinked, np.maximum(change, np.maximum(second, fourth / 8)), change)
        change = np.where(fourth < RESOLVED, change, np.maximum(change, fourth))
        log_p_x[here], best[here] = total, grid.centre(cells.place[heaviest], level)
        error[here] = change + np.exp(np.minimum(dropped[here] - total, 99))
        if probes is not None:
            error[here] += _missed(cells, row, total, grid, level, probes)
        if N == 1:
            last = grid.centre(cells.place, level), cells.value - total
        unsettled = error[here] >= tolerance
        if level == LEVELS[d] or not unsettled.any():
            continue
        cells, here, total, lucky = (
            lattice.some(cells, unsettled[row]),
            here[unsettled],
            total[unsettled],
            lucky[unsettled],
        )
        row = (np.cumsum(unsettled) - 1)[row[unsettled[row]]]
        if level > 0:
            place, node = lattice.distinct(cells.place, grid.n * 2**level)
            # Slopes say more about smaller cells, so that less has to be added to them for safety.
            rise = values.pairs(w, X, cells.datum, grid.centre(place, level), node, (grid.side(level), 1 + 0.5**level))
            cells = cells._replace(bound=cells.value + rise)
            if probes is not None:
                cells = _raised(cells, grid, level, probes)
            evaluations += (1 + 2 * d) * len(place)
        keep, lost = lattice.kept(cells.bound, total, row, tolerance / 2 ** (d + 5) * lucky)
        dropped[here] = np.logaddexp(dropped[here], lost)
        keep &= (np.bincount(row, keep) * 2**d <= max_cells)[row]
        if keep.any():
            work.append((lattice.split(lattice.some(cells, keep), d), level + 1))
    error[error > 1] = np.inf
    # Settled or not, no sum is better than the rounding of its terms.
    error += np.finfo(float).eps * np.asarray(values.scale(w, jnp.asarray(X), jnp.asarray(best)))[:N]
    return Sum(log_p_x, error, outside, evaluations, last)


def _raised(cells: Cells, grid: Lattice, level: int, probes: Probes) -> Cells:
    """A cell's bound is at least what a probe in it or beside it has shown; a probe that it foretells is forgotten."""
    probed, shown, own, beside = _shown(cells, grid, level, probes)
    above = beside & (shown > cells.bound[probed])
    bound, probe = cells.bound.copy(), cells.probe.copy()
    bound[probed] = np.where(above, shown, bound[probed])
    probe[probed] = np.where(above | own & (np.abs(shown - cells.value[probed]) > UNSEEN), probe[probed], -1)
    return cells._replace(bound=bound, probe=probe)


def _missed(cells: Cells, row: np.ndarray, total: np.ndarray, grid: Lattice, level: int, probes: Probes) -> np.ndarray:
    """For each datum the share of its sum that is in doubt, since a probe lies far above or below its cell's centre."""
    probed, shown, own, _ = _shown(cells, grid, level, probes)
    value = cells.value[probed]
    share = np.exp(np.minimum(np.maximum(shown, value) - total[row[probed]], 99))
    return np.bincount(row[probed], np.where(own & (np.abs(shown - value) > UNSEEN), share, 0), len(total))


def _shown(cells: Cells, grid: Lattice, level: int, probes: Probes) -> tuple[np.ndarray, ...]:
    """Which cells have a probe; what their values would be by that; whether it lies in the cell; there or beside it."""
    probed = np.flatnonzero(cells.probe >= 0)
    datum, probe, centre = cells.datum[probed], cells.probe[probed], grid.centre(cells.place[probed], level)
    shown = probes.value[datum, probe] + grid.latent_dim * np.log(grid.side(level))
    own, beside = (grid.reaches(centre, level, probes.t[probe], reach) for reach in (0.5, 1.5))
    return probed, shown, own, beside


def _first(
    w: Any, X: np.ndarray, N: int, grid: Lattice, probes: Probes | None, far: float
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
        if probes is not None:
            _probed(value, bound, probe, grid, probes.t, probes.value[at : at + len(value)] + d * np.log(side))
        outside = value[:, edge].max(axis=1) > total - far
        keep = bound > total[:, None] - far - UNSETTLED * d
        dropped = np.logaddexp.reduce(np.where(keep, -np.inf, bound), axis=1)
        datum, cell = np.nonzero(keep & ~outside[:, None])
        chosen = (part[datum, cell] for part in (value, bound, probe))
        parts.append((total, outside, dropped, datum + at, place[cell], *chosen))
    total, outside, dropped, *cells = (np.concatenate(part) for part in zip(*parts, strict=True))
    return total, outside, dropped, Cells(*cells)


def _probed(
    value: np.ndarray, bound: np.ndarray, probe: np.ndarray, grid: Lattice, t: np.ndarray, shown: np.ndarray
) -> None:
    """Gives cells of level 0 their probes, in place, and raises bounds: [N, S] all, but `shown` [N, P].

    A probe far from what the centre shows goes to its own cell, one above a cell's bound to that and to those beside.
    """
    d, n = grid.latent_dim, grid.n
    own, row_major = grid.place(t), n ** np.arange(d)[::-1]
    # Of several probes in or beside a cell the highest one stays: the last that is assigned.
    rising = np.argsort(shown, axis=None, kind="stable")
    for step in np.stack(np.meshgrid(*[(-1, 0, 1)] * d, indexing="ij"), axis=-1).reshape(-1, d):
        at = np.broadcast_to((own + step).clip(0, n - 1) @ row_major, shown.shape)
        there = np.take_along_axis(value, at, axis=1), np.take_along_axis(bound, at, axis=1)
        chosen = shown > there[1]
        if not step.any():
            chosen |= np.abs(shown - there[0]) > UNSEEN
        datum, p = np.unravel_index(rising[chosen.reshape(-1)[rising]], shown.shape)
        cell = at[datum, p]
        bound[datum, cell], probe[datum, cell] = np.maximum(bound[datum, cell], shown[datum, p]), p
