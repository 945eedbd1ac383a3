"""Importance weights of all data, a block of draws at a time, and the words for those that are no number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cmog_lib.decoders import projected
from cmog_lib.engine.door import undecoded, warn
from cmog_lib.model import log_p_xt
from cmog_lib.posteriors import Gaussian

ONE_BY_ONE = 4  # draws at most that are decoded one by one
FEW = 100  # draws below which it is no wonder that one outweighs all others
BLOCK = 256  # draws that are decoded at a time: their pictures fit into a processor's cache


def mean(f: Callable[[Array], Array], T: Float[Array, "M d"]) -> Array:
    """`jnp.mean(jax.vmap(f)(T))`; of few draws one by one, since of many data a second axis costs a third of a step."""
    return sum(map(f, T[1:]), f(T[0])) / len(T) if len(T) <= ONE_BY_ONE else jnp.mean(jax.vmap(f)(T))


def log_weights(w: Any, q: Any, x: Array, M: int, key: Array) -> Float[Array, "*batch M"]:
    """`jax.vmap(lambda t: log_p_xt(w, x, t) - q.log_q(t))(q.sample(M, key=key))`, for one datum or each of many.

    The draws are others, for they are made block by block; the first of many are those of few.
    """
    told, q, X, constant, keys = _each(w, q, x, key)
    values = _log_weights(told, q, X, M, keys)
    _numbers(values.sum(axis=1), w, told, q, X, M, keys)
    return (values + constant[:, None]).reshape(*np.shape(x)[:-1], M)


def importance(w: Any, q: Any, x: Array, M: int, key: Array) -> Float[Array, "*batch"]:
    """`jax.nn.logsumexp(log_weights(w, q, x, M, key), axis=-1) - log(M)`, without holding the weights of all data."""
    told, q, X, constant, keys = _each(w, q, x, key)
    values, effective = _importance(told, q, X, M, keys)
    _numbers(values, w, told, q, X, M, keys)
    if not isinstance(effective, jax.core.Tracer) and M >= FEW:
        warn_if_few(float(jnp.median(effective)), M)
    return (values + constant).reshape(np.shape(x)[:-1])


def _each(w: Any, q: Any, x: Array, key: Array) -> tuple[Any, Any, Array, Array, Array]:
    """The decoder, projected; one q, one row of X, its part without t and one key for each datum."""
    if x.ndim == 1:
        q, x = jax.tree.map(lambda part: part[None], (q, x))
    w, x, constant = projected(w, x)
    return w, q, x, constant, jax.random.split(key, len(x))


def warn_if_few(effective: float, M: int) -> None:
    """Warns of M draws of which, for half of the data, only so many carry the weight: fewer than two."""
    if not effective >= 2:
        warn(
            f"for half of the data fewer than two of the M={M} draws carry the weight (median {effective:.2g}): q is"
            " not where p(t|x,w) is, or too wide, and log p(x|w) may be far above. Take a better q, or many more draws"
        )


def effective_draws(log_weight: Float[Array, "M"]) -> Float[Array, ""]:
    """(Σ weight)² / Σ weight², the number of draws that carry the weight; 0 where all weights are 0."""
    largest = log_weight.max()
    relative = jnp.exp(log_weight - jnp.where(jnp.isfinite(largest), largest, 0))
    return jnp.sum(relative) ** 2 / jnp.maximum(jnp.sum(relative**2), jnp.finfo(relative.dtype).tiny)


def log_mean(log_weight: Float[Array, "N M"]) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """log 1/M Σ_s weight_s and its standard error, to first order; warns where few draws carry the weight."""
    M = log_weight.shape[1]
    warn_if_few(float(jnp.median(jax.vmap(effective_draws)(log_weight))), M)
    value = jax.nn.logsumexp(log_weight, axis=1) - np.log(M)
    return value, jnp.exp(log_weight - value[:, None]).std(axis=1) / np.sqrt(M)


def chosen(kept: Bool[Array, "N"], these: Any, those: Any) -> Any:
    """Row by row, `these` where they are kept and otherwise `those`, in all arrays of a pytree."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(kept.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, these, those)


@eqx.filter_jit
def _log_weights(w: Any, q: Any, X: Array, M: int, keys: Array) -> Float[Array, "N M"]:
    return jax.lax.map(lambda one: _of_one(w, one, M), (q, X, keys))


@eqx.filter_jit
def _importance(w: Any, q: Any, X: Array, M: int, keys: Array) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """The bound, and the number of draws that carry it."""

    def one(datum: Any) -> tuple[Array, Array]:
        log_weight = _of_one(w, datum, M)
        return jax.nn.logsumexp(log_weight) - np.log(M), effective_draws(log_weight)

    return jax.lax.map(one, (q, X, keys))


def _of_one(w: Any, datum: tuple[Any, Array, Array], M: int) -> Float[Array, "M"]:
    q, x, key = datum

    def block(b: Array) -> Array:
        T = _block(q, key, b)
        return jax.vmap(lambda t: log_p_xt(w, x, t) - q.log_q(t))(T)

    # Whole blocks always, so that the first draws are the same for every M.
    return jax.lax.map(block, jnp.arange(-(-M // BLOCK))).reshape(-1)[:M]


def _block(q: Any, key: Array, b: Any) -> Float[Array, "M d"]:
    return q.sample(M=BLOCK, key=jax.random.fold_in(key, b))


def _numbers(values: Array, w: Any, told: Any, q: Any, X: Array, M: int, keys: Array) -> None:
    if not isinstance(values, jax.core.Tracer) and (said := nan_among(values, w, told, q, X, M, keys)):
        raise ValueError(said)


def nan_among(values: Float[Array, "N"], w: Any, told: Any, q: Any, X: Array, M: int, keys: Array) -> str:
    """Where the first NaN of `values`, sums over each datum's M weights, comes from; nothing if there is none.

    told: w, or its projection, for which X is.
    """
    if not bool(jnp.isnan(values).any()):
        return ""
    i = int(jnp.argmax(jnp.isnan(values)))
    alone = jax.tree.map(lambda part: part[i : i + 1], (q, X, keys))
    s = int(jnp.argmax(jnp.isnan(_log_weights(told, alone[0], alone[1], M, alone[2])[0])))
    q, key = jax.tree.map(lambda part: part[i], (q, keys))
    return nan_at(w, q, _block(q, key, s // BLOCK)[s % BLOCK], i)


def nan_at(w: Any, q: Any, t: Float[Array, "d"], i: int) -> str:
    """What is to be said of log p(x_i,t|w) − log q(t) that is NaN at a draw t of q."""
    place = f"log p(x,t|w) - log q(t) is NaN for X[{i}] at t = {np.asarray(t).tolist()}"
    # An infinite t is no latent to ask q about.
    if not bool(jnp.isfinite(t).all()) or not bool(jnp.isfinite(q.log_q(t))):
        s = q.s if isinstance(q, Gaussian) else np.linalg.norm(np.asarray(q.L, np.float64), axis=1)
        return f"q must have finite draws with a density in {t.dtype}, got s = {np.asarray(s).tolist()}: {place}"
    return undecoded(w, t[None]) or f"w must have a density at every draw of q: {place}"
