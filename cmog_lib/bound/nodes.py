"""L(w, q) and KL(q‖p(t|x,w)) on the nodes of a grid, where they add up to log p(x|w) for any q: for one datum."""

from __future__ import annotations

import warnings
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib import _validate
from cmog_lib._precision import full_precision
from cmog_lib.decoders import Decoder
from cmog_lib.model import LOG_2PI, log_p_x_given_t_table
from cmog_lib.posteriors import FullGaussian, Gaussian, Weighted


@runtime_checkable
class Nodes(Protocol):
    """∫ f(t) p(t) dt ≈ Σ_s exp(log_weight_s) f(t_s): t [S, d] and log_weight [S], as `quadrature.grid` makes them."""

    t: Any
    log_weight: Any


@full_precision
def lower_bound_on_nodes(
    w: Decoder, q: Gaussian | FullGaussian | Weighted, x: Float[Array, "D"], nodes: Nodes
) -> Float[Array, ""]:
    """L(w,q) = Σ_s q_s [log p(x|t_s,w) + log p_s − log q_s], where p_s = exp(log_weight_s) is the node's share of p(t).

    w: decoder. q: a posterior of one datum; a Weighted one lives on these nodes. x: [D]. nodes: from `quadrature.grid`.
    With `kl` on the same nodes it adds up to log p(x|w) = `quadrature.log_p_x` on them, to the last digit, for any q.
    Raises ValueError when the shapes do not fit. Slide 12.
    """
    log_q, log_joint = _on_nodes(w, q, x, nodes)
    return _expectation(log_q, log_joint, log_q)


@full_precision
def kl(q: Gaussian | FullGaussian | Weighted, w: Decoder, x: Float[Array, "D"], nodes: Nodes) -> Float[Array, ""]:
    """KL(q‖p(t|x,w)) = Σ_s q_s [log q_s − log p(t_s|x,w)] ≥ 0, in nats: the gap between log p(x|w) and L(w,q).

    Arguments and errors as in `lower_bound_on_nodes`. Slide 12.
    """
    log_q, log_joint = _on_nodes(w, q, x, nodes)
    return _expectation(log_q, log_q, jax.nn.log_softmax(log_joint))


@full_precision
def on_nodes(q: Gaussian | FullGaussian, nodes: Nodes) -> Weighted:
    """q_s = q(t_s) h^d / Σ_s' q(t_s') h^d: a Gaussian as weights on the nodes of a grid.

    q: of one datum. nodes: from `quadrature.grid`, whose log_weight is that of p(t_s) h^d.
    Warns (RuntimeWarning) where q is too narrow for the grid or reaches out of it. Raises ValueError when the shapes
    do not fit.
    """
    q = _validate.kind("q", q, Gaussian, FullGaussian)
    _validate.array("q.mean", q.mean, ("d",))
    t, log_weight = _validate.nodes(nodes, q.mean.shape[-1])
    log_cell = log_weight + 0.5 * jnp.sum(t**2 + LOG_2PI, axis=1)
    log_q = jax.vmap(q.log_q)(t) + log_cell
    missed = jnp.abs(jnp.expm1(jax.nn.logsumexp(log_q)))
    if not isinstance(missed, jax.core.Tracer) and not missed < 0.01:
        warnings.warn(
            f"q adds up to {1 + float(jnp.expm1(jax.nn.logsumexp(log_q))):.3g} on these nodes, not to 1: it is narrower"
            " than their cells or reaches out of their box. Take more nodes, or a wider grid",
            RuntimeWarning,
            stacklevel=3,
        )
    return Weighted(t, log_q)  # which normalises


def _on_nodes(w: Decoder, q: Any, x: Array, nodes: Nodes) -> tuple[Array, Array]:
    """log q_s, and log p(x|t_s,w) + log p_s, both [S]."""
    w = _validate.decoder(w)
    x = _validate.array("x", x, (w.data_dim,))
    t, log_weight = _validate.nodes(nodes, w.latent_dim)
    if not isinstance(_validate.kind("q", q, Gaussian, FullGaussian, Weighted), Weighted):
        _validate.array("q.mean", q.mean, (w.latent_dim,))
        q = on_nodes(q, nodes)
    log_q = _validate.array("q.log_weight", q.log_weight, (len(t),), finite=False)
    _validate.same("q.t", q.t, "nodes.t", t)
    return log_q, log_p_x_given_t_table(w, x[None], t)[0] + log_weight


def _expectation(log_q: Array, log_a: Array, log_b: Array) -> Array:
    """Σ_s q_s [log a_s − log b_s]."""
    # 0 log 0 = 0: where q is nothing, nothing is added, and no gradient either.
    there = jnp.exp(log_q) > 0
    q, log_a, log_b = (jnp.where(there, part, 0) for part in (jnp.exp(log_q), log_a, log_b))
    return jnp.sum(q * (log_a - log_b))
