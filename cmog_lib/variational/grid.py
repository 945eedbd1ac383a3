"""The factorised q of any decoder, without a parametric family: each update's expectation is a sum over a grid."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cmog_lib.decoders import Decoder
from cmog_lib.engine import table
from cmog_lib.engine.door import array, decoded, door, warn
from cmog_lib.model import log_p_x_given_t_table
from cmog_lib.nodes import Nodes
from cmog_lib.posteriors import Gaussian, Weighted

SETTLED = 1e-5  # nats; a sweep that gains less is the last


class Factorised(eqx.Module):
    """q(t) = ∏_j q̃_j(t_j) on a product grid, for one datum or for N data.

    Each factor has n weights and belongs to no parametric family. For N data, log_q, bound and path have a leading N.

    Attributes:
        axis: [d, n], the nodes along each coordinate.
        log_q: [d, n], logarithms of the factors' weights; the weights of a factor sum to one.
        bound: [U + 1], L(w, q) on the nodes before the first update and after each, in nats. It never decreases, and is
            constant after convergence.
        t: [S, d], all nodes of the grid.
        path: [U + 1, d, n], log_q before the first update and after each, if it was asked for; otherwise None.
    """

    axis: Float[Array, "d n"]
    log_q: Float[Array, "*batch d n"]
    bound: Float[Array, "*batch updates"]
    t: Float[Array, "S d"]
    path: Float[Array, "*batch updates d n"] | None = None

    @property
    def q(self) -> Weighted:
        """The same q as weights on all S nodes, the form that `bound.kl` and `bound.lower_bound_on_nodes` take."""
        return Weighted(self.t, joined(self.log_q))

    @property
    def mean(self) -> Float[Array, "*batch d"]:
        return jnp.einsum("...jn,jn->...j", jnp.exp(self.log_q), self.axis)

    @property
    def s(self) -> Float[Array, "*batch d"]:
        """The standard deviation of every factor."""
        squares = jnp.square(jnp.broadcast_to(self.axis, self.log_q.shape) - self.mean[..., None])
        return jnp.sqrt(jnp.sum(jnp.exp(self.log_q) * squares, axis=-1))


@door("w x:x-or-X nodes starts sweeps start:factorised-for-each-or-none")
def cavi_grid(
    w: Decoder,
    x: Float[Array, "*batch D"],
    nodes: Nodes,
    start: Gaussian | None = None,
    *,
    starts: int = 4,
    sweeps: int = 200,
    keep_path: bool = False,
) -> Factorised:
    """log q̃_j(t_j) = E_{−j} log p(x,t|w) + const, j = 1 … d, until convergence: the best factorised q, of any shape.

    Expectations are sums over the nodes; there is no other approximation. The cost is n^d decoder evaluations, and n^d
    numbers in memory for each datum.

    Args:
        w: decoder.
        x: [D], one datum, or [N, D], data.
        nodes: n^d nodes in row-major order, as `quadrature.grid` makes them.
        start: a q (for each datum), from which the updates climb to a nearby optimum, one of several. Without one they
            climb from `starts` places, the true posterior's marginals and its highest modes, and the q with the highest
            bound is kept.
        starts: number of starts, if there is no start.
        sweeps: largest number of sweeps over all coordinates.
        keep_path: whether to keep the factors after every update, for a picture.

    Returns:
        The factors and the bounds.

    Raises:
        ValueError: if shapes do not fit, if nodes are not a product grid, if μ, σ or log p(x|t,w) is not finite at a
            node, if start has no weight on the nodes, if starts or sweeps is below 1, or if the table of data and nodes
            is too large to hold.

    Warns:
        RuntimeWarning: if the updates have not converged, or if half of the data have a factor on fewer than two nodes.

    Source: Slides 18 and 19.
    """
    batch = x.shape[:-1]
    axis = _axes(nodes, w.latent_dim)
    table.affordable_table(x if batch else x[None], len(nodes.t))
    if start is not None and not batch:
        start = jax.tree.map(lambda part: part[None], start)
    log_q, bound, path = _cavi(w, x if batch else x[None], nodes, axis, start, starts, sweeps, keep_path)
    if not isinstance(bound, jax.core.Tracer) and bool(jnp.isnan(bound).any()):
        decoded(w, nodes.t)
        i = int(jnp.argmax(jnp.isnan(bound).any(axis=1)))
        log_p = log_p_x_given_t_table(w, (x if batch else x[None])[i : i + 1], nodes.t)[0]
        if not bool(jnp.isfinite(log_p).all()):
            s = int(jnp.argmin(jnp.isfinite(log_p)))
            raise ValueError(
                f"w must make log p(x|t,w) finite at every node, got {log_p[s]} for X[{i}] at t = {nodes.t[s].tolist()}"
                f": (x - mu)/sigma is too large to be squared in {log_p.dtype}. Scale the data, or take a larger sigma"
            )
        raise ValueError(f"start must have weight on the nodes, got one without any for X[{i}]: take a wider s")
    _report(log_q, bound, sweeps)
    if not batch:
        log_q, bound, path = jax.tree.map(lambda part: part[0], (log_q, bound, path))
    return Factorised(axis, log_q, bound, nodes.t, path)


def joined(log_q: Float[Array, "*batch d n"]) -> Float[Array, "*batch S"]:
    """log q(t_s) = Σ_j log q̃_j(t_sj) on all n^d nodes, in row-major order."""
    total = log_q[..., 0, :]
    for j in range(1, log_q.shape[-2]):
        total = (total[..., None] + log_q[..., j, None, :]).reshape(*total.shape[:-1], -1)
    return total


@eqx.filter_jit
def _cavi(
    w: Any, X: Array, nodes: Nodes, axis: Array, start: Gaussian | None, starts: int, sweeps: int, keep_path: bool
) -> tuple[Array, Array, Array | None]:
    log_joint = log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None]

    def one(datum: tuple[Array, Gaussian | None]) -> tuple[Array, Array, Array | None]:
        J, start = datum
        # Only differences matter for q: relative to the highest node they are small numbers where q has weight.
        highest = J.max()
        J = (J - highest).reshape((axis.shape[1],) * axis.shape[0])
        first = _several(J, axis, starts) if start is None else _gaussian(axis, start.m, start.s)[None]
        log_q, bound, path = jax.vmap(lambda log_q: climb(J, log_q, sweeps, keep_path))(first)
        best = jnp.nanargmax(bound[:, -1])
        return log_q[best], bound[best] + highest, path[best] if keep_path else None

    return jax.lax.map(one, (log_joint, start))


def climb(J: Array, log_q: Array, sweeps: int, keep_path: bool) -> tuple[Array, Array, Array]:
    """Updates log_q factor by factor, as `cavi_grid` does, for one datum and one start.

    Args:
        J: [n, …, n], log p(x,t|w) on the grid, up to a constant.
        log_q: [d, n], the factors from which to start.
        sweeps: largest number of sweeps over all coordinates.
        keep_path: whether to keep the factors after every update.

    Returns:
        log_q [d, n]; the bound [U + 1], up to the same constant; and the path
        [U + 1, d, n], if keep_path. Bound and path are constant after convergence.
    """
    d, updates = len(log_q), jnp.arange(J.ndim * sweeps + 1)

    def entropy(log_q: Array) -> Array:
        return -jnp.sum(jnp.exp(log_q) * log_q, axis=-1)

    def goes_on(carry: Any) -> Array:
        return (carry[0] < sweeps) & (carry[1] > SETTLED)

    def sweep(carry: Any) -> Any:
        k, _, log_q, bound, path = carry
        before = bound[-1]
        for j in range(d):
            expected = J
            for other in reversed(range(d)):  # from the last axis, so that the remaining axes keep their places
                if other != j:
                    expected = jnp.tensordot(expected, jnp.exp(log_q[other]), axes=(other, 0))
            log_q = log_q.at[j].set(jax.nn.log_softmax(expected))
            # E_q log p(x,t|w) + H(q̃_j) = the logarithm of the normalising constant of q̃_j.
            reached = jax.nn.logsumexp(expected) + jnp.sum(jnp.delete(entropy(log_q), j, assume_unique_indices=True))
            now = updates > k * d + j
            bound = jnp.where(now, reached, bound)
            if keep_path:
                path = jnp.where(now[:, None, None], log_q[None], path)
        return k + 1, bound[-1] - before, log_q, bound, path

    first = J
    for factor in reversed(log_q):
        first = first @ jnp.exp(factor)
    bound = jnp.full(len(updates), first + entropy(log_q).sum())
    path = jnp.broadcast_to(log_q[None], (len(updates), *log_q.shape)) if keep_path else log_q
    carry = (jnp.asarray(0), jnp.asarray(jnp.inf, J.dtype), log_q, bound, path)
    _, _, log_q, bound, path = jax.lax.while_loop(goes_on, sweep, carry)
    return log_q, bound, path


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


def _axes(nodes: Any, d: int) -> Float[Array, "d n"]:
    """The nodes along each coordinate, if they are the same for all values of the others."""
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


def _report(log_q: Array, bound: Array, sweeps: int) -> None:
    if isinstance(bound, jax.core.Tracer):
        return
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
