"""L(w, q), the lower bound on log p(x|w), its parts, and KL(q‖p(t|x,w)), by which it is lower: for one datum."""

from __future__ import annotations

import warnings
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib import _validate
from cmog_lib.decoders import Decoder, Linear
from cmog_lib.model import LOG_2PI, log_p_x_given_t_table, log_p_xt
from cmog_lib.posteriors import FullGaussian, Gaussian, Weighted


@runtime_checkable
class Nodes(Protocol):
    """∫ f(t) p(t) dt ≈ Σ_s exp(log_weight_s) f(t_s): t [S, d] and log_weight [S], as `quadrature.grid` makes them."""

    t: Any
    log_weight: Any


def expected_log_joint(
    w: Decoder, q: Gaussian | FullGaussian | Weighted, x: Float[Array, "D"], *, n: int = 32
) -> Float[Array, ""]:
    """E_q log p(x,t|w) = ∫ q(t) log p(x,t|w) dt, in nats. With a Gaussian's entropy, L(w,q) = this + entropy(q).

    w: decoder. q: a posterior of one datum. x: [D], that datum.
    For a Gaussian q and a Linear decoder it is closed form, log p(x,m|w) − ½ tr[(I + WᵀΣ₀⁻¹W) C] with C the covariance
    of q; for a Weighted q a sum over its points; else Gauss–Hermite with n nodes a dimension, laid out where q is.
    Raises ValueError when the shapes do not fit, and where n^d nodes are too many. Slides 13 and 16.
    """
    w = _validate.decoder(w)
    x = _validate.array("x", x, (w.data_dim,))
    if not isinstance(q, (Gaussian, FullGaussian, Weighted)):
        raise ValueError(f"q must be a Gaussian, a FullGaussian or a Weighted, got {type(q).__name__}")
    m = _validate.array("q.mean", q.mean, (w.latent_dim,))
    if isinstance(q, Weighted):
        return q.expect(lambda t: log_p_xt(w, x, t))
    if not isinstance(w, Linear):
        t, weight = _gauss_hermite(q, n)
        return weight @ jax.vmap(lambda t: log_p_xt(w, x, t))(t)
    scaled = w.W / w.sigma[:, None]
    at_mean = jnp.sum(((x - w.W @ m - w.b) / w.sigma) ** 2 + 2 * jnp.log(w.sigma) + LOG_2PI) + jnp.sum(m**2 + LOG_2PI)
    spread = jnp.trace(q.covariance) + jnp.trace(scaled @ q.covariance @ scaled.T)
    return -0.5 * (at_mean + spread)


def lower_bound(
    w: Decoder, q: Gaussian | FullGaussian, x: Float[Array, "D"], M: int, *, key: Key[Array, ""]
) -> Float[Array, ""]:
    """L(w,q) ≈ 1/M Σ_s [log p(x,t_s|w) − log q(t_s)], t_s ~ q: the bound by draws, in nats; any latent dimension.

    w: decoder. q: a Gaussian over t [d]. x: [D], one datum. M: how many draws. Its expectation is L(w,q); where q is
    the true posterior every draw is log p(x|w), without noise.
    Raises ValueError when the shapes do not fit, M < 1, or the key is not a typed one. Slides 13 and 16.
    """
    w = _validate.decoder(w)
    x, _ = _validate.array("x", x, (w.data_dim,)), _validate.array("q.mean", q.mean, (w.latent_dim,))
    return jnp.mean(jax.vmap(lambda t: log_p_xt(w, x, t) - q.log_q(t))(q.sample(M, key=key)))


def lower_bound_on_nodes(
    w: Decoder, q: Gaussian | FullGaussian | Weighted, x: Float[Array, "D"], nodes: Nodes
) -> Float[Array, ""]:
    """L(w,q) = Σ_s q_s [log p(x|t_s,w) + log p_s − log q_s], where p_s = exp(log_weight_s) is the node's share of p(t).

    w: decoder. q: a posterior of one datum; a Weighted one lives on these nodes. x: [D]. nodes: from `quadrature.grid`.
    With `kl` on the same nodes it adds up to log p(x|w) = `quadrature.log_p_x` on them, to the last digit, for any q.
    Raises ValueError when the shapes do not fit. Slide 13.
    """
    log_q, log_joint = _on_nodes(w, q, x, nodes)
    return _expectation(log_q, log_joint - log_q)


