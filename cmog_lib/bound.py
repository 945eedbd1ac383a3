"""L(w, q), the lower bound on log p(x|w), from its parts. So far for the linear decoder, where they are closed form."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib import _validate
from cmog_lib.decoders import Decoder, Linear
from cmog_lib.model import LOG_2PI
from cmog_lib.posteriors import FullGaussian, Gaussian


def expected_log_joint(w: Decoder, q: Gaussian | FullGaussian, x: Float[Array, "D"]) -> Float[Array, ""]:
    """E_q log p(x,t|w) for q(t) = N(m, C): log p(x,m|w) − ½ tr[(I + WᵀΣ₀⁻¹W) C], in nats.

    w: a Linear decoder. q: a Gaussian over t [d]. x: [D], one datum. With q's entropy it is the bound,
    L(w,q) = E_q log p(x,t|w) + entropy(q).
    Raises ValueError for a decoder that is not Linear (there the expectation has no closed form). Slides 13 and 16.
    """
    if not isinstance(w, Linear):
        raise ValueError(f"w must be a Linear decoder, where E_q log p(x,t|w) is closed form, got {type(w).__name__}")
    x, m = _validate.array("x", x, (w.data_dim,)), _validate.array("q.mean", q.mean, (w.latent_dim,))
    scaled = w.W / w.sigma[:, None]
    at_mean = jnp.sum(((x - w.W @ m - w.b) / w.sigma) ** 2 + 2 * jnp.log(w.sigma) + LOG_2PI) + jnp.sum(m**2 + LOG_2PI)
    spread = jnp.trace(q.covariance) + jnp.trace(scaled @ q.covariance @ scaled.T)
    return -0.5 * (at_mean + spread)
