"""EM for the linear decoder, where both steps are closed form."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from cmog_lib import _validate
from cmog_lib.decoders import Linear
from cmog_lib.ppca.closed_form import linear, posterior_factor


def em_step(w: Linear, X: Float[Array, "N D"]) -> Linear:
    """w_new = argmax_w' Σ_i E_{p(t_i|x_i,w)} log p(x_i, t_i|w'): one exact E-step and one exact M-step.

    w: linear decoder; its σ stays one number (PPCA) or one for each coordinate (factor analysis). X: [N, D], data.
    Returns the new decoder; W, b and σ move together, and log p(X|w) never falls.
    Raises ValueError when X is no finite matrix of the decoder's width. Slides 11–13.
    """
    w = linear(w)
    return _em_step(w, _validate.array("X", X, ("N", w.data_dim)))


@eqx.filter_jit
def _em_step(w: Linear, X: Float[Array, "N D"]) -> Linear:
    # E-step: p(t_i|x_i,w) = N(t_i; m_i, LLᵀ), with the same LLᵀ for every datum.
    L = posterior_factor(w, jnp.ones(w.b.shape, bool))
    m = ((X - w.b[None]) / w.sigma[None] ** 2) @ w.W @ L @ L.T
    # M-step: a linear regression of x on t. Both are centred, which leaves b for last and keeps float32 accurate.
    m_mean, x_mean = m.mean(axis=0), X.mean(axis=0)
    m_centred, x_centred = m - m_mean[None], X - x_mean[None]
    second_moment = m_centred.T @ m_centred / len(X) + L @ L.T
    W = cho_solve(cho_factor(second_moment), m_centred.T @ x_centred / len(X)).T
    error = jnp.mean((x_centred - m_centred @ W.T) ** 2, axis=0) + jnp.sum((W @ L) ** 2, axis=1)
    sigma_squared = error if w.log_sigma.ndim else error.mean()
    return Linear(W, x_mean - W @ m_mean, 0.5 * jnp.log(sigma_squared))