def kl(q: Gaussian | FullGaussian | Weighted, w: Decoder, x: Float[Array, "D"], nodes: Nodes) -> Float[Array, ""]:
    """KL(q‖p(t|x,w)) = Σ_s q_s [log q_s − log p(t_s|x,w)] ≥ 0, in nats: the gap between log p(x|w) and L(w,q).

    Arguments and errors as in `lower_bound_on_nodes`. Slides 12 and 13.
    """
    log_q, log_joint = _on_nodes(w, q, x, nodes)
    return _expectation(log_q, log_q - jax.nn.log_softmax(log_joint))


def on_nodes(q: Gaussian | FullGaussian, nodes: Nodes) -> Weighted:
    """q_s = q(t_s) h^d / Σ_s' q(t_s') h^d: a Gaussian as weights on the nodes of a grid.

    q: of one datum. nodes: from `quadrature.grid`, whose log_weight is that of p(t_s) h^d.
    Warns (RuntimeWarning) where q is too narrow for the grid or reaches out of it. Raises ValueError when the shapes
    do not fit.
    """
    t = _validate.array("nodes.t", nodes.t, ("S", q.mean.shape[-1]))
    log_weight = _validate.array("nodes.log_weight", nodes.log_weight, (len(t),), finite=False)
    log_cell = log_weight + 0.5 * jnp.sum(t**2 + LOG_2PI, axis=1)
    log_q = jax.vmap(q.log_q)(t) + log_cell
    missed = jnp.abs(jnp.expm1(jax.nn.logsumexp(log_q)))
    if not isinstance(missed, jax.core.Tracer) and not missed < 0.01:
        warnings.warn(
            f"q adds up to {1 + float(jnp.expm1(jax.nn.logsumexp(log_q))):.3g} on these nodes, not to 1: it is narrower"
            " than their cells or reaches out of their box. Take more nodes, or a wider grid",
            RuntimeWarning,
            stacklevel=2,
        )
    return Weighted(t, jax.nn.log_softmax(log_q))


def _on_nodes(w: Decoder, q: Any, x: Array, nodes: Nodes) -> tuple[Array, Array]:
    """log q_s, and log p(x|t_s,w) + log p_s, both [S]."""
    w = _validate.decoder(w)
    x = _validate.array("x", x, (w.data_dim,))
    t = _validate.array("nodes.t", nodes.t, ("S", w.latent_dim))
    log_weight = _validate.array("nodes.log_weight", nodes.log_weight, (len(t),), finite=False)
    if not isinstance(q, Weighted):
        q = on_nodes(q, nodes)
    log_q = _validate.array("q.log_weight", q.log_weight, (len(t),), finite=False)
    return log_q, log_p_x_given_t_table(w, x[None], t)[0] + log_weight


def _expectation(log_q: Array, values: Array) -> Array:
    # 0 log 0 = 0: where q is nothing, nothing is added, and no gradient either.
    there = jnp.exp(log_q) > 0
    return jnp.sum(jnp.where(there, jnp.exp(log_q), 0) * jnp.where(there, values, 0))


def _gauss_hermite(q: Gaussian | FullGaussian, n: int) -> tuple[Array, Array]:
    """Latents [n^d, d] and weights [n^d] with Σ weight_s f(t_s) ≈ E_q f(t)."""
    d = q.mean.shape[-1]
    if _validate.count("n", n, 2) ** d > 2**20:
        raise ValueError(
            f"n must leave at most {2**20:,} nodes, got {n}^{d} = {float(n) ** d:.3g} for latent_dim={d};"
            f" take fewer, or draws: lower_bound(w, q, x, M, key=key)"
        )
    node, weight = np.polynomial.hermite_e.hermegauss(n)
    weight = weight / weight.sum()
    standard = np.stack(np.meshgrid(*[node] * d, indexing="ij"), axis=-1).reshape(-1, d)
    product = np.prod(np.meshgrid(*[weight] * d, indexing="ij"), axis=0).reshape(-1)
    L = q.L if isinstance(q, FullGaussian) else jnp.diag(q.s)
    return q.mean[None] + jnp.asarray(standard, L.dtype) @ L.T, jnp.asarray(product, L.dtype)
