"""The factorised q of any decoder, without a parametric family: each update's expectation is a sum over a grid."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib.decoders import Decoder
from cmog_lib.engine import coordinates
from cmog_lib.engine.door import door
from cmog_lib.nodes import Nodes
from cmog_lib.posteriors import Gaussian, Weighted


class Factorised(eqx.Module):
    """q_i(t) = ∏_j q̃_ij(t_j) on a product grid, for each of N data.

    Each factor has n weights and belongs to no parametric family.

    Attributes:
        axis: [d, n], the nodes along each coordinate.
        log_q: [N, d, n], logarithms of the factors' weights; the weights of a factor sum to one.
        bound: [N, U + 1], L(w, q_i) on the nodes before the first update and after each, in nats. It never decreases,
            and is constant after convergence.
        t: [S, d], all nodes of the grid.
    """

    axis: Float[Array, "d n"]
    log_q: Float[Array, "N d n"]
    bound: Float[Array, "N updates"]
    t: Float[Array, "S d"]

    @property
    def q(self) -> Weighted:
        """The same q as weights on all S nodes, the form that `bound.kl` and `bound.lower_bound_on_nodes` take."""
        return Weighted(self.t, joined(self.log_q))

    @property
    def mean(self) -> Float[Array, "N d"]:
        return jnp.einsum("...jn,jn->...j", jnp.exp(self.log_q), self.axis)

    @property
    def s(self) -> Float[Array, "N d"]:
        """The standard deviation of every factor."""
        squares = jnp.square(jnp.broadcast_to(self.axis, self.log_q.shape) - self.mean[..., None])
        return jnp.sqrt(jnp.sum(jnp.exp(self.log_q) * squares, axis=-1))


@door("w X nodes:nodes-of-a-table starts sweeps start:factorised-or-none")
def cavi_grid(
    w: Decoder,
    X: Float[Array, "N D"],
    nodes: Nodes,
    start: Gaussian | None = None,
    *,
    starts: int = 4,
    sweeps: int = 200,
) -> Factorised:
    """log q̃_j(t_j) = E_{−j} log p(x_i,t|w) + const, j = 1 … d, until convergence: the best factorised q_i of any shape.

    Expectations are sums over the nodes; there is no other approximation. The cost is n^d decoder evaluations, and n^d
    numbers in memory for each datum.

    Args:
        w: decoder.
        X: [N, D], data.
        nodes: n^d nodes in row-major order, as `quadrature.grid` makes them.
        start: a q for each datum, m [N, d], from which the updates climb to a nearby optimum, one of several. Without
            one they climb from `starts` places, the true posterior's marginals and its highest modes, and the q with
            the highest bound is kept.
        starts: number of starts, if there is no start.
        sweeps: largest number of sweeps over all coordinates.

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
    axis = coordinates.axes(nodes, w.latent_dim)
    log_q, bound = coordinates.ascend(update, w, X, nodes, axis, start, starts, sweeps)
    return Factorised(axis, log_q, bound, nodes.t)


def update(J: Float[Array, "*n"], log_q: Float[Array, "d n"], j: int) -> tuple[Float[Array, "d n"], Float[Array, ""]]:
    """log q̃_j(t_j) = E_{−j} log p(x,t|w) + const: the best j-th factor, given the others.

    Args:
        J: [n, …, n], log p(x,t|w) on the grid, for one datum.
        log_q: [d, n], all factors.
        j: from 0, which one to replace.

    Returns:
        log_q with the new factor, and L(w, q) = E_{q̃_j} E_{−j} log p(x,t|w) + Σ_k H(q̃_k), in nats.
    """
    expected = J
    for k in reversed(range(len(log_q))):  # from the last axis, so that the remaining axes keep their places
        if k != j:
            expected = jnp.tensordot(expected, jnp.exp(log_q[k]), axes=(k, 0))
    others = jnp.delete(log_q, j, axis=0, assume_unique_indices=True)
    # The expectation of `expected` and H(q̃_j) add up to the logarithm of the normalising constant of q̃_j.
    bound = jax.nn.logsumexp(expected) - jnp.sum(jnp.exp(others) * others)
    return log_q.at[j].set(jax.nn.log_softmax(expected)), bound


def joined(log_q: Float[Array, "*batch d n"]) -> Float[Array, "*batch S"]:
    """log q(t_s) = Σ_j log q̃_j(t_sj) on all n^d nodes, in row-major order."""
    total = log_q[..., 0, :]
    for j in range(1, log_q.shape[-2]):
        total = (total[..., None] + log_q[..., j, None, :]).reshape(*total.shape[:-1], -1)
    return total
