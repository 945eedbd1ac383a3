"""p(x|w) and p(t|x,w) of the linear decoder in closed form, with all of x observed or with cells missing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from cmog_lib.decoders.linear import Linear
from cmog_lib.engine.door import door, observed
from cmog_lib.model import LOG_2PI
from cmog_lib.posteriors import FullGaussian


@door("w:linear-in-range")
def marginal(w: Linear) -> tuple[Float[Array, "D"], Float[Array, "D D"]]:
    """p(x|w) = N(x; b, WWᵀ + Σ₀), as its mean and covariance.

    Args:
        w: linear decoder.

    Returns:
        The mean b [D] and the covariance WWᵀ + Σ₀ [D, D].

    Raises:
        ValueError: if w is not a `decoders.Linear`, or if a variance is too large or too small for the precision.

    Source: Slide 4.
    """
    return w.b, w.W @ w.W.T + jnp.diag(w.sigma**2)


@door("w:linear x")
def posterior(w: Linear, x: Float[Array, "D"]) -> FullGaussian:
    """p(t|x,w) = N(t; M⁻¹WᵀΣ₀⁻¹(x − b), M⁻¹) with M = I + WᵀΣ₀⁻¹W.

    Args:
        w: linear decoder.
        x: [D], one datum.

    Returns:
        The posterior, with mean m [d] and Cholesky factor L [d, d].

    Raises:
        ValueError: if w is not a `decoders.Linear`, or if x is not a finite vector of the decoder's length.

    Source: Slide 4; Tipping and Bishop 1999, equation 6.
    """
    return posterior_where(w, x, jnp.ones(x.shape, bool))


@door("w:linear x")
def log_p_x(w: Linear, x: Float[Array, "D"]) -> Float[Array, ""]:
    """log p(x|w) = log N(x; b, WWᵀ + Σ₀), in nats.

    The computation uses the d × d matrix M = I + WᵀΣ₀⁻¹W.

    Args:
        w: linear decoder.
        x: [D], one datum.

    Returns:
        [], nats.

    Raises:
        ValueError: if w is not a `decoders.Linear`, or if x is not a finite vector of the decoder's length.

    Source: Slide 4.
    """
    return log_p_x_where(w, x, jnp.ones(x.shape, bool))


@door("w:linear x:x-observed")
def posterior_observed(w: Linear, x: Float[Array | np.ndarray, "D"]) -> FullGaussian:
    """p(t|x_observed,w): the posterior given the observed cells of x; NaN marks a missing one.

    If every cell is missing, it is the prior N(0, I).

    Args:
        w: linear decoder.
        x: [D], one datum, with NaN in missing cells.

    Returns:
        The posterior, with mean m [d] and Cholesky factor L [d, d].

    Raises:
        ValueError: if w is not a `decoders.Linear`, if a value of x is infinite, or if x is not a vector of the
            decoder's length.
    """
    return posterior_where(w, *observed(x))


@door("w:linear x:x-observed")
def log_p_x_observed(w: Linear, x: Float[Array | np.ndarray, "D"]) -> Float[Array, ""]:
    """log p(x_observed|w) = log ∫ p(x|w) dx_missing, in nats; NaN marks a missing cell.

    If every cell is missing, it is log 1 = 0.

    Args:
        w: linear decoder.
        x: [D], one datum, with NaN in missing cells.

    Returns:
        [], nats.

    Raises:
        ValueError: if w is not a `decoders.Linear`, if a value of x is infinite, or if x is not a vector of the
            decoder's length.
    """
    return log_p_x_where(w, *observed(x))


def frame(scaled: Float[Array, "D d"]) -> Float[Array, "d d"]:
    """An orthogonal Q for which Σ₀^−½W Q, its rows sorted by their largest entry, is lower trapezoidal.

    p(x|w) is the same for W and W Q. If some σ_j are much smaller than the others, M = I + WᵀΣ₀⁻¹W is large along their
    rows of W. In this frame those rows lie along the first axes, and the other rows keep their digits.

    Args:
        scaled: [D, d], Σ₀^−½W.

    Returns:
        Q [d, d], without a gradient.
    """
    longest_first = jnp.argsort(-jnp.abs(scaled).max(axis=1))
    # Any fixed rotation is right, so there is nothing to differentiate.
    return jax.lax.stop_gradient(jnp.linalg.qr(scaled[longest_first].T, mode="complete")[0])


def posterior_factor(scaled: Float[Array, "D d"]) -> Float[Array, "d d"]:
    """The upper triangular F with FFᵀ = M⁻¹ = (I + WᵀΣ₀⁻¹W)⁻¹.

    The Cholesky factor of M gives F by one triangular inverse. M⁻¹ is never formed, so float32 loses no digits if σ is
    small.

    Args:
        scaled: [D, d], Σ₀^−½W, with rows of 0 for missing cells.

    Returns:
        F [d, d].
    """
    identity = jnp.eye(scaled.shape[1], dtype=scaled.dtype)
    return solve_triangular(jnp.linalg.cholesky(identity + scaled.T @ scaled), identity, lower=True).T


def _in_frame(w: Linear, x: Array, observed: Array) -> tuple[Array, Array, Array, Array]:
    """m and F of p(t|x,w) in the frame, the residual of (x − b)/σ at t = m, and the frame.

    In units of σ, squares stay in range for data of any scale.
    """
    scaled = w.W / w.sigma[:, None]
    Q = frame(scaled)
    scaled = jnp.where(observed[:, None], scaled @ Q, 0.0)
    y = jnp.where(observed, (x - w.b) / w.sigma, 0.0)
    F = posterior_factor(scaled)
    m = F @ (F.T @ (scaled.T @ y))
    return m, F, y - scaled @ m, Q


def posterior_where(w: Linear, x: Array, observed: Array) -> FullGaussian:
    """p(t|x_observed,w) = N(t; M⁻¹WᵀΣ₀⁻¹(x − b), M⁻¹), with M = I + WᵀΣ₀⁻¹W over the observed coordinates.

    Args:
        w: linear decoder.
        x: [D], one datum, with any finite number in missing cells.
        observed: [D], whether each cell is observed.

    Returns:
        The posterior, with mean m [d] and Cholesky factor L [d, d].
    """
    m, F, _, Q = _in_frame(w, x, observed)
    R = jnp.linalg.qr((Q @ F).T, mode="r")  # RᵀR = Q FFᵀ Qᵀ
    return FullGaussian(Q @ m, R.T * jnp.sign(jnp.diagonal(R))[None])


def log_p_x_where(w: Linear, x: Array, observed: Array) -> Array:
    """log p(x_observed|w) = log N(x; b, WWᵀ + Σ₀) over the observed coordinates, in nats.

    Args:
        w: linear decoder.
        x: [D], one datum, with any finite number in missing cells.
        observed: [D], whether each cell is observed.

    Returns:
        [], nats.
    """
    # Bayes' rule, solved for p(x) = p(x|t) p(t) / p(t|x), holds at every t. At t = m, the posterior's mean, log p(x) is
    # a sum of squares. The usual way, by Woodbury, subtracts two large numbers and cancels in float32 if σ is small.
    m, F, error, _ = _in_frame(w, x, observed)
    log_p_x_given_m = -0.5 * jnp.sum(jnp.where(observed, error**2 + 2 * w.log_sigma + LOG_2PI, 0.0))
    return log_p_x_given_m - 0.5 * jnp.sum(m**2) + jnp.sum(jnp.log(jnp.diagonal(F)))
