"""Cells on a lattice, each with a datum: what `quadrature.exact` does with them before and after asking the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

OFF_CENTRE = 0.2137  # of a cell
PROBES, SPREAD = 2**14, 1.5  # latents between the centres at which the decoder is tried; their standard deviation
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

    def place(self, t: np.ndarray) -> np.ndarray:
        """The cells of level 0 in which t [P, d] lies."""
        return np.floor((t + self.half_width) / self.side(0) - OFF_CENTRE).astype(int).clip(0, self.n - 1)

    def reaches(self, centre: np.ndarray, level: int, t: np.ndarray, cells: float) -> np.ndarray:
        """Whether t lies so many cells or less from a centre, in every coordinate: ½ for its own cell, 1½ for those
        beside it too."""
        return (np.abs(centre - t) <= cells * self.side(level)).all(axis=1)


class Cells(NamedTuple):
    """Cells that carry mass, sorted by datum. value: log of p(x,t|w) times volume at the centre; bound: in the cell.

    probe: which probe in or beside the cell is still above its bound; -1 for none.
    """

    datum: np.ndarray
    place: np.ndarray
    value: np.ndarray
    bound: np.ndarray
    probe: np.ndarray


class Probes(NamedTuple):
    """Latents t [P, d] at which the decoder is not what its slopes at the centres foretell, and log p(x_i,t|w) there.

    value: [N, P].
    """

    t: np.ndarray
    value: np.ndarray


def probes(d: int) -> np.ndarray:
    """Latents [PROBES, d] spread like N(0, SPREAD² I), but evenly: a Kronecker sequence. Source: Roberts 2018."""
    from scipy.special import ndtri

    ratio = 2.0
    for _ in range(64):
        ratio = (1 + ratio) ** (1 / (d + 1))
    return SPREAD * ndtri((0.5 + np.arange(1, PROBES + 1)[:, None] * ratio ** -np.arange(1, d + 1)) % 1)


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
    datum, value, bound, probe = (np.repeat(part, 2**d) for part in (cells.datum, *cells[2:]))
    return Cells(datum, index, value, bound, probe)
