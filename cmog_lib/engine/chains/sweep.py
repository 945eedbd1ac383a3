"""Every chain of every datum, step after step: one chain's step under two vmaps, inside one compiled scan."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from cmog_lib.engine.chains.adapt import FEWEST, Seen, Step, better_step, nothing_seen, scale_from, see, step_from

Learnt = tuple[Step, Array, Seen]  # the step, the scale, and what the next scale will be learnt from


@eqx.filter_jit
def sweep(
    step_of: Any,
    w: Any,
    X: Array,
    states: Any,
    scale: Array,
    step: Array,
    key: Array,
    M: int,
    warm_up: int,
    adapt: bool,
    target: Array,
    leapfrogs: int | None,
) -> tuple[Array, Array, Array, Array, Array]:
    """The draws t [C, M, N, d]; mean acceptance, number of divergent steps and the step they were taken with, [C, N];
    and the scale [N, d, d], in whose units that is.

    step_of: one chain's step for one datum: `mcmc.metropolis_step`, for which leapfrogs is None, or `mcmc.hmc_step`.
    adapt: whether the warm_up steps change `step`, and, halfway through those of a Hamiltonian chain, which knows
    slopes, `scale`.
    """
    C, N = states.log_p.shape

    def one(x: Array, state: Any, scale: Array, step: Array, key: Array) -> Any:
        if leapfrogs is None:
            return step_of(w, x, state, step=step, scale=scale, key=key)
        key_jitter, key = jax.random.split(key)
        jittered = step * jax.random.uniform(key_jitter, (), step.dtype, 0.8, 1.2)
        return step_of(w, x, state, step=jittered, scale=scale, leapfrogs=leapfrogs, key=key)

    over_data = jax.vmap(one)
    over_chains = jax.vmap(over_data, in_axes=(None, 0, None, 0, 0))
    # A quarter of a circle in units of the scale, whatever the target: a longer way would end at the last draw's mirror
    # image, whose mean is better than it should be and whose square has learnt nothing.
    longest = math.inf if leapfrogs is None else 0.5 * math.pi / leapfrogs
    halfway = warm_up // 2 if adapt and leapfrogs is not None and warm_up >= FEWEST else 0

    def learn(learnt: Learnt, states: Any, acceptance: Array, number: Array) -> Learnt:
        step, scale, seen = better_step(learnt[0], acceptance, target, longest), *learnt[1:]
        if not halfway:
            return step, scale, seen
        seen = see(seen, states)

        def rescaled() -> tuple[Step, Array]:
            return step_from(step.average), scale_from(seen, scale)

        return *jax.lax.cond(number + 1 == halfway, rescaled, lambda: (step, scale)), seen

    # One loop for both phases: the step of a chain, by far the most to compile, is then compiled once.
    def move(carry: tuple[Any, Learnt], now: tuple[Array, Array]) -> tuple[tuple[Any, Learnt], Any]:
        (states, learnt), (key, number) = carry, now
        learning = (number < warm_up) & adapt
        step = jnp.exp(jnp.where(learning, learnt[0].log_step, learnt[0].average))
        moved = over_chains(X, states, learnt[1], step, jax.random.split(key, (C, N)))
        learnt = jax.lax.cond(learning, learn, lambda learnt, *_: learnt, learnt, moved.state, moved.acceptance, number)
        return (moved.state, learnt), (moved.state.t, moved.acceptance, moved.divergent)

    first = (states, (step_from(jnp.log(step)), scale, nothing_seen(states)))
    (_, (end, scale, _)), made = jax.lax.scan(
        move, first, (jax.random.split(key, warm_up + M), jnp.arange(warm_up + M))
    )
    t, acceptance, divergent = jax.tree.map(lambda a: a[warm_up:], made)
    return jnp.moveaxis(t, 0, 1), acceptance.mean(axis=0), divergent.sum(axis=0), jnp.exp(end.average), scale
