"""EM for the linear decoder, for which both steps have a closed form."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from cmog_lib.decoders import Linear
from cmog_lib.engine.door import door
from cmog_lib.engine.sigma import log_sigma, units
from cmog_lib.ppca.closed_form import frame, posterior_factor


@door("w:linear X:X-of-a-regression")
@eqx.filter_jit
def em_step(w: Linear, X: Float[Array, "N D"]) -> Linear:
    """w_new = argmax_w' Σ_i E_{p(t_i|x_i,w)} log p(x_i, t_i|w'): one exact E-step and one exact M-step.

    W, b and σ change together, and log p(X|w) never decreases. Each σ is at least √ε times the standard deviation of
    its data, with ε = 1e-7 in single and 2e-16 in double precision; below that floor, rounding errors dominate log
    p(X|w). A σ on the floor means that w reproduces its coordinate and the likelihood has no maximum.

    Args:
        w: linear decoder; its σ stays one number (PPCA) or one for each coordinate (factor analysis).
        X: [N, D], data.

    Returns:
        The new decoder.

    Raises:
        ValueError: if w is not a `decoders.Linear`, if X is not a finite matrix of the decoder's width, if a column is
            constant and each column has its own σ, or if all columns are constant.

    Source: Slides 10–12.
    """
    # E-step: p(t_i|x_i,w) = N(t_i; m_i, FFᵀ), with the same FFᵀ for every datum; t is rotated to be accurate.
    scaled = w.W / w.sigma[:, None]
    Q = frame(scaled)
    scaled = scaled @ Q
    F = posterior_factor(scaled)
    m = ((X - w.b[None]) / w.sigma[None]) @ scaled @ F @ F.T
    # M-step: a linear regression of x on t. Both are centred, so that b comes last and float32 stays accurate.
    m_mean, x_mean = m.mean(axis=0), X.mean(axis=0)
    m_centred, x_centred = m - m_mean[None], X - x_mean[None]
    unit = units(x_centred)
    x_centred = x_centred / unit[None]
    second_moment = m_centred.T @ m_centred / len(X) + F @ F.T
    W = cho_solve(cho_factor(second_moment), m_centred.T @ x_centred / len(X)).T
    error = jnp.mean((x_centred - m_centred @ W.T) ** 2, axis=0) + jnp.sum((W @ F) ** 2, axis=1)
    new = log_sigma(error, jnp.mean(x_centred**2, axis=0), unit, each=w.log_sigma.ndim > 0)
    W = W * unit[:, None]
    return Linear(W @ Q.T, x_mean - W @ m_mean, new)
