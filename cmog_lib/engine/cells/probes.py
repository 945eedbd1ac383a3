"""Latents between the centres of the first cells, at which the decoder is compared with its slopes at the centres."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmog_lib.engine.cells import lattice, values
from cmog_lib.engine.cells.lattice import Cells, Lattice, Probes

SURPRISES = 2**11  # probes that are followed; more there are only where the first lattice bends everywhere
UNSEEN = 2.0  # nats between a probe and the centre of its cell where that has not seen what the probe has


def unforeseen(w: Any, grid: Lattice) -> np.ndarray:
    """Latents [P, d] between the centres of the first lattice at which the decoder is not what that leads to expect."""
    T = lattice.probes(grid.latent_dim)
    place, node = lattice.distinct(grid.place(T), grid.n)
    return T[values.unforeseen(w, T, grid.centre(place, 0), node, grid.side(0))][:SURPRISES]


def raised(cells: Cells, grid: Lattice, level: int, probes: Probes) -> Cells:
    """A cell's bound is at least what a probe in it or beside it has shown; a probe that it foretells is forgotten."""
    probed, shown, own, beside = _shown(cells, grid, level, probes)
    above = beside & (shown > cells.bound[probed])
    bound, probe = cells.bound.copy(), cells.probe.copy()
    bound[probed] = np.where(above, shown, bound[probed])
    probe[probed] = np.where(above | own & (np.abs(shown - cells.value[probed]) > UNSEEN), probe[probed], -1)
    return cells._replace(bound=bound, probe=probe)


def missed(cells: Cells, row: np.ndarray, total: np.ndarray, grid: Lattice, level: int, probes: Probes) -> np.ndarray:
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


def probed(
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
