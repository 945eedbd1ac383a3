"""E_q log p(x,t|w), the part of the bound that w is in: closed form where there is one, else nodes laid where q is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cmog_lib import _validate
from cmog_lib._precision import full_precision
from cmog_lib.decoders import Decoder
from cmog_lib.decoders.linear import is_linear
from cmog_lib.model import LOG_2PI, log_p_xt
from cmog_lib.posteriors import FullGaussian, Gaussian, Weighted

DECODED = 2**22  # numbers of decoded latents that exist at a time


@full_precision
def expected_log_joint(
    w: Decoder, q: Gaussian | FullGaussian | Weighted, x: Float[Array, "D"], *, n: int = 32
) -> Float[Array, ""]:
    """E_q log p(x,t|w) = ∫ q(t) log p(x,t|w) dt, in nats. With a Gaussian's entropy, L(w,q) = this + entropy(q).

    w: decoder. q: a posterior of one datum. x: [D], that datum.
    For a Gaussian q and a Linear decoder it is closed form, log p(x,m|w) − ½ tr[(I + WᵀΣ₀⁻¹W) C] with C the covariance
    of q; for a Weighted q a sum over its points; else Gauss–Hermite with n nodes a dimension, laid out where q is.
    Raises ValueError when the shapes do not fit, and where n^d nodes are too many. Slides 12 and 15.
    """
    w = _validate.decoder(w)
    x = _validate.array("x", x, (w.data_dim,))
    q = _validate.kind("q", q, Gaussian, FullGaussian, Weighted)
    m = _validate.array("q.mean", q.mean, (w.latent_dim,))
    if isinstance(q, Weighted):
        return q.expect(lambda t: log_p_xt(w, x, t))
    if not is_linear(w):
        t, weight = _gauss_hermite(q, n)
        # A decoded latent is D numbers: they are decoded some at a time, so that many nodes do not need n^d D of them.
        at_a_time = max(1, DECODED // w.data_dim)
        if len(t) <= at_a_time:
            return weight @ jax.vmap(lambda t: log_p_xt(w, x, t))(t)
        return weight @ jax.lax.map(lambda t: log_p_xt(w, x, t), t, batch_size=at_a_time)
    scaled = w.W / w.sigma[:, None]
    at_mean = jnp.sum(((x - w.W @ m - w.b) / w.sigma) ** 2 + 2 * jnp.log(w.sigma) + LOG_2PI) + jnp.sum(m**2 + LOG_2PI)
    spread = jnp.trace(q.covariance) + jnp.sum((scaled @ q.covariance) * scaled)
    return -0.5 * (at_mean + spread)


def kl_to_prior(q: Gaussian) -> Float[Array, "*batch d"]:
    """KL(q̃_j‖p(t_j)) = ½ (m_j² + s_j² − 1) − log s_j, latent by latent, in nats; their sum over j is KL(q‖p(t)).

    q: a factorised Gaussian, or a batch of them. What q says about x, a latent at a time: 0 where it says nothing.
    L(w,q) = E_q log p(x|t,w) − KL(q‖p(t)) is the other way to write the bound. Raises ValueError for another q.
    Source: Kingma and Welling 2014, app. B.
    """
    q = _validate.kind("q", q, Gaussian)
    return 0.5 * (q.m**2 + q.s**2 - 1) - q.log_s


def _gauss_hermite(q: Gaussian | FullGaussian, n: int) -> tuple[Array, Array]:
    """Latents [n^d, d] and weights [n^d] with Σ weight_s f(t_s) ≈ E_q f(t)."""
    d = q.mean.shape[-1]
    if _validate.count("n", n, 2) ** d > 2**20:
        raise ValueError(
            f"n must leave at most {2**20:,} nodes, got {n}^{d} = {float(n) ** d:.3g} for latent_dim={d};"
            f" take fewer, or draws: lower_bound(w, q, x, M, key=key)"
        )
    L = q.L if isinstance(q, FullGaussian) else jnp.diag(q.s)
    node, weight = np.polynomial.hermite_e.hermegauss(n)
    standard = np.stack([np.tile(np.repeat(node, n ** (d - 1 - j)), n**j) for j in range(d)], axis=-1)
    product = weight = weight / weight.sum()
    for _ in range(d - 1):
        product = (product[:, None] * weight[None]).reshape(-1)
    return q.mean[None] + jnp.asarray(standard, L.dtype) @ L.T, jnp.asarray(product, L.dtype)
