"""Where a posterior is and how wide: what a chain needs to know before it can step well."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib import _validate
from cmog_lib.decoders import Decoder, as_module, projected
from cmog_lib.model import log_p_xt
from cmog_lib.posteriors import FullGaussian


def laplace(
    w: Decoder, X: Float[Array, "N D"], *, key: Key[Array, ""], starts: int = 64, steps: int = 30
) -> FullGaussian:
    """q_i = N(t_i*, P⁻¹) around a mode t_i* of p(t|x_i,w), P = I + Σ_j (∂μ_j ∂μ_jᵀ + 2 ∂σ_j ∂σ_jᵀ)/σ_j² (Fisher).

    w: decoder, any latent dimension. X: [N, D], data. starts: draws from the prior, of which the likeliest is where a
    datum's climb begins. steps: of Fisher scoring, each the best of eight halvings. Returns m [N, d] and L [N, d, d].
    Exact for Linear. Of several modes it knows one. A datum costs starts + 10 steps decoder evaluations.
    Raises ValueError for data that are not finite or not the decoder's, an untyped key, starts or steps below 1.
    """
    w = as_module(w)
    w, X, _ = projected(w, _validate.array("X", X, ("N", w.data_dim)))
    starts, steps = _validate.count("starts", starts), _validate.count("steps", steps)
    return FullGaussian(*_laplace(w, X, _validate.key(key), starts, steps))


def evaluations_of_laplace(N: int, starts: int = 64, steps: int = 30) -> int:
    """How many latents `laplace` decodes for N data: a step asks for the slopes, the gradient and eight places."""
    return N * (starts + 10 * steps)


@eqx.filter_jit
def _laplace(w: Any, X: Array, key: Array, starts: int, steps: int) -> tuple[Array, Array]:
    T = jax.random.normal(key, (starts, w.latent_dim), X.dtype)
    halvings = 0.5 ** jnp.arange(8, dtype=X.dtype)

    def one(x: Array) -> tuple[Array, Array]:
        def log_p(t: Array) -> Array:
            return log_p_xt(w, x, t)

        def climb(t: Array, _: None) -> tuple[Array, None]:
            direction = jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(precision(w, t)), True), jax.grad(log_p)(t))
            tried = t[None] + halvings[:, None] * direction[None]
            values = jax.vmap(log_p)(tried)
            best = jnp.nanargmax(jnp.where(jnp.isnan(values), -jnp.inf, values))
            return jnp.where(values[best] > log_p(t), tried[best], t), None

        t, _ = jax.lax.scan(climb, T[jnp.argmax(jax.vmap(log_p)(T))], length=steps)
        return t, _scale(w, t)

    return jax.vmap(one)(X)


@eqx.filter_jit
def scale_at(w: Any, T: Float[Array, "N d"]) -> Float[Array, "N d d"]:
    """L_i with L_i L_iᵀ = P(t_i)⁻¹: how wide the posterior is around t_i, as far as the decoder's slopes there tell."""
    return jax.vmap(_scale, in_axes=(None, 0))(w, T)


def _scale(w: Any, t: Array) -> Array:
    # P = U Uᵀ with U upper triangular, by turning P upside down; then L = U⁻ᵀ, and no inverse of P is formed.
    upper = jnp.linalg.cholesky(precision(w, t)[::-1, ::-1])[::-1, ::-1]
    return jax.scipy.linalg.solve_triangular(upper, jnp.eye(len(t), dtype=t.dtype), lower=False).T


def precision(w: Decoder, t: Float[Array, "d"]) -> Float[Array, "d d"]:
    """P(t) = I + Σ_j (∂μ_j ∂μ_jᵀ + 2 ∂σ_j ∂σ_jᵀ)/σ_j²: the prior's precision and the Fisher information of t in x."""
    _, sigma = w(t)
    d_mu, d_sigma = (d / sigma[:, None] for d in jax.jacfwd(w)(t))
    return jnp.eye(len(t), dtype=t.dtype) + d_mu.T @ d_mu + 2 * d_sigma.T @ d_sigma
