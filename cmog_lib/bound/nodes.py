"""L(w, q) and KL(q‖p(t|x,w)) of one datum on the nodes of a grid; for any q their sum is log p(x|w)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib.decoders import Decoder
from cmog_lib.engine.coarse import warn_if_missed
from cmog_lib.engine.door import door
from cmog_lib.model import LOG_2PI, log_p_x_given_t_table
from cmog_lib.nodes import Nodes
from cmog_lib.posteriors import FullGaussian, Gaussian, Weighted


@door("w:decoder x nodes q:on-nodes")
def lower_bound_on_nodes(
    w: Decoder, q: Gaussian | FullGaussian | Weighted, x: Float[Array, "D"], nodes: Nodes
) -> Float[Array, ""]:
    """L(w,q) = Σ_s q_s [log p(x|t_s,w) + log p_s − log q_s], where p_s = exp(log_weight_s) is the node's share of p(t).

    Its sum with `kl` on the same nodes is log p(x|w) = `quadrature.log_p_x` on them, up to rounding, for any q.

    Args:
        w: decoder.
        q: a posterior of one datum; the points of a Weighted one must be these nodes.
        x: [D], that datum.
        nodes: from `quadrature.grid`.

    Returns:
        A scalar, nats.

    Raises:
        ValueError: if the shapes do not fit, or if the points of a Weighted q are not the nodes.

    Warns:
        RuntimeWarning: if a Gaussian q is too narrow for the grid or reaches out of it, as in `on_nodes`.

    Source: Slide 12.
    """
    q = q if isinstance(q, Weighted) else on_nodes(q, nodes)
    log_joint = log_p_x_given_t_table(w, x[None], nodes.t)[0] + nodes.log_weight
    return expectation(q, log_joint, q.log_weight)


@door("w:decoder x nodes q:on-nodes")
def kl(w: Decoder, q: Gaussian | FullGaussian | Weighted, x: Float[Array, "D"], nodes: Nodes) -> Float[Array, ""]:
    """KL(q‖p(t|x,w)) = Σ_s q_s [log q_s − log p(t_s|x,w)] ≥ 0, in nats: the gap between log p(x|w) and L(w,q).

    Args:
        w: decoder.
        q: a posterior of one datum; the points of a Weighted one must be these nodes.
        x: [D], that datum.
        nodes: from `quadrature.grid`.

    Returns:
        A scalar, nats.

    Raises:
        ValueError: if the shapes do not fit, or if the points of a Weighted q are not the nodes.

    Warns:
        RuntimeWarning: if a Gaussian q is too narrow for the grid or reaches out of it, as in `on_nodes`.

    Source: Slide 12.
    """
    q = q if isinstance(q, Weighted) else on_nodes(q, nodes)
    log_joint = log_p_x_given_t_table(w, x[None], nodes.t)[0] + nodes.log_weight
    return expectation(q, q.log_weight, jax.nn.log_softmax(log_joint))


@door("q:gaussian nodes")
def on_nodes(q: Gaussian | FullGaussian, nodes: Nodes) -> Weighted:
    """q_s = q(t_s) h^d / Σ_s' q(t_s') h^d: a Gaussian as weights on the nodes of a grid.

    Args:
        q: a Gaussian of one datum.
        nodes: from `quadrature.grid`, whose log_weight is that of p(t_s) h^d.

    Returns:
        The weights on the nodes; they sum to one.

    Raises:
        ValueError: if the shapes do not fit.

    Warns:
        RuntimeWarning: if q is too narrow for the grid or reaches out of it.
    """
    log_cell = nodes.log_weight + 0.5 * jnp.sum(nodes.t**2 + LOG_2PI, axis=1)
    log_q = jax.vmap(q.log_q)(nodes.t) + log_cell
    warn_if_missed(log_q)
    return Weighted(nodes.t, log_q)  # which normalises


def expectation(q: Weighted, log_a: Float[Array, "S"], log_b: Float[Array, "S"]) -> Float[Array, ""]:
    """Σ_s q_s [log a_s − log b_s], where a node without weight adds nothing: 0 log 0 = 0.

    Args:
        q: a posterior of one datum.
        log_a: [S], one number for each node; −∞ at most where q_s is 0.
        log_b: the same.
    """
    log_a, log_b = (jnp.where(q.weight > 0, part, 0) for part in (log_a, log_b))
    return jnp.sum(q.weight * (log_a - log_b))
