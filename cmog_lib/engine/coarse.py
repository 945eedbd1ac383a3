"""Whether a grid is too coarse for a decoder: what cells of half the side would add, how many nodes carry weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cmog_lib.engine import table
from cmog_lib.engine.door import decoded, warn
from cmog_lib.nodes import Nodes

COARSE = 2.0  # nats that cells of half the side may add before a grid is called too coarse
Cells = tuple[Float[Array, "_ d"], Float[Array, ""]]  # their centres and their side


def warn_if_coarse(
    shifted: Callable[[Array, Array, Array], Nodes], w: Any, X: Array, cells: Cells, halved: Cells, key: Array
) -> None:
    """Warns where log p(x|w) on the halved cells is more than 2 nats higher: the mean over data and four shifts."""
    most, keys = len(halved[0]), jax.random.split(key, 4)

    def nats(centres: Array, side: Array) -> float:
        # Both grids have equally many nodes, some of them switched off, so that one compiled function serves both.
        on = np.arange(most) < len(centres)
        padded = np.pad(np.asarray(centres), ((0, most - len(centres)), (0, 0)), mode="edge")
        return float(_mean_over_shifts(shifted, w, X, jnp.asarray(padded), jnp.asarray(on), side, keys))

    gap = nats(*halved) - nats(*cells)
    if np.isnan(gap):
        decoded(w, halved[0])
    if not gap <= COARSE:
        n = round(len(cells[0]) ** (1 / w.latent_dim))
        warn(
            f"with n={2 * n} instead of n={n} cells a dimension, log p(x|w) comes out {gap:.3g} nats higher: sigma has"
            " become so small that posteriors fit between the nodes, and what was maximised is not log p(x|w)."
            " Take a larger n, or a decoder with a larger sigma_min",
        )


def warn_if_few_nodes(weight: Float[Array, "N S"]) -> None:
    """Warns of posteriors of which half rest on fewer than two nodes, (Σ weight)² / Σ weight² of them."""
    few = float(jnp.median(1 / jnp.sum(weight**2, axis=1)))
    if not few >= 2:
        warn(
            f"half of the posteriors p(t|x,w) rest on fewer than two nodes (median {few:.2g}): log p(X|w) on these"
            " nodes is not the integral any more. Take more nodes, or a decoder with a larger sigma_min;"
            " quadrature.exact tells what w is worth",
        )


def warn_if_missed(log_q: Float[Array, "S"]) -> None:
    """Warns of a q whose shares of the nodes, log q(t_s) h^d, do not add up to one."""
    total = jnp.expm1(jax.nn.logsumexp(log_q))
    if not isinstance(total, jax.core.Tracer) and not jnp.abs(total) < 0.01:
        warn(
            f"q adds up to {1 + float(total):.3g} on these nodes, not to 1: it is narrower than their cells or reaches"
            " out of their box. Take more nodes, or a wider grid"
        )


@eqx.filter_jit
def _mean_over_shifts(
    shifted: Callable[[Array, Array, Array], Nodes], w: Any, X: Array, centres: Array, on: Array, side: Array, keys: Any
) -> Float[Array, ""]:
    """1/N Σ_i log p(x_i|w), averaged over a shift of the nodes for each key."""

    def one(key: Array) -> Float[Array, ""]:
        nodes = shifted(centres, side, key)
        return table.logsumexp(w, X, Nodes(nodes.t, jnp.where(on, nodes.log_weight, -jnp.inf))).mean()

    return jax.lax.map(one, keys).mean()
