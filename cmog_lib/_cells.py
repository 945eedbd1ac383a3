"""log p(x,t|w) and its steepness at the centres of cells: what `quadrature.exact` asks the model."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cmog_lib.model import LOG_2PI, log_p_t, log_p_x_given_t_table

# Latents decoded at a time, and numbers gathered for pairs of datum and latent at a time: what fits in the caches.
NODES = 1024
GATHERED = 2**21


def table(w: Any, X: np.ndarray, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p(x_i,t_k|w) and Σ_j |∂/∂t_kj log p(x_i,t_k|w)| for all data against all latents, each [N, S]."""
    parts = [_table(w, jnp.asarray(X), jnp.asarray(pad(T[k : k + NODES], NODES))) for k in range(0, len(T), NODES)]
    value, steepness = (np.concatenate(part, axis=1)[:, : len(T)] for part in zip(*parts, strict=True))
    return _reported(value, lambda bad: (bad[0], T[bad[1]])), _unknown_is_steep(steepness)


def pairs(w: Any, X: np.ndarray, datum: np.ndarray, T: np.ndarray, node: np.ndarray, *, steep: bool) -> np.ndarray:
    """log p(x,t|w), or with `steep` its steepness, for the pairs (x_datum, T_node): every latent is decoded once."""
    answer, data = np.empty(len(datum)), jnp.asarray(X)
    chunk = node // NODES
    order = np.argsort(chunk.astype(np.uint16), kind="stable")  # 16 bits: sorted by radix
    first = np.searchsorted(chunk[order], np.arange(chunk.max() + 2)).tolist()
    width = X.shape[1] * (2 + steep * 2 * T.shape[1])
    most = 2 ** int(np.log2(max(GATHERED // width, 256)))
    decode, join = (_decode_slopes, _steepness) if steep else (_decode, _value)
    for k, begin, end in zip(range(0, len(T), NODES), first[:-1], first[1:], strict=True):
        decoded = decode(w, jnp.asarray(pad(T[k : k + NODES], _size(len(T) - k, NODES))))
        for at in range(begin, end, most):
            chosen = order[at : min(at + most, end)]
            size = _size(end - at, most)
            part = join(data, decoded, pad(datum[chosen], size), pad(node[chosen] - k, size))
            answer[chosen] = np.asarray(part)[: len(chosen)]
    if steep:
        return _unknown_is_steep(answer)
    return _reported(answer, lambda bad: (datum[bad[0]], T[node[bad[0]]]))


@eqx.filter_jit
def bends(w: Any, T: Array, side: Array) -> Array:
    """Whether μ turns so much across a cell of this side at t, in any direction, that its slope there says little."""

    def one(t: Array, step: Array) -> Array:
        mu, d_mu = jax.jvp(lambda t: w(t)[0], (t,), (step,))
        mu_next, d_mu_next = jax.jvp(lambda t: w(t)[0], (t + step,), (step,))
        defect = mu_next - mu - 0.5 * (d_mu + d_mu_next)
        length = 0.5 * (jnp.linalg.norm(d_mu) + jnp.linalg.norm(d_mu_next))
        # A turn that is lost in the noise hides nothing.
        return (jnp.linalg.norm(defect) > 0.25 * length) & (jnp.linalg.norm(defect / w(t)[1]) > 0.5)

    steps = side * jnp.eye(T.shape[1])
    return jax.vmap(lambda t: jax.vmap(lambda step: one(t, step))(steps).any())(T)


@eqx.filter_jit
def scale(w: Any, X: Array, T: Array) -> Array:
    """Σ (x² + μ²)/σ², datum by datum: the size of the terms of which log p(x_i|t_i,w) is the difference."""

    def one(x: Array, t: Array) -> Array:
        mu, sigma = w(t)
        return jnp.sum((x**2 + mu**2) / sigma**2)

    return jax.vmap(one)(X, T)


@eqx.filter_jit
def _table(w: Any, X: Array, T: Array) -> tuple[Array, Array]:
    def joint(T: Array) -> Array:
        return log_p_x_given_t_table(w, X, T) + jax.vmap(log_p_t)(T)[None]

    directions = (jnp.broadcast_to(e[None], T.shape) for e in jnp.eye(T.shape[1]))
    return joint(T), sum(jnp.abs(jax.jvp(joint, (T,), (e,))[1]) for e in directions)  # type: ignore[return-value]


@eqx.filter_jit
def _decode(w: Any, T: Array) -> tuple[Array, ...]:
    """What a pair needs to know of its latent: μ, σ and the terms without x."""

    def one(t: Array) -> tuple[Array, ...]:
        mu, sigma = w(t)
        return mu, sigma, log_p_t(t) - jnp.sum(jnp.log(sigma) + 0.5 * LOG_2PI)

    return jax.vmap(one)(T)


@eqx.filter_jit
def _decode_slopes(w: Any, T: Array) -> tuple[Array, ...]:
    """The same for the slope of a pair: μ and σ, their slopes in units of σ, and the terms without x."""

    def one(t: Array) -> tuple[Array, ...]:
        (d_mu, d_sigma), (mu, sigma) = jax.jacfwd(lambda t: (w(t),) * 2, has_aux=True)(t)
        log_sigma_slope = d_sigma / sigma[:, None]
        return mu, sigma, d_mu / sigma[:, None], log_sigma_slope, -t - jnp.sum(log_sigma_slope, axis=0)

    return jax.vmap(one)(T)


@jax.jit
def _value(X: Array, decoded: tuple[Array, ...], datum: Array, node: Array) -> Array:
    def one(i: Array, k: Array) -> Array:
        mu, sigma, rest = (part[k] for part in decoded)
        return rest - 0.5 * jnp.sum(((X[i] - mu) / sigma) ** 2)

    return jax.vmap(one)(datum, node)


@jax.jit
def _steepness(X: Array, decoded: tuple[Array, ...], datum: Array, node: Array) -> Array:
    def one(i: Array, k: Array) -> Array:
        mu, sigma, mu_slope, log_sigma_slope, rest = (part[k] for part in decoded)
        y = (X[i] - mu) / sigma
        return jnp.sum(jnp.abs(rest + jnp.sum(y[:, None] * mu_slope + (y**2)[:, None] * log_sigma_slope, axis=0)))

    return jax.vmap(one)(datum, node)


def _size(count: int, most: int) -> int:
    """The next of a few sizes: each is compiled once, whatever the number of data and cells."""
    return min(most, 128 * 8 ** max(int(np.ceil(np.log2(count / 128) / 3)), 0))


def pad(rows: np.ndarray, size: int) -> np.ndarray:
    """`rows` made up to `size` of them with copies of the last, which are computed and thrown away."""
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def _unknown_is_steep(steepness: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(steepness), np.inf, steepness)


def _reported(value: np.ndarray, where: Any) -> np.ndarray:
    wrong = ~np.isfinite(value)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        datum, t = where(at)
        raise ValueError(
            f"w must have finite mu and finite, positive sigma at every latent;"
            f" log p(x, t|w) is {value[at]} for X[{datum}] at t = {np.round(t, 6).tolist()}"
        )
    return value
