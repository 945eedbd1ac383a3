"""The Gaussian q of every datum, factorised or full, by reparameterised gradients from several starts."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.bound import log_weights
from cmog_lib.decoders import Decoder
from cmog_lib.engine import mode
from cmog_lib.engine.devices import gathered
from cmog_lib.engine.door import at_modes, count, door, warn
from cmog_lib.engine.draws import nan_among, nan_at
from cmog_lib.engine.optimise.faults import with_facts
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.model import log_p_x_given_t_table, log_p_xt
from cmog_lib.optimise import Ascent, NotFinite, ascend
from cmog_lib.posteriors import FullGaussian, Gaussian

# Shares of the steps and their lengths in units of q's own s: long steps first, shorter and less noisy ones later.
STAGES = ((0.4, 0.1), (0.3, 0.03), (0.3, 0.01))
LOOKED_AT = 4096  # draws from the prior for each start, shared by all data; each datum takes its likeliest
RISE = 16  # draws for each of two estimates of the bound's slope at the end
UNCLIMBED, UNCLIMBED_MEAN = 10.0, 0.5  # nats that a datum's bound, and the mean of all, may still rise in one step
CLIMB, NEAR = 30, 0.1  # largest number of steps to a nearby mode; the last step gains no more than so many nats


class Fitted(eqx.Module):
    """What `fit_q` found: the best q for each datum, and the q from every start.

    Attributes:
        q: the best of all starts for each datum, m [N, d].
        bound: [N], L(w, q_i) by draws, in nats.
        error: [N], the standard error of bound.
        trace: the bound per datum at every step, averaged over data and starts.
        evaluations: number of decoder evaluations.
        interrupted: whether the fit was stopped with Ctrl-C.
    """

    q: Gaussian | FullGaussian
    bound: Float[Array, "N"]
    error: Float[Array, "N"]
    trace: Float[np.ndarray, "steps"]
    evaluations: int
    interrupted: bool = False


def _pairs_of(name: str, M: Any, given: dict[str, Any]) -> int:
    if count(name, M, 2) % 2:
        raise ValueError(f"{name} must be even, for pairs of draws m ± s ε, got {M}")
    return int(M)


@door("w key X steps starts draws start:gaussian-or-none", M=_pairs_of)
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
    """q_i = argmax_q L(w,q), along ∇ 1/M Σ_s [log p(x_i,t_s|w) − log q(t_s)], t_s = m_i + s_i ε_s, ε_s ~ N(0, I).

    q is N(m_i, diag s_i²), or with `full` has any covariance. The slope of log q at a fixed t_s has mean 0, so it is
    left out. After Ctrl-C the function returns what it has found so far.

    Args:
        w: decoder, any latent dimension.
        X: [N, D], data, all at once.
        start: a q for each datum from which to go on, m [N, d]; it also sets the family of q. Without one, each datum
            starts from `starts` places where draws from the prior are likely, and the best result is kept. This finds
            some of several modes, not necessarily all.
        key: random key.
        full: whether q has any covariance, if there is no start.
        starts: number of starts for each datum, if there is no start.
        steps: number of steps of Adam.
        M: number of draws in a step, even. They come in pairs m ± s ε, in which odd terms in ε cancel.
        draws: number of draws by which the bounds are measured at the end.
        progress: whether to show the bars, one for each stage.

    Returns:
        The best q and its bound for each datum, and what every start found.

    Raises:
        ValueError: if shapes do not fit, if a count is below 1, if M is odd, if key is not a typed key, or if log
            p(x,t|w) or a slope of the decoder is not finite where a start ends its search for a mode.
        NotFinite: if a step or a final bound is not finite; it holds the step, what was seen there and the last good q.

    Warns:
        RuntimeWarning: if, judging by its slope, the bound would still rise by more than 10 nats for a datum, or by
            more than half a nat on average. With fewer than 16 draws this is not measured.

    Source: after Slide 19; Kingma and Welling 2014; Roeder, Wu and Duvenaud 2017 (the part of the gradient that is left
    out).
    """
    key_start, key_climb, key_bound = jax.random.split(key, 3)
    key_rise = jax.random.fold_in(key, 3)
    if start is None:
        q, log_p, decoded = _starts(w, X, starts, full, key_start)
        at_modes(w, q.m, log_p, q.L if full else q.log_s)
        evaluations = starts * LOOKED_AT + int(decoded)
    else:
        q, evaluations = jax.tree.map(lambda part: part[None], start), 0
    q, trace, interrupted = _climb(w, X, q, steps, M, key_climb, progress)
    K, N = q.m.shape[:2]
    evaluations += len(trace) * M * K * N + draws * K * N
    values = _log_weights(w, q, X, draws, key_bound)
    chosen, bound, error = _best(values, q)
    if said := nan_among(bound, w, w, chosen, X, draws, jax.random.split(key_bound, N)):
        raise NotFinite(f"in the end, {said}", len(trace), Ascent(chosen, trace))
    if draws >= RISE and not interrupted:
        evaluations += 2 * RISE * N
        _warn_if_rising(gathered(_rise(w, X, chosen, key_rise)), len(trace))
    return Fitted(chosen, bound, error, trace, evaluations, interrupted)


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


@eqx.filter_jit
def _moved(move: _Move, q: Any) -> Any:
    return move(q)


@eqx.filter_jit
def _best(values: Float[Array, "K N M"], q: Any) -> tuple[Any, Array, Array]:
    """For each datum the q of the highest bound, that bound, and its standard error."""
    bounds = values.mean(axis=2)
    # A start whose bound is NaN counts as the lowest of all.
    best = jnp.nanargmax(bounds, axis=0), jnp.arange(values.shape[1])
    error = values.std(axis=2)[best] / np.sqrt(values.shape[2])
    return jax.tree.map(lambda part: part[best], q), bounds[best], error


def _still(q: Any) -> _Move:
    return _Move(jnp.zeros_like(q.m), jnp.zeros_like(q.m), jnp.zeros_like(q.L) if hasattr(q, "L") else None)


def _climb(
    w: Any, X: Array, q: Any, steps: int, M: int, key: Array, progress: bool
) -> tuple[Any, Float[np.ndarray, "steps"], bool]:
    trace, first = np.zeros(0), np.rint(steps * np.cumsum([0, *(share for share, _ in STAGES)])).astype(int)
    for stage, (_, rate) in enumerate(STAGES):
        taken = int(first[stage + 1] - first[stage])
        if not taken:
            continue
        problem, key_stage = _Problem(w, X, q, M), jax.random.fold_in(key, stage)
        try:
            found = ascend(
                _mean_bound, _still(q), problem, steps=taken, key=key_stage, learning_rate=rate, progress=progress
            )
        except NotFinite as error:
            seen = with_facts(error, _seen(error.ascent.w(q), problem, jax.random.fold_in(key_stage, error.step)))
            good = Ascent(error.ascent.w(q), np.concatenate([trace, error.ascent.trace]))
            raise NotFinite(f"in stage {stage + 1} of {len(STAGES)}, {seen}", len(good.trace), good) from error
        q, trace = _moved(found.w, q), np.concatenate([trace, found.trace])
        if found.interrupted:
            return q, trace, True
    return q, trace, False


@eqx.filter_jit
def _rise(w: Any, X: Array, q: Any, key: Array) -> Float[Array, "N"]:
    """½ |∂L/∂u|² + ¼ |∂L/∂a|²: the nats that one Newton step in q's own units would still add to each datum's bound.

    This holds if the bound has the curvature of that of a Gaussian posterior. Two independent estimates of the slope
    are multiplied, so that their noise adds nothing in expectation.
    """
    problem = _Problem(w, X, jax.tree.map(lambda part: part[None], q), RISE)
    # In a loop, so that the gradient, which takes longest to compile, is compiled once.
    slopes = jax.lax.map(lambda key: jax.grad(_mean_bound)(_still(problem.q), problem, key), jax.random.split(key))
    return len(X) ** 2 * jnp.sum(0.5 * slopes.u[0] * slopes.u[1] + 0.25 * slopes.a[0] * slopes.a[1], axis=2)[0]


def _warn_if_rising(rise: np.ndarray, steps: int) -> None:
    if rise.max() > UNCLIMBED or rise.mean() > UNCLIMBED_MEAN:
        warn(
            f"fit_q has not converged in {steps} steps: by its slope the bound would still rise by about"
            f" {rise.mean():.2g} nats a datum, and by {rise.max():.2g} for X[{int(rise.argmax())}]. Take more steps, or"
            " leave out start",
        )


class _Problem(eqx.Module):
    """What a step needs besides the move: the decoder, the data, q before the move and the number of draws."""

    w: Any
    X: Float[Array, "N D"]
    q: Any
    M: int = eqx.field(static=True)


def _mean_bound(move: _Move, problem: _Problem, key: Key[Array, ""]) -> Float[Array, ""]:
    q = move(problem.q)
    # The slope of log q at a fixed t has mean zero and is left out. What remains has no noise once q is p(t|x,w).
    return jnp.mean(_log_ratios(jax.lax.stop_gradient(q), _pairs(q, problem.M, key), problem))


def _pairs(q: Any, M: int, key: Key[Array, ""]) -> Float[Array, "M K N d"]:
    T = q.sample(M=M // 2, key=key)
    return jnp.concatenate([T, 2 * q.m[None] - T])


def _log_ratios(q: Any, T: Float[Array, "M K N d"], problem: _Problem) -> Float[Array, "M K N"]:
    def one(x: Array, q: Any, t: Array) -> Array:
        return log_p_xt(problem.w, x, t) - q.log_q(t)

    return jax.vmap(jax.vmap(jax.vmap(one), (None, 0, 0)), (None, None, 0))(problem.X, q, T)


def _seen(q: Any, problem: _Problem, key: Key[Array, ""]) -> str:
    """Where a draw of the step that failed has no finite log p(x,t|w) − log q(t); nothing if every draw has one."""
    T = _pairs(q, problem.M, key)
    bad = ~jnp.isfinite(_log_ratios(q, T, problem))
    if not bool(bad.any()):
        return ""
    s, k, i = (int(part) for part in np.unravel_index(int(jnp.argmax(bad)), bad.shape))
    return nan_at(problem.w, jax.tree.map(lambda part: part[k, i], q), T[s, k, i], i)


@eqx.filter_jit
def _log_weights(w: Any, q: Any, X: Array, draws: int, key: Array) -> Float[Array, "K N M"]:
    return jax.lax.map(lambda q: log_weights(w, q, X, M=draws, key=key), q)


@eqx.filter_jit
def _starts(w: Any, X: Array, starts: int, full: bool, key: Array) -> tuple[Any, Array, Array]:
    """Starts at modes near the likeliest of some draws from the prior, with widths from the decoder's slopes there.

    Returns q, m [K, N, d]; log p(x,t|w) at m, [K, N]; and the number of decoder evaluations in the climbs.
    """

    def of_one_key(key: Array) -> tuple[Array, ...]:
        T = jax.random.normal(key, (LOOKED_AT, w.latent_dim), X.dtype)
        likeliest = T[jnp.nanargmax(log_p_x_given_t_table(w, X, T), axis=1)]
        m, log_p, decoded = jax.vmap(lambda x, t: mode.climb(w, x, t, CLIMB, NEAR))(X, likeliest)
        return m, jax.vmap(lambda t: mode.scale(w, t) if full else log_s(t))(m), log_p, decoded

    def log_s(t: Array) -> Array:
        return -0.5 * jnp.log(jnp.diagonal(mode.precision(w, t)))

    m, width, log_p, decoded = jax.lax.map(of_one_key, jax.random.split(key, starts))
    return FullGaussian(m, width) if full else Gaussian(m, width), log_p, decoded.sum()
