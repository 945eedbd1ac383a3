"""p(x|w) and p(t|x,w) of the linear decoder in closed form, with all of x seen or with cells missing."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float

from cmog_lib import _validate
from cmog_lib.decoders import Linear
from cmog_lib.model import LOG_2PI
from cmog_lib.posteriors import FullGaussian


def linear(w: Any) -> Linear:
    """`w` if it is a linear decoder. Raises ValueError otherwise: only there is the integral over t closed form."""
    if not isinstance(w, Linear):
        raise ValueError(f"w must be a decoders.Linear, whose p(x|w) is closed form, got {type(w).__name__}")
    return w


def marginal(w: Linear) -> tuple[Float[Array, "D"], Float[Array, "D D"]]:
    """p(x|w) = N(x; b, WWᵀ + Σ₀), as its mean and covariance.

    w: linear decoder. Returns b [D] and WWᵀ + Σ₀ [D, D]. Slide 5.
    """
    w = linear(w)
    return w.b, w.W @ w.W.T + jnp.diag(w.sigma**2)


def posterior(w: Linear, x: Float[Array, "D"]) -> FullGaussian:
    """p(t|x,w) = N(t; M⁻¹WᵀΣ₀⁻¹(x − b), M⁻¹) with M = I + WᵀΣ₀⁻¹W.

    w: linear decoder. x: [D], one datum. Raises ValueError when x is not a finite vector of the decoder's length.
    Slide 5; Tipping and Bishop 1999, equation 6.
    """
    w = linear(w)
    x = _validate.array("x", x, (w.data_dim,))
    return _posterior(w, x, jnp.ones(x.shape, bool))


def log_p_x(w: Linear, x: Float[Array, "D"]) -> Float[Array, ""]:
    """log p(x|w) = log N(x; b, WWᵀ + Σ₀), in nats.

    w: linear decoder. x: [D], one datum. The work is done on the d × d matrix M = I + WᵀΣ₀⁻¹W.
    Raises ValueError when x is not a finite vector of the decoder's length. Slide 5.
    """
    w = linear(w)
    x = _validate.array("x", x, (w.data_dim,))
    return _log_p_x(w, x, jnp.ones(x.shape, bool))


def posterior_observed(w: Linear, x: Float[Array, "D"]) -> FullGaussian:
    """p(t|x_observed,w): the posterior given the cells of x that were seen; NaN marks a missing one.

    w: linear decoder. x: [D], one datum. With every cell missing it is the prior N(0, I).
    Raises ValueError when x is infinite somewhere or not a vector of the decoder's length.
    """
    w = linear(w)
    x = _validate.array("x", x, (w.data_dim,), missing=True)
    return _posterior(w, x, ~jnp.isnan(x))


def log_p_x_observed(w: Linear, x: Float[Array, "D"]) -> Float[Array, ""]:
    """log p(x_observed|w) = log ∫ p(x|w) dx_missing, in nats; NaN marks a missing cell.

    w: linear decoder. x: [D], one datum. With every cell missing it is log 1 = 0.
    Raises ValueError when x is infinite somewhere or not a vector of the decoder's length.
    """
    w = linear(w)
    x = _validate.array("x", x, (w.data_dim,), missing=True)
    return _log_p_x(w, x, ~jnp.isnan(x))


def posterior_factor(w: Linear, observed: Bool[Array, "D"]) -> Float[Array, "d d"]:
    """The lower triangular L with LLᵀ = M⁻¹ = (I + WᵀΣ₀⁻¹W)⁻¹, over the observed rows of W.

    The Cholesky factor of M read from its last row upwards gives L by one triangular inverse: M⁻¹ is never formed, so
    nothing is lost in float32 where σ is small.
    """
    scaled = jnp.where(observed, jnp.exp(-w.log_sigma), 0.0)[:, None] * w.W
    identity = jnp.eye(w.latent_dim, dtype=w.W.dtype)
    reverse = jnp.linalg.cholesky((identity + scaled.T @ scaled)[::-1, ::-1])
    return solve_triangular(reverse, identity, lower=True, trans="T")[::-1, ::-1]


def _residual(w: Linear, x: Array, observed: Array) -> Array:
    # The inner `where` keeps the NaN of a missing cell out of the subtraction, and so out of its gradient.
    return jnp.where(observed, jnp.where(observed, x, 0.0) - w.b, 0.0)


def _posterior(w: Linear, x: Array, observed: Array) -> FullGaussian:
    L = posterior_factor(w, observed)
    weighted = _residual(w, x, observed) * jnp.exp(-2 * w.log_sigma)
    return FullGaussian(L @ (L.T @ (w.W.T @ weighted)), L)


def _log_p_x(w: Linear, x: Array, observed: Array) -> Array:
    # Bayes' rule read backwards, p(x) = p(x|t) p(t) / p(t|x), holds at every t; at t = m, the posterior's mean, it is a
    # sum of squares. Woodbury's difference of two large numbers, the usual road, cancels in float32 where σ is small.
    q = _posterior(w, x, observed)
    error = (_residual(w, x, observed) - w.W @ q.m) / w.sigma
    log_p_x_given_m = -0.5 * jnp.sum(jnp.where(observed, error**2 + 2 * w.log_sigma + LOG_2PI, 0.0))
    return log_p_x_given_m - 0.5 * jnp.sum(q.m**2) + jnp.sum(jnp.log(jnp.diagonal(q.L)))
