"""The Gaussian q of every datum, factorised or full, by reparameterised gradients from several starts."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib import _validate
from cmog_lib.bound import log_weights
from cmog_lib.decoders import Decoder, as_module
from cmog_lib.model import log_p_x_given_t_table, log_p_xt
from cmog_lib.optimise import Ascent, NotFinite, ascend
from cmog_lib.optimise.interrupts import interruptible
from cmog_lib.posteriors import FullGaussian, Gaussian

# Shares of the steps and their lengths in units of q's own s: far at first, then less and less noise at the end.
STAGES = ((0.4, 0.1), (0.3, 0.03), (0.3, 0.01))
LOOKED_AT = 4096  # draws from the prior for each start, shared by all data, of which each takes the likeliest


class Fitted(eqx.Module):
    """What `fit_q` found. q: the best of all starts for each datum, m [N, d]. bound: [N], L(w, q_i) by draws, in nats.

    error: [N], the standard error of bound. tried: q from every start, m [K, N, d]. tried_bound: [K, N], theirs by the
    same draws. trace: the bound a datum at every step, mean over data and starts. evaluations: latents it decoded.
    """

    q: Gaussian | FullGaussian
    bound: Float[Array, "N"]
    error: Float[Array, "N"]
    tried: Gaussian | FullGaussian
    tried_bound: Float[Array, "K N"]
    trace: Float[np.ndarray, "steps"]
    evaluations: int
    interrupted: bool = False


@interruptible
def fit_q(
    w: Decoder,
    X: Float[Array, "N D"],
    start: Gaussian | FullGaussian | None = None,
    *,
    key: Key[Array, ""],
    full: bool = False,
    starts: int = 8,
    steps: int = 150,
    M: int = 2,
    draws: int = 256,
    progress: bool = True,
) -> Fitted:
    """q_i = argmax_q L(w,q), q = N(m_i, diag s_i²) or with any covariance: ∇ of 1/M Σ_s log p(x_i, m_i + s_i ε_s|w).

    w: decoder, any latent dimension. X: [N, D], data, all at once. start: q's to go on from, m [N, d]; else each climbs
    from `starts` places where the prior's draws are likely, and the best is kept: of several modes it knows some.
    full: any covariance, when there is no start. steps: of Adam. M: draws a step, even, in pairs m ± s ε, in which what
    is odd in ε cancels. draws: by which the bounds are measured in the end. progress: show the bars, one a stage.
    After Ctrl-C it returns what there is. Raises ValueError for shapes that do not fit, counts below 1, an odd M, an
    untyped key; NotFinite with the step, the cause and the last good q. Slide 20, past it. Source: Kingma and Welling
    2014; Roeder, Wu and Duvenaud 2017 for the part of the gradient that is left out.
    """
    w, key = as_module(w), _validate.key(key)
    X = _validate.array("X", X, ("N", w.data_dim))
    steps, starts, draws = (_validate.count(*pair) for pair in (("steps", steps), ("starts", starts), ("draws", draws)))
    if _validate.count("M", M, 2) % 2:
        raise ValueError(f"M must be even, for pairs of draws m ± s ε, got {M}")
    key_start, key_climb, key_bound = jax.random.split(key, 3)
    if start is None:
        q, evaluations = _starts(w, X, starts, full, key_start), starts * LOOKED_AT
    else:
        start = _validate.kind("start", start, Gaussian, FullGaussian)
        _validate.array("start.m", start.m, (len(X), w.latent_dim))
        q, evaluations = jax.tree.map(lambda part: part[None], start), 0
    q, trace, interrupted = _climb(w, X, q, steps, M, key_climb, progress)
    K, N = q.m.shape[:2]
    evaluations += len(trace) * M * K * N + draws * K * N
    values = _log_weights(w, q, X, draws, key_bound)
    bounds, best = values.mean(axis=2), jnp.argmax(values.mean(axis=2), axis=0)
    error = values.std(axis=2)[best, jnp.arange(N)] / np.sqrt(draws)
    chosen = jax.tree.map(lambda part: part[best, jnp.arange(N)], q)
    return Fitted(chosen, bounds.max(axis=0), error, q, bounds, trace, evaluations, interrupted)


class _Move(eqx.Module):
    """A change of q in units of q itself: m + s u, log s + a; for a full one m + L u and L (diag eᵃ + lower)."""

    u: Float[Array, "K N d"]
    a: Float[Array, "K N d"]
    lower: Float[Array, "K N d d"] | None

    def __call__(self, q: Any) -> Any:
        if isinstance(q, Gaussian) or self.lower is None:
            return Gaussian(q.m + q.s * self.u, q.log_s + self.a)
        d = q.m.shape[-1]
        inner = jnp.exp(self.a)[..., None] * jnp.eye(d, dtype=q.m.dtype)[None, None] + jnp.tril(self.lower, -1)
        return FullGaussian(q.m + jnp.einsum("...ij,...j->...i", q.L, self.u), q.L @ inner)


def _climb(
    w: Any, X: Array, q: Any, steps: int, M: int, key: Array, progress: bool
) -> tuple[Any, Float[np.ndarray, "steps"], bool]:
    trace, first = np.zeros(0), np.rint(steps * np.cumsum([0, *(share for share, _ in STAGES)])).astype(int)
    for stage, (_, rate) in enumerate(STAGES):
        taken = int(first[stage + 1] - first[stage])
        if not taken:
            continue
        still = _Move(jnp.zeros_like(q.m), jnp.zeros_like(q.m), jnp.zeros_like(q.L) if hasattr(q, "L") else None)
        problem, key_stage = _Problem(w, X, q, M), jax.random.fold_in(key, stage)
        try:
            found = ascend(
                _mean_bound, still, problem, steps=taken, key=key_stage, learning_rate=rate, progress=progress
            )
        except NotFinite as error:
            good = Ascent(error.ascent.w(q), np.concatenate([trace, error.ascent.trace]))
            raise NotFinite(f"in stage {stage + 1} of {len(STAGES)}, {error}", len(good.trace), good) from error
        q, trace = found.w(q), np.concatenate([trace, found.trace])
        if found.interrupted:
            return q, trace, True
    return q, trace, False


class _Problem(eqx.Module):
    """What a step needs beside the move: the decoder, the data, q before it, how many draws."""

    w: Any
    X: Float[Array, "N D"]
    q: Any
    M: int = eqx.field(static=True)


def _mean_bound(move: _Move, problem: _Problem, key: Key[Array, ""]) -> Float[Array, ""]:
    q = move(problem.q)
    T = q.sample(problem.M // 2, key=key)
    T = jnp.concatenate([T, 2 * q.m[None] - T])
    # q's own slope at a fixed t has mean zero, and is left out: what remains loses its noise as q becomes p(t|x,w).
    log_ratio = jax.vmap(jax.vmap(_log_ratio, (None, 0, 0, 0)), (None, None, 0, 0))
    return jnp.mean(jax.vmap(log_ratio, (None, None, None, 0))(problem.w, problem.X, jax.lax.stop_gradient(q), T))


def _log_ratio(w: Any, x: Array, q: Any, t: Array) -> Array:
    return log_p_xt(w, x, t) - q.log_q(t)


@eqx.filter_jit
def _log_weights(w: Any, q: Any, X: Array, draws: int, key: Array) -> Float[Array, "K N M"]:
    return jax.lax.map(lambda q: log_weights(w, q, X, draws, key=key), q)


@eqx.filter_jit
def _starts(w: Any, X: Array, starts: int, full: bool, key: Array) -> Any:
    """At the likeliest of some draws from the prior, as wide as the decoder's slopes there tell; m [K, N, d]."""

    def likeliest(key: Array) -> Array:
        T = jax.random.normal(key, (LOOKED_AT, w.latent_dim), X.dtype)
        return T[jnp.argmax(log_p_x_given_t_table(w, X, T), axis=1)]

    m = jax.lax.map(likeliest, jax.random.split(key, starts))

    def log_s(t: Array) -> Array:
        _, sigma = w(t)
        d_mu, d_sigma = (slope / sigma[:, None] for slope in jax.jacfwd(w)(t))
        return -0.5 * jnp.log(1 + jnp.sum(d_mu**2 + 2 * d_sigma**2, axis=0))

    log_s_m = jax.vmap(jax.vmap(log_s))(m)
    if not full:
        return Gaussian(m, log_s_m)
    return FullGaussian(m, jnp.exp(log_s_m)[..., None] * jnp.eye(w.latent_dim, dtype=X.dtype)[None, None])
