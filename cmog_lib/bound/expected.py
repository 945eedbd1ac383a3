"""E_q log p(x,t|w), the part of the bound that depends on w: in closed form, or on nodes placed where q is."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib.decoders import Decoder
from cmog_lib.decoders.linear import is_linear
from cmog_lib.engine import table
from cmog_lib.engine.door import door
from cmog_lib.model import LOG_2PI, log_p_xt
from cmog_lib.posteriors import FullGaussian, Gaussian, Weighted


@door("w:decoder x q:posterior n:nodes-around-q")
def expected_log_joint(
    w: Decoder, q: Gaussian | FullGaussian | Weighted, x: Float[Array, "D"], *, n: int = 32
) -> Float[Array, ""]:
    """E_q log p(x,t|w) = ∫ q(t) log p(x,t|w) dt, in nats. With a Gaussian's entropy, L(w,q) = this + entropy(q).

    For a Gaussian q and a Linear decoder it has the closed form log p(x,m|w) − ½ tr[(I + WᵀΣ₀⁻¹W) C] with C the
    covariance of q. For a Weighted q it is a sum over its points. Otherwise it is computed by Gauss–Hermite quadrature.

    Args:
        w: decoder.
        q: a posterior of one datum.
        x: [D], that datum.
        n: Gauss–Hermite nodes per dimension, at least 2, placed where q is.

    Returns:
        A scalar, nats.

    Raises:
        ValueError: if the shapes do not fit, and if the sum would need too many nodes, n^d.

    Source: Slides 12 and 15.
    """
    if isinstance(q, Weighted):
        return q.expect(lambda t: log_p_xt(w, x, t))
    if not is_linear(w):
        return table.expect(lambda t: log_p_xt(w, x, t), q, n, w.data_dim)
    m, scaled = q.mean, w.W / w.sigma[:, None]
    at_mean = jnp.sum(((x - w.W @ m - w.b) / w.sigma) ** 2 + 2 * jnp.log(w.sigma) + LOG_2PI) + jnp.sum(m**2 + LOG_2PI)
    spread = jnp.trace(q.covariance) + jnp.sum((scaled @ q.covariance) * scaled)
    return -0.5 * (at_mean + spread)


@door("q:factorised-of-any")
def kl_to_prior(q: Gaussian) -> Float[Array, "*batch d"]:
    """KL(q̃_j‖p(t_j)) = ½ (m_j² + s_j² − 1) − log s_j, for each latent, in nats; their sum over j is KL(q‖p(t)).

    Measures the information about x that q holds in each latent: 0 if q̃_j is the prior. The bound can also be written
    L(w,q) = E_q log p(x|t,w) − KL(q‖p(t)).

    Args:
        q: a factorised Gaussian, or a batch of them.

    Returns:
        Of the shape of q.m, nats.

    Raises:
        ValueError: for another q.

    Source: Kingma and Welling 2014, app. B.
    """
    return 0.5 * (q.m**2 + q.s**2 - 1) - q.log_s
