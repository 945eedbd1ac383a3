"""What a warm-up learns: how long a step should be, and in which units of each posterior."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

OWN = 0.03  # share of a chain's own acceptance in its step; the rest is the mean of all
FEWEST = 20  # steps of warm-up below which only the step is learnt: from half as many, a scale is not made better
PRIOR = 1.0  # draws that the old scale counts for, beside those seen


class Step(NamedTuple):
    """Dual averaging of log step towards an acceptance: the running error, the average to be kept, the steps taken."""

    log_step: Float[Array, "C N"]
    average: Float[Array, "C N"]
    error: Float[Array, "C N"]
    steps: Float[Array, "C N"]
    origin: Float[Array, "C N"]


def step_from(log_step: Float[Array, "C N"]) -> Step:
    """Where the averaging begins: at a step, and pulled towards ten times as long a one."""
    zero = jnp.zeros_like(log_step)
    return Step(log_step, log_step, zero, zero, log_step + jnp.log(10.0).astype(log_step.dtype))


def better_step(a: Step, acceptance: Float[Array, "C N"], target: Float[Array, ""], longest: float) -> Step:
    """One step of Nesterov's dual averaging, with the constants of Hoffman and Gelman 2014, §3.2; none beyond longest.

    In units of their own scale all posteriors want much the same step, and all chains together know it after a few
    draws where one alone would still be guessing. A chain for which it will not do finds its own, though slowly.
    """
    acceptance = (1 - OWN) * acceptance.mean() + OWN * acceptance
    steps = a.steps + 1
    share = 1 / (steps + 10)
    error = (1 - share) * a.error + share * (target - acceptance)
    log_step = jnp.minimum(a.origin - jnp.sqrt(steps) / 0.05 * error, math.log(longest))
    forget = steps**-0.75
    return Step(log_step, forget * log_step + (1 - forget) * a.average, error, steps, a.origin)


class Seen(NamedTuple):
    """Sums over draws, for each datum: of t and the slope g = ∇log p(x,t|w), chain by chain, and of ttᵀ and ggᵀ.

    t is counted from `origin`, where its chain began.
    """

    origin: Float[Array, "C N d"]
    t: Float[Array, "C N d"]
    g: Float[Array, "C N d"]
    tt: Float[Array, "N d d"]
    gg: Float[Array, "N d d"]
    draws: Float[Array, ""]


def nothing_seen(states: Any) -> Seen:
    """Before the first draw."""
    zero = jnp.zeros_like(states.t)
    square = jnp.zeros((*states.t.shape[1:], states.t.shape[-1]), states.t.dtype)
    return Seen(states.t, zero, zero, square, square, jnp.zeros((), states.t.dtype))


def see(seen: Seen, states: Any) -> Seen:
    """One draw more of every chain."""
    t, g = states.t - seen.origin, states.gradient
    tt, gg = (old + jnp.einsum("cni,cnj->nij", a, a) for old, a in ((seen.tt, t), (seen.gg, g)))
    return Seen(seen.origin, seen.t + t, seen.g + g, tt, gg, seen.draws + 1)


def scale_from(seen: Seen, scale: Float[Array, "N d d"]) -> Float[Array, "N d d"]:
    """L with Σ = LLᵀ, ΣGΣ = C: C the covariance of a datum's draws, G that of their slopes ∇log p(x,t|w).

    scale: the old L, in whose units both are pulled towards I, as if they had been I for PRIOR draws more. A Gaussian's
    slopes are −Σ⁻¹(t − m): d + 1 of them tell Σ without error, and of no other Gaussian are the slopes nearer to those
    seen (in mean square, in units of Σ). Draws alone need hundreds. Source: Seyboldt, Carlson and Carpenter 2026.
    """
    C, _, d = seen.t.shape
    n, identity = C * seen.draws, jnp.eye(d, dtype=scale.dtype)[None]

    def covariance(square: Array, total: Array, to_units: Array) -> Array:
        around = square - jnp.einsum("cni,cnj->nij", total, total) / jnp.maximum(seen.draws, 1)
        return (to_units @ around @ jnp.swapaxes(to_units, 1, 2) + PRIOR * identity) / (n + PRIOR)

    inverse = jax.scipy.linalg.solve_triangular(scale, jnp.broadcast_to(identity, scale.shape), lower=True)
    of_draws = covariance(seen.tt, seen.t, inverse)
    of_slopes = covariance(seen.gg, seen.g, jnp.swapaxes(scale, 1, 2))
    # G = UUᵀ: then (UᵀΣU)² = UᵀCU, and what is left is the root of a symmetric matrix.
    U = jnp.linalg.cholesky(of_slopes)
    squares, V = jnp.linalg.eigh(jnp.swapaxes(U, 1, 2) @ of_draws @ U)
    squares = squares.clip(jnp.finfo(scale.dtype).eps * squares[:, -1:])  # which rounding may have made negative
    half = jax.scipy.linalg.solve_triangular(U, V * squares[:, None] ** 0.25, lower=True, trans=1)
    sigma = half @ jnp.swapaxes(half, 1, 2)
    return scale @ jnp.linalg.cholesky(sigma)
