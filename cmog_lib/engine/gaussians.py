"""A Gaussian q for each datum and start that climbs its bound in units of its own width: long steps, then shorter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.engine import draws
from cmog_lib.engine.devices import gathered
from cmog_lib.engine.door import warn
from cmog_lib.engine.optimise.faults import Ascent, NotFinite, with_facts
from cmog_lib.engine.optimise.stochastic import ascend
from cmog_lib.posteriors import FullGaussian, Gaussian

# Shares of the steps and their lengths in units of q's own s: long steps first, shorter and less noisy ones later.
STAGES = ((0.4, 0.1), (0.3, 0.03), (0.3, 0.01))
RISE = 16  # draws for each of two estimates of the bound's slope at the end
UNCLIMBED, UNCLIMBED_MEAN = 10.0, 0.5  # nats that a datum's bound, and the mean of all, may still rise in one step
# From w, q [K, N], X and T [M, K, N, d]: log p(x_i,t|w) − log q(t), [M, K, N].
Ratios = Callable[[Any, Any, Array, Array], Array]


def climb(ratios: Ratios, w: Any, X: Array, q: Any, steps: int, M: int, key: Array, progress: bool) -> Ascent:
    """argmax_q E ratios(w, q, X, T), T ~ q, for each datum and start, by Adam on M draws; its w is q, m [K, N, d].

    Raises NotFinite with the stage, the step and the draw.
    """
    trace, first = np.zeros(0), np.rint(steps * np.cumsum([0, *(share for share, _ in STAGES)])).astype(int)
    for stage, (_, rate) in enumerate(STAGES):
        taken = int(first[stage + 1] - first[stage])
        if not taken:
            continue
        problem, key_stage = Problem(ratios, w, X, q, M), jax.random.fold_in(key, stage)
        options: Any = {"steps": taken, "key": key_stage, "learning_rate": rate, "progress": progress}
        try:
            found = ascend(_mean, _still(q), problem, **options)
        except NotFinite as error:
            seen = with_facts(error, _seen(error.ascent.w(q), problem, jax.random.fold_in(key_stage, error.step)))
            good = Ascent(error.ascent.w(q), np.concatenate([trace, error.ascent.trace]))
            raise NotFinite(f"in stage {stage + 1} of {len(STAGES)}, {seen}", len(good.trace), good) from error
        q, trace = _moved(found.w, q), np.concatenate([trace, found.trace])
        if found.interrupted:
            return Ascent(q, trace, True)
    return Ascent(q, trace)


def best(w: Any, X: Array, found: Ascent, M: int, key: Array) -> tuple[Any, Float[Array, "N"], Float[Array, "N"]]:
    """Of all starts the q with the highest bound, that bound by M draws and its standard error, for each datum."""
    chosen, bound, error = _best(w, X, found.w, M, key)
    if said := draws.nan_among(bound, w, w, chosen, X, M, jax.random.split(key, len(X))):
        raise NotFinite(f"in the end, {said}", len(found.trace), Ascent(chosen, found.trace))
    return chosen, bound, error


def warn_if_rising(ratios: Ratios, w: Any, X: Array, q: Any, steps: int, key: Array) -> int:
    """Warns of bounds that would still rise by many nats; returns how many latents were decoded to tell."""
    rise = gathered(_rise(ratios, w, X, q, key))
    if rise.max() > UNCLIMBED or rise.mean() > UNCLIMBED_MEAN:
        warn(
            f"fit_q has not converged in {steps} steps: by its slope the bound would still rise by about"
            f" {rise.mean():.2g} nats a datum, and by {rise.max():.2g} for X[{int(rise.argmax())}]. Take more steps, or"
            " leave out start",
        )
    return 2 * RISE * len(X)


class Move(eqx.Module):
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


class Problem(eqx.Module):
    """What a step needs besides the move: the bound, the decoder, the data, q before the move, the number of draws."""

    ratios: Ratios = eqx.field(static=True)
    w: Any
    X: Float[Array, "N D"]
    q: Any
    M: int = eqx.field(static=True)


def _still(q: Any) -> Move:
    return Move(jnp.zeros_like(q.m), jnp.zeros_like(q.m), jnp.zeros_like(q.L) if hasattr(q, "L") else None)


@eqx.filter_jit
def _moved(move: Move, q: Any) -> Any:
    return move(q)


def _mean(move: Move, problem: Problem, key: Key[Array, ""]) -> Float[Array, ""]:
    q = move(problem.q)
    return jnp.mean(problem.ratios(problem.w, q, problem.X, _pairs(q, problem.M, key)))


def _pairs(q: Any, M: int, key: Key[Array, ""]) -> Float[Array, "M K N d"]:
    """Draws of q in pairs m ± s ε, in which odd terms in ε cancel."""
    T = q.sample(M=M // 2, key=key)
    return jnp.concatenate([T, 2 * q.m[None] - T])


def _seen(q: Any, problem: Problem, key: Key[Array, ""]) -> str:
    """Where a draw of the step that failed has no finite log p(x,t|w) − log q(t); nothing if every draw has one."""
    T = _pairs(q, problem.M, key)
    bad = ~jnp.isfinite(problem.ratios(problem.w, q, problem.X, T))
    if not bool(bad.any()):
        return ""
    s, k, i = (int(part) for part in np.unravel_index(int(jnp.argmax(bad)), bad.shape))
    return draws.nan_at(problem.w, jax.tree.map(lambda part: part[k, i], q), T[s, k, i], i)


@eqx.filter_jit
def _best(w: Any, X: Array, q: Any, M: int, key: Array) -> tuple[Any, Array, Array]:
    values = jax.lax.map(lambda q: draws.log_weights(w, q, X, M, key), q)
    bounds = values.mean(axis=2)
    # A start whose bound is NaN counts as the lowest of all.
    best = jnp.nanargmax(bounds, axis=0), jnp.arange(len(X))
    return jax.tree.map(lambda part: part[best], q), bounds[best], values.std(axis=2)[best] / np.sqrt(M)


@eqx.filter_jit
def _rise(ratios: Ratios, w: Any, X: Array, q: Any, key: Array) -> Float[Array, "N"]:
    """½ |∂L/∂u|² + ¼ |∂L/∂a|²: the nats that one Newton step in q's own units would still add to each datum's bound.

    This holds if the bound has the curvature of that of a Gaussian posterior. Two independent estimates of the slope
    are multiplied, so that their noise adds nothing in expectation.
    """
    problem = Problem(ratios, w, X, jax.tree.map(lambda part: part[None], q), RISE)
    # In a loop, so that the gradient, which takes longest to compile, is compiled once.
    slopes = jax.lax.map(lambda key: jax.grad(_mean)(_still(problem.q), problem, key), jax.random.split(key))
    return len(X) ** 2 * jnp.sum(0.5 * slopes.u[0] * slopes.u[1] + 0.25 * slopes.a[0] * slopes.a[1], axis=2)[0]
