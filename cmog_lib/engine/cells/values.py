"""log p(x,t|w) and its steepness at the centres of cells: what `quadrature.exact` asks the model."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cmog_lib.engine import door
from cmog_lib.model import LOG_2PI, log_p_t, log_p_x_given_t_table

# Latents decoded at a time, and numbers gathered for pairs of datum and latent at a time: what fits in the caches.
NODES = 1024
GATHERED = 2**21


def table(w: Any, X: np.ndarray, T: np.ndarray, side: float, safety: float) -> tuple[np.ndarray, np.ndarray]:
    """log p(x_i,t_k|w) for all data against all latents, and the most it may rise in the cell around t_k: [N, S]."""
    cell = jnp.asarray(0.5 * side), jnp.asarray(safety)
    parts = [
        _table(w, jnp.asarray(X), jnp.asarray(pad(T[k : k + NODES], NODES)), *cell) for k in range(0, len(T), NODES)
    ]
    value, rise = (np.concatenate(part, axis=1)[:, : len(T)] for part in zip(*parts, strict=True))
    return _reported(value, lambda bad: (bad[0], T[bad[1]])), rise


def pairs(
    w: Any,
    X: np.ndarray,
    datum: np.ndarray,
    T: np.ndarray,
    node: np.ndarray,
    rise: tuple[float, float] | None = None,
) -> np.ndarray:
    """The same for the pairs (x_datum, T_node): the value, or the rise in cells of that side and with that safety.

    Every latent is decoded once, however many data ask for it.
    """
    answer, data = np.empty(len(datum)), jnp.asarray(X)
    chunk = node // NODES
    order = np.argsort(chunk.astype(np.uint16), kind="stable")  # 16 bits: sorted by radix
    first = np.searchsorted(chunk[order], np.arange(chunk.max() + 2)).tolist()
    width = X.shape[1] * (2 + 2 * T.shape[1] if rise else 2)
    most = 2 ** int(np.log2(max(GATHERED // width, 256)))
    cell = (jnp.asarray(0.5 * rise[0]), jnp.asarray(rise[1])) if rise else ()
    decode, join = (_decode_cell, _rise) if rise else (_decode, _value)
    for k, begin, end in zip(range(0, len(T), NODES), first[:-1], first[1:], strict=True):
        decoded = decode(w, jnp.asarray(pad(T[k : k + NODES], NODES)), *cell)
        for at in range(begin, end, most):
            chosen = order[at : min(at + most, end)]
            size = _size(end - at, most)
            part = join(data, decoded, pad(datum[chosen], size), pad(node[chosen] - k, size))
            answer[chosen] = np.asarray(part)[: len(chosen)]
    if rise:
        return answer
    return _reported(answer, lambda bad: (datum[bad[0]], T[node[bad[0]]]))


def unforeseen(w: Any, T: np.ndarray, centre: np.ndarray, node: np.ndarray, side: float) -> np.ndarray:
    """Which of the latents T are places where μ or σ is not what its slopes at the centre of the cell foretell.

    node: [P], the row of `centre` in whose cell each lies. What moves μ by less than σ, or by less than the slopes move
    it in the cell, or log p by less than a nat, does not count.
    """
    found, order = np.zeros(len(T), bool), np.argsort(node, kind="stable")
    for k in range(0, len(centre), NODES):
        cells = [np.asarray(part) for part in decode_cells(w, centre[k : k + NODES], side, 2.0)]
        first, last = np.searchsorted(node[order], [k, k + NODES])
        for at in range(first, last, NODES):
            some = order[at : min(at + NODES, last)]
            mu, sigma = (np.asarray(part)[: len(some)] for part in _decode(w, jnp.asarray(pad(T[some], NODES)))[:2])
            good = (np.isfinite(mu) & np.isfinite(sigma) & (sigma > 0)).all(axis=1)
            if not good.all():
                door.decoded(w, jnp.asarray(T[some][~good]))
            mu_c, sigma_c, d_mu, d_log_sigma, _, _, half, _ = (part[node[some] - k] for part in cells)
            with np.errstate(invalid="ignore", over="ignore"):  # slopes that are not known are steep in any case
                step, smaller = (T[some] - centre[node[some]])[:, :, None], np.minimum(sigma, sigma_c)
                off = np.linalg.norm((mu - mu_c - (d_mu @ step)[:, :, 0] * sigma_c) / smaller, axis=1)
                straight = half * np.linalg.norm(d_mu, axis=(1, 2))
                turned = np.abs(np.log(sigma / sigma_c) - (d_log_sigma @ step)[:, :, 0]).sum(axis=1)
                found[some] = off > np.maximum(straight, 1)
                found[some] |= turned > np.maximum(half * np.abs(d_log_sigma).sum(axis=(1, 2)), 1)
    return found


def decode_cells(w: Any, T: np.ndarray, side: float, safety: float) -> tuple[Array, ...]:
    """Of NODES latents or fewer, padded to NODES, what is to be known of the cells of that side around them."""
    return _decode_cell(w, jnp.asarray(pad(T, NODES)), jnp.asarray(0.5 * side), jnp.asarray(safety))


def bends(w: Any, T: np.ndarray, side: float) -> np.ndarray:
    """Whether μ bends in the cell of that side around t."""
    spreads = [decode_cells(w, T[k : k + NODES], side, 2.0)[5][: len(T) - k] for k in range(0, len(T), NODES)]
    return np.concatenate(spreads) > 0


@eqx.filter_jit
def scale(w: Any, X: Array, T: Array) -> Array:
    """Σ (x² + μ²)/σ², datum by datum: the size of the terms of which log p(x_i|t_i,w) is the difference."""

    def one(x: Array, t: Array) -> Array:
        mu, sigma = w(t)
        return jnp.sum((x**2 + mu**2) / sigma**2)

    return jax.vmap(one)(X, T)


@eqx.filter_jit
def _table(w: Any, X: Array, T: Array, half: Array, safety: Array) -> tuple[Array, Array]:
    def joint(T: Array) -> Array:
        return log_p_x_given_t_table(w, X, T) + jax.vmap(log_p_t)(T)[None]

    value, steepness = joint(T), jnp.zeros((len(X), len(T)))
    for e in jnp.eye(T.shape[1]):
        steepness += jnp.abs(jax.jvp(joint, (T,), (jnp.broadcast_to(e[None], T.shape),))[1])
    spread = jax.vmap(lambda t: _spread(w, t, half, *_slopes(w, t)))(T)
    distance = jnp.sqrt(jnp.maximum(2 * (_decode(w, T)[2][None] - value), 0))
    return value, _highest(steepness * half, distance, spread[None], safety)


def _slopes(w: Any, t: Array) -> tuple[Array, ...]:
    (d_mu, d_sigma), (mu, sigma) = jax.jacfwd(lambda t: (w(t),) * 2, has_aux=True)(t)
    return mu, sigma, d_mu, d_sigma


def _spread(w: Any, t: Array, half: Array, mu: Array, sigma: Array, d_mu: Array, d_sigma: Array) -> Array:
    """How far μ gets from its centre in a cell of this half side, in units of σ; 0 where its slope tells that well."""
    steps = half * jnp.eye(len(t))
    there = jnp.stack([sign * jax.vmap(lambda step: w(t + step)[0] - mu)(sign * steps) for sign in (1, -1)])
    straight, defect = half * d_mu.T, there - half * d_mu.T[None]
    turns = jnp.linalg.norm(defect, axis=-1) > 0.25 * jnp.linalg.norm(straight, axis=-1)[None]
    matters = jnp.linalg.norm(defect / sigma[None, None], axis=-1) > 0.5  # what is lost in the noise hides nothing
    reached = jnp.linalg.norm(jnp.concatenate([there, straight[None]]) / sigma[None, None], axis=-1).max(axis=0)
    return jnp.where((turns & matters).any(), jnp.sum(reached), 0.0)


def _highest(reach: Array, distance: Array, spread: Array, safety: Array) -> Array:
    """How much log p(x,t|w) may rise in a cell: by its slope, or where μ bends by μ coming as near x as it spreads."""
    nearer = jnp.maximum(distance - safety * spread, 0)
    rise = jnp.maximum(safety * reach, 0.5 * (distance**2 - nearer**2))
    return jnp.where(jnp.isnan(rise), jnp.inf, rise)  # a slope that is not known is steep


@eqx.filter_jit
def _decode(w: Any, T: Array) -> tuple[Array, ...]:
    """What a pair needs to know of its latent: μ, σ and the terms without x."""

    def one(t: Array) -> tuple[Array, ...]:
        mu, sigma = w(t)
        return mu, sigma, log_p_t(t) - jnp.sum(jnp.log(sigma) + 0.5 * LOG_2PI)

    return jax.vmap(one)(T)


@eqx.filter_jit
def _decode_cell(w: Any, T: Array, half: Array, safety: Array) -> tuple[Array, ...]:
    """The same for the rise in a cell: μ and σ, their slopes in units of σ, the terms without x, and the cell."""

    def one(t: Array) -> tuple[Array, ...]:
        mu, sigma, d_mu, d_sigma = _slopes(w, t)
        spread, d_log_sigma = _spread(w, t, half, mu, sigma, d_mu, d_sigma), d_sigma / sigma[:, None]
        return mu, sigma, d_mu / sigma[:, None], d_log_sigma, -t - jnp.sum(d_log_sigma, axis=0), spread, half, safety

    return jax.vmap(one)(T)


@jax.jit
def _value(X: Array, decoded: tuple[Array, ...], datum: Array, node: Array) -> Array:
    def one(i: Array, k: Array) -> Array:
        mu, sigma, rest = (part[k] for part in decoded)
        return rest - 0.5 * jnp.sum(((X[i] - mu) / sigma) ** 2)

    return jax.vmap(one)(datum, node)


@jax.jit
def _rise(X: Array, decoded: tuple[Array, ...], datum: Array, node: Array) -> Array:
    def one(i: Array, k: Array) -> Array:
        mu, sigma, d_mu, d_log_sigma, rest, spread, half, safety = (part[k] for part in decoded)
        y = (X[i] - mu) / sigma
        steepness = jnp.sum(jnp.abs(rest + jnp.sum(y[:, None] * d_mu + (y**2)[:, None] * d_log_sigma, axis=0)))
        return _highest(steepness * half, jnp.linalg.norm(y), spread, safety)

    return jax.vmap(one)(datum, node)


def _size(count: int, most: int) -> int:
    """The next of a few sizes: each is compiled once, whatever the number of data and cells."""
    return min(most, 128 * 8 ** max(int(np.ceil(np.log2(count / 128) / 3)), 0))


def pad(rows: np.ndarray, size: int) -> np.ndarray:
    """`rows` made up to `size` of them with copies of the last, which are computed and thrown away."""
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


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
