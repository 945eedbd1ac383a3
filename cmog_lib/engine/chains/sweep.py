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
ROOM = 32  # compiled for a multiple of so many steps, of which a run takes only its own: few lengths serve all M


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
    room = -(-(warm_up + M) // ROOM) * ROOM
    made = _sweep(step_of, w, X, states, scale, step, key, jnp.asarray(M), room, warm_up, adapt, target, leapfrogs)
    return made if room == warm_up + M else (made[0][:, :M], *made[1:])


@eqx.filter_jit
def _sweep(
    step_of: Any,
    w: Any,
    X: Array,
    states: Any,
    scale: Array,
    step: Array,
    key: Array,
    M: Array,
    room: int,
    warm_up: int,
    adapt: bool,
    target: Array,
    leapfrogs: int | None,
) -> tuple[Array, Array, Array, Array, Array]:
    """As `sweep`, with room for `room` − warm_up draws, of which M are made."""
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

    keys = jax.random.split(key, room)  # the first of many are those of few

    # One loop for both phases: the step of a chain, by far the most to compile, is then compiled once.
    def move(number: Array, carry: tuple[Any, Learnt, Any]) -> tuple[Any, Learnt, Any]:
        states, learnt, made = carry
        learning = (number < warm_up) & adapt
        step = jnp.exp(jnp.where(learning, learnt[0].log_step, learnt[0].average))
        moved = over_chains(X, states, learnt[1], step, jax.random.split(keys[number], (C, N)))
        learnt = jax.lax.cond(learning, learn, lambda learnt, *_: learnt, learnt, moved.state, moved.acceptance, number)
        now = moved.state.t, moved.acceptance, moved.divergent
        return moved.state, learnt, jax.tree.map(lambda all_, one: all_.at[number].set(one), made, now)

    dtype = states.log_p.dtype
    blank = jnp.zeros((room, *states.t.shape), dtype), jnp.zeros((room, C, N), dtype), jnp.zeros((room, C, N), bool)
    first = (states, (step_from(jnp.log(step)), scale, nothing_seen(states)), blank)
    _, (end, scale, _), made = jax.lax.fori_loop(0, warm_up + M, move, first)
    t, acceptance, divergent = jax.tree.map(lambda a: a[warm_up:], made)  # past the M draws there are zeros
    return jnp.moveaxis(t, 0, 1), acceptance.sum(axis=0) / M, divergent.sum(axis=0), jnp.exp(end.average), scale
