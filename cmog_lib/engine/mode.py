"""Where p(t|x,w) has a mode, and how wide it is there: for the starts of chains and of a Gaussian q."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib.decoders import Decoder, projected
from cmog_lib.engine.door import at_modes
from cmog_lib.model import log_p_x_given_t_table, log_p_xt
from cmog_lib.posteriors import FullGaussian, Gaussian

HALVINGS = 8  # lengths that are tried of every step: 1, ½, … 1/128 of it
LOOKED_AT = 4096  # draws from the prior for each of several starts, shared by all data; each takes its likeliest
CLIMB, NEAR = 30, 0.1  # from there, the largest number of steps; the last one gains no more than so many nats


def climb(
    w: Any, x: Float[Array, "D"], t: Float[Array, "d"], steps: int, least: float = 0.0
) -> tuple[Float[Array, "d"], Array, Array]:
    """t ← t + h P(t)⁻¹ ∇log p(x,t|w), h the best of 1, ½, … 1/128: Fisher scoring, for as long as it gains.

    A step that gains no more than `least` nats is the last, and so is number `steps`. No step ends where log p(x,t|w)
    is NaN. Returns t, log p(x,t|w) there and how many latents the steps decoded: each asks for the slopes, the
    gradient and eight places.
    """
    halvings = 0.5 ** jnp.arange(HALVINGS, dtype=t.dtype)

    def log_p(t: Array) -> Array:
        return log_p_xt(w, x, t)

    def goes_on(state: tuple[Array, Array, Array, Array]) -> Array:
        _, _, gain, taken = state
        return (gain > least) & (taken < steps)

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        t, value, _, taken = state
        direction = jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(precision(w, t)), True), jax.grad(log_p)(t))
        tried = t[None] + halvings[:, None] * direction[None]
        values = jax.vmap(log_p)(tried)
        best = jnp.nanargmax(values)
        higher = values[best] > value
        t_new, value_new = jnp.where(higher, tried[best], t), jnp.where(higher, values[best], value)
        return t_new, value_new, jnp.where(higher, values[best] - value, 0), taken + 1

    start = (t, log_p(t), jnp.asarray(jnp.inf, t.dtype), jnp.asarray(0))
    t, value, _, taken = jax.lax.while_loop(goes_on, step, start)
    return t, value, (2 + HALVINGS) * taken


def precision(w: Decoder, t: Float[Array, "d"]) -> Float[Array, "d d"]:
    """P(t) = I + Σ_j (∂μ_j ∂μ_jᵀ + 2 ∂σ_j ∂σ_jᵀ)/σ_j²: the prior's precision and the Fisher information of t in x."""
    _, sigma = w(t)
    d_mu, d_sigma = (d / sigma[:, None] for d in jax.jacfwd(w)(t))
    return jnp.eye(len(t), dtype=t.dtype) + d_mu.T @ d_mu + 2 * d_sigma.T @ d_sigma


def scale(w: Any, t: Float[Array, "d"]) -> Float[Array, "d d"]:
    """L with LLᵀ = P(t)⁻¹, lower triangular."""
    return _scale(precision(w, t))


def _scale(P: Float[Array, "d d"]) -> Float[Array, "d d"]:
    # P = U Uᵀ with U upper triangular, by turning P upside down; then L = U⁻ᵀ, and no inverse of P is formed.
    upper = jnp.linalg.cholesky(P[::-1, ::-1])[::-1, ::-1]
    return jax.scipy.linalg.solve_triangular(upper, jnp.eye(len(P), dtype=P.dtype), lower=False).T


def laplace(w: Any, X: Array, key: Array, starts: int = 64, steps: int = 30) -> tuple[FullGaussian, int]:
    """N(t_i*, P(t_i*)⁻¹) around a mode t_i* of each p(t|x_i,w), and how many latents were decoded for them."""
    told, told_X, _ = projected(w, X)
    m, L, log_p, evaluations = _laplace(told, told_X, key, starts, steps)
    at_modes(w, m, log_p, L)
    return FullGaussian(m, L), int(evaluations)


@eqx.filter_jit
def _laplace(w: Any, X: Array, key: Array, starts: int, steps: int) -> tuple[Array, Array, Array, Array]:
    T = jax.random.normal(key, (starts, w.latent_dim), X.dtype)

    def one(x: Array) -> tuple[Array, Array, Array, Array]:
        likeliest = T[jnp.nanargmax(jax.vmap(lambda t: log_p_xt(w, x, t))(T))]
        t, log_p, decoded = climb(w, x, likeliest, steps)
        return t, scale(w, t), log_p, decoded

    m, L, log_p, decoded = jax.vmap(one)(X)
    return m, L, log_p, starts * len(X) + decoded.sum()


@eqx.filter_jit
def scale_at(w: Any, T: Float[Array, "N d"]) -> Float[Array, "N d d"]:
    """L_i with L_i L_iᵀ = P(t_i)⁻¹: how wide the posterior is around t_i, as far as the decoder's slopes there tell."""
    return jax.vmap(scale, in_axes=(None, 0))(w, T)


def near_draws(w: Any, X: Array, starts: int, full: bool, key: Array) -> tuple[Gaussian | FullGaussian, int]:
    """N(t_i*, P(t_i*)⁻¹), or with the diagonal of P, around a mode t_i* near the likeliest of 4096 draws of p(t).

    Returns q, m [K, N, d], from K = `starts` keys, and how many latents were decoded for them.
    """
    m, L, log_s, log_p, decoded = _near_draws(w, X, starts, key)
    at_modes(w, m, log_p, L if full else log_s)
    return FullGaussian(m, L) if full else Gaussian(m, log_s), starts * LOOKED_AT + int(decoded)


@eqx.filter_jit
def _near_draws(w: Any, X: Array, starts: int, key: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Returns modes m, with L and log s there: both families use the same compiled function."""

    def widths(t: Array) -> tuple[Array, Array]:
        P = precision(w, t)
        return _scale(P), -0.5 * jnp.log(jnp.diagonal(P))

    def of_one_key(key: Array) -> tuple[Array, ...]:
        T = jax.random.normal(key, (LOOKED_AT, w.latent_dim), X.dtype)
        likeliest = T[jnp.nanargmax(log_p_x_given_t_table(w, X, T), axis=1)]
        m, log_p, decoded = jax.vmap(lambda x, t: climb(w, x, t, CLIMB, NEAR))(X, likeliest)
        return m, *jax.vmap(widths)(m), log_p, decoded

    m, L, log_s, log_p, decoded = jax.lax.map(of_one_key, jax.random.split(key, starts))
    return m, L, log_s, log_p, decoded.sum()
