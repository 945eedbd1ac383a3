"""Coordinate ascent on a product grid: its axes, the starts, sweeps until one gains nothing, and the warnings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cmog_lib.engine.door import array, decoded, warn
from cmog_lib.model import log_p_x_given_t_table
from cmog_lib.nodes import Nodes
from cmog_lib.posteriors import Gaussian

SETTLED = 1e-5  # nats; a sweep that gains less is the last
# From J [n, …, n], log p(x,t|w) on the grid, log_q [d, n] and j: log_q with the best factor j, and the bound.
Update = Callable[[Array, Array, int], tuple[Array, Array]]


def axes(nodes: Nodes, d: int) -> Float[Array, "d n"]:
    """The nodes along each coordinate; raises ValueError if these depend on the others."""
    t = nodes.t
    array("nodes.log_weight", nodes.log_weight, (len(t),))  # none is switched off
    n = round(len(t) ** (1 / d))
    if n**d == len(t) and n > 1:
        table = t.reshape(*(n,) * d, d)
        axis = jnp.stack([jnp.moveaxis(table[..., j], j, 0).reshape(n, -1)[:, 0] for j in range(d)])
        again = np.stack(np.meshgrid(*np.asarray(axis), indexing="ij"), axis=-1)
        if np.array_equal(again.reshape(t.shape), t):
            return axis
    raise ValueError(
        f"nodes must be n^{d} nodes of a product grid in row-major order, as quadrature.grid({d}, n) makes them,"
        f" got {len(t)} others"
    )


def ascend(
    update: Update, w: Any, X: Array, nodes: Nodes, axis: Array, start: Gaussian | None, starts: int, sweeps: int
) -> tuple[Float[Array, "N d n"], Float[Array, "N updates"]]:
    """log_q, bound ← update(log p(x_i,t|w), log_q, j), j = 1 … d and again, until a sweep gains nothing.

    Returns for each datum the factors of the start that ends highest, and their bound before the first update and
    after each, which is constant once the updates have converged. Raises ValueError where w or a start has no number
    on the nodes. Warns of data whose bound still rises, and of factors on fewer than two nodes.
    """
    log_q, bound = _ascend(update, w, X, nodes, axis, start, starts, sweeps)
    if not isinstance(bound, jax.core.Tracer):
        if bool(jnp.isnan(bound).any()):
            _refuse(w, X, nodes, int(jnp.argmax(jnp.isnan(bound).any(axis=1))))
        _report(log_q, bound, sweeps)
    return log_q, bound


def warn_if_moved(moved: Float[Array, ""], sweeps: int) -> None:
    """Warns of a q whose m the last of so many sweeps still moved, in units of s."""
    if not isinstance(moved, jax.core.Tracer) and not moved <= 1e-2:
        warn(
            f"the last of {sweeps} sweeps still moved m by {float(moved):.2g} s: the coordinates of t depend on each"
            " other so much that each waits for the others. Take more sweeps",
        )


@eqx.filter_jit
def _ascend(
    update: Update, w: Any, X: Array, nodes: Nodes, axis: Array, start: Gaussian | None, starts: int, sweeps: int
) -> tuple[Array, Array]:
    log_joint = log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None]

    def one(datum: tuple[Array, Gaussian | None]) -> tuple[Array, Array]:
        J, start = datum
        # Only differences matter for q: relative to the highest node they are small numbers where q has weight.
        highest = J.max()
        J = (J - highest).reshape((axis.shape[1],) * axis.shape[0])
        first = _several(J, axis, starts) if start is None else _gaussian(axis, start.m, start.s)[None]
        log_q, bound = jax.vmap(lambda log_q: _sweeps(update, J, log_q, sweeps))(first)
        best = jnp.nanargmax(bound[:, -1])
        return log_q[best], bound[best] + highest

    return jax.lax.map(one, (log_joint, start))


def _sweeps(update: Update, J: Array, log_q: Array, sweeps: int) -> tuple[Array, Array]:
    d, updates = len(log_q), jnp.arange(J.ndim * sweeps + 1)

    def goes_on(carry: Any) -> Array:
        return (carry[0] < sweeps) & (carry[1] > SETTLED)

    def sweep(carry: Any) -> Any:
        k, _, log_q, bound = carry
        before = bound[-1]
        for j in range(d):
            log_q, reached = update(J, log_q, j)
            bound = jnp.where(updates > k * d + j, reached, bound)
        return k + 1, bound[-1] - before, log_q, bound

    first = J
    for factor in reversed(log_q):
        first = first @ jnp.exp(factor)
    bound = jnp.full(len(updates), first - jnp.sum(jnp.exp(log_q) * log_q))
    *_, log_q, bound = jax.lax.while_loop(goes_on, sweep, (jnp.asarray(0), jnp.asarray(jnp.inf, J.dtype), log_q, bound))
    return log_q, bound


def _several(J: Array, axis: Array, starts: int) -> Float[Array, "starts d n"]:
    """The starts: the marginals of the true posterior, then its highest modes on the grid, each one cell wide."""
    d, n = axis.shape
    log_p = jax.nn.log_softmax(J.reshape(-1)).reshape(J.shape)
    marginals = jnp.stack([jax.nn.logsumexp(log_p, axis=tuple(k for k in range(d) if k != j)) for j in range(d)])
    peak = jnp.ones(J.shape, bool)
    for j in range(d):
        wall = jnp.pad(J, [(1, 1) if k == j else (0, 0) for k in range(d)], constant_values=-jnp.inf)
        for shift in (0, 2):
            peak &= jax.lax.slice_in_dim(wall, shift, shift + n, axis=j) <= J
    _, modes = jax.lax.top_k(jnp.where(peak, J, -jnp.inf).reshape(-1), min(starts, J.size))
    at = jnp.stack(jnp.unravel_index(modes, J.shape), axis=-1)
    m = jax.vmap(lambda index: jax.vmap(lambda axis, k: axis[k])(axis, index))(at)
    cell = jnp.mean(jnp.diff(axis, axis=1), axis=1)
    return jnp.concatenate([marginals[None], jax.vmap(lambda m: _gaussian(axis, m, cell))(m)])[:starts]


def _gaussian(axis: Array, m: Array, s: Array) -> Float[Array, "d n"]:
    return jax.nn.log_softmax(-0.5 * ((axis - m[:, None]) / s[:, None]) ** 2, axis=1)


def _refuse(w: Any, X: Array, nodes: Nodes, i: int) -> None:
    """Raises ValueError for the i-th datum, whose bound is NaN: because of w, or of its start."""
    decoded(w, nodes.t)
    log_p = log_p_x_given_t_table(w, X[i : i + 1], nodes.t)[0]
    if not bool(jnp.isfinite(log_p).all()):
        s = int(jnp.argmin(jnp.isfinite(log_p)))
        raise ValueError(
            f"w must make log p(x|t,w) finite at every node, got {log_p[s]} for X[{i}] at t = {nodes.t[s].tolist()}"
            f": (x - mu)/sigma is too large to be squared in {log_p.dtype}. Scale the data, or take a larger sigma"
        )
    raise ValueError(f"start must have weight on the nodes, got one without any for X[{i}]: take a wider s")


def _report(log_q: Array, bound: Array, sweeps: int) -> None:
    d = log_q.shape[-2]
    still = np.asarray(bound[:, -1] - bound[:, -1 - d]) > 100 * SETTLED
    few = float(jnp.median(jnp.min(1 / jnp.sum(jnp.exp(2 * log_q), axis=-1), axis=-1)))
    if still.any():
        warn(
            f"the bound of {still.sum()} of {len(still)} data was still rising after {sweeps} sweeps, the first is"
            f" X[{int(np.argmax(still))}]: take more sweeps",
        )
    elif few < 2:
        warn(
            f"half of the q rest on fewer than two nodes along a coordinate (median {few:.2g}): the bound on these"
            " nodes is not the integral. Take more nodes, or a smaller box",
        )
