"""Four steps over a block of data, by which `refine` goes from the cells of one level to those of the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cmog_lib.engine.cells import lattice, probes, values
from cmog_lib.engine.cells.lattice import Cells, Lattice, Probes

LEVELS = {1: 40, 2: 22, 3: 14}  # how often cells may be halved, by latent dimension
MOST_CELLS = 2**20  # of one datum at a time
UNSETTLED = 8.0  # nats a dimension by which a sum over cells wider than the posterior may be too large
RESOLVED = 0.5  # nats by which every fourth cell may differ where cells are narrower than what they add up


@dataclass
class Block:
    """What is known of N data. The steps write to the arrays, of which each has an entry, or a row, for each datum.

    log_p_x, error: the last sum and its error. dropped: log of the mass in cells that were dropped. best: the centre of
    the heaviest cell [N, d]. last: of a single datum, the centres of its cells and their values. X may have more rows,
    so that blocks of similar size share what is compiled.
    """

    w: Any
    X: np.ndarray
    grid: Lattice
    probes: Probes | None
    tolerance: float
    log_p_x: np.ndarray
    dropped: np.ndarray
    error: np.ndarray
    best: np.ndarray
    evaluations: int
    last: tuple[np.ndarray, np.ndarray] | None = None


class Wave(NamedTuple):
    """Cells of one level that belong to some of the data. data: their indices. row: the index into `data` of each cell.

    total: log of each datum's sum. share: of a tolerance, how much may be dropped; less where the sum is not reliable.
    """

    cells: Cells
    level: int
    data: np.ndarray
    row: np.ndarray
    total: np.ndarray
    share: np.ndarray


def wave(cells: Cells, level: int) -> Wave:
    """Cells, sorted by datum, before their sum is known."""
    start = np.flatnonzero(np.diff(cells.datum, prepend=-1))
    row = np.repeat(np.arange(len(start)), np.diff(start, append=len(cells.datum)))
    return Wave(cells, level, cells.datum[start], row, np.full(len(start), np.nan), np.ones(len(start)))


def evaluate(block: Block, wave: Wave) -> Wave:
    """log p(x,t|w) times the volume, at the centre of every cell. At level 0 it is known for all data already."""
    cells, level = wave.cells, wave.level
    if level == 0:
        return wave
    place, node = lattice.distinct(cells.place, block.grid.n * 2**level)
    value = values.pairs(block.w, block.X, cells.datum, block.grid.centre(place, level), node)
    block.evaluations += len(place)
    return wave._replace(cells=cells._replace(value=value + block.grid.latent_dim * np.log(block.grid.side(level))))


def add_up(block: Block, wave: Wave) -> Wave:
    """log p(x|w), and its error: what the last halving changed, or what leaving out every second cell would change.

    Returns the cells of those data whose error is not below the tolerance yet.
    """
    cells, level, here, row, *_ = wave
    d, grid = block.grid.latent_dim, block.grid
    start = np.flatnonzero(np.diff(row, prepend=-1))
    total, second, fourth, heaviest = lattice.sums(cells, row, start, d)
    # Every second cell is as coarse as the level before was; the whole is at least twice as good.
    change = np.maximum(np.abs(total - block.log_p_x[here]), second / 2) if level else second
    # Cells wider than what they add up: the sum is a matter of luck, perhaps far too large.
    share = np.where(change > 0.5, np.exp(-UNSETTLED * d), 1)
    if level == 0:  # a posterior that beats in time with the cells deceives every sum over them, but not its slopes
        rise = np.bincount(row, np.exp(cells.value - total[row]) * (cells.bound - cells.value))
        fourth = np.where(rise > 0.6 * d, np.inf, fourth)
    # Second and fourth cells tell a smooth posterior, whose sums converge at once, from one with kinks.
    kinked = second > np.maximum(fourth**3, block.tolerance / 16)
    change = np.where(kinked, np.maximum(change, np.maximum(second, fourth / 8)), change)
    change = np.where(fourth < RESOLVED, change, np.maximum(change, fourth))
    block.log_p_x[here], block.best[here] = total, grid.centre(cells.place[heaviest], level)
    block.error[here] = change + np.exp(np.minimum(block.dropped[here] - total, 99))
    if block.probes is not None:
        block.error[here] += probes.missed(cells, row, total, grid, level, block.probes)
    if len(block.error) == 1:
        block.last = grid.centre(cells.place, level), cells.value - total
    unsettled = block.error[here] >= block.tolerance
    of_those = unsettled[row]
    row = (np.cumsum(unsettled) - 1)[row[of_those]]
    return Wave(lattice.some(cells, of_those), level, here[unsettled], row, total[unsettled], share[unsettled])


def bound(block: Block, wave: Wave) -> Wave:
    """The most that each cell may hold, by the decoder's slopes at its centre and by the probes in it or beside it."""
    cells, level, grid = wave.cells, wave.level, block.grid
    if level == 0:
        return wave
    place, node = lattice.distinct(cells.place, grid.n * 2**level)
    # Slopes say more about smaller cells, so that less has to be added to them for safety.
    cell = grid.side(level), 1 + 0.5**level
    cells = cells._replace(
        bound=cells.value + values.pairs(block.w, block.X, cells.datum, grid.centre(place, level), node, cell)
    )
    block.evaluations += (1 + 2 * grid.latent_dim) * len(place)
    return wave._replace(cells=cells if block.probes is None else probes.raised(cells, grid, level, block.probes))


def split(block: Block, wave: Wave) -> list[tuple[Cells, int]]:
    """Drops the lowest cells of each datum, up to a small part of the tolerance, and halves the others.

    A datum that would have more than `MOST_CELLS` is given up: it keeps the sum and the error that it has.
    """
    d, row = block.grid.latent_dim, wave.row
    keep, lost = lattice.kept(wave.cells.bound, wave.total, row, block.tolerance / 2 ** (d + 5) * wave.share)
    block.dropped[wave.data] = np.logaddexp(block.dropped[wave.data], lost)
    keep &= (np.bincount(row, keep) * 2**d <= MOST_CELLS)[row]
    return [(lattice.split(lattice.some(wave.cells, keep), d), wave.level + 1)] if keep.any() else []
