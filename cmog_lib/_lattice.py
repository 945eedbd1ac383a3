"""Cells on a lattice, each with a datum: what `quadrature.exact` does with them before and after asking the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

OFF_CENTRE = 0.2137  # of a cell
TABULATED = 2**25  # places of a lattice that may be ticked off in a table; above, they are sorted


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
        # Off centre: a posterior that mirrors itself in t = 0 is in step with a lattice that does, and hides its error.
        return -self.half_width + OFF_CENTRE * self.side(0) + (index + 0.5) * self.side(level)


class Cells(NamedTuple):
    """Cells that carry mass, sorted by datum. value: log of p(x,t|w) times volume at the centre; bound: in the cell."""

    datum: np.ndarray
    place: np.ndarray
    value: np.ndarray
    bound: np.ndarray


def sums(cells: Cells, row: np.ndarray, start: np.ndarray, d: int) -> tuple[np.ndarray, ...]:
    """log Σ over all cells of each datum, how far the sums over every second and every fourth differ; the top cell."""
    N, peak = len(start), np.maximum.reduceat(cells.value, start)
    which = row * 4**d + (cells.place % 4) @ 4 ** np.arange(d)
    parts = np.bincount(which, np.exp(cells.value - peak[row]), N * 4**d).reshape(N, *[2, 2] * d)
    total = parts.sum(axis=tuple(range(1, 2 * d + 1)))
    seconds = parts.sum(axis=tuple(range(1, 2 * d + 1, 2))).reshape(N, -1)
    with np.errstate(divide="ignore"):
        second = np.abs(np.log(seconds * 2**d / total[:, None])).max(axis=1)
        fourth = np.abs(np.log(parts.reshape(N, -1) * 4**d / total[:, None])).max(axis=1)
    top = np.flatnonzero(cells.value == peak[row])
    return peak + np.log(total), second, fourth, top[np.searchsorted(top, start)]


def kept(bound: np.ndarray, total: np.ndarray, row: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All but the lowest cells of each datum, holding at most that share of its sum; and log of what they hold."""
    depth = total[row] - bound
    nats = np.clip(depth, 0, 99).astype(int)
    held = np.bincount(row * 100 + nats, np.exp(-np.clip(depth, 0, 700)), len(total) * 100).reshape(-1, 100)
    below = np.pad(np.cumsum(held[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
    cut = np.argmax(below <= share[:, None], axis=1)
    with np.errstate(divide="ignore"):
        return nats < cut[row], total + np.log(below[np.arange(len(total)), cut])


def distinct(place: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows among places on a lattice of n a side, in lattice order, and for each place which row it is."""
    d = place.shape[1]
    key = place @ n ** np.arange(d)
    if n**d > TABULATED:
        _, chosen, node = np.unique(key, return_index=True, return_inverse=True)
        return place[chosen], node
    taken = np.zeros(n**d, bool)
    taken[key] = True
    found = np.flatnonzero(taken)
    return found[:, None] // n ** np.arange(d)[None] % n, (np.cumsum(taken) - 1)[key]


def some(cells: Cells, chosen: np.ndarray) -> Cells:
    """Those of the cells that are chosen."""
    return Cells(*(part[chosen] for part in cells))


def split(cells: Cells, d: int) -> Cells:
    """Every cell as its 2^d halves; value and bound are still the parent's."""
    corner = np.stack(np.meshgrid(*[np.arange(2)] * d, indexing="ij"), axis=-1).reshape(-1, d)
    index = (2 * cells.place[:, None] + corner[None]).reshape(-1, d)
    datum, value, bound = (np.repeat(part, 2**d) for part in (cells.datum, cells.value, cells.bound))
    return Cells(datum, index, value, bound)
