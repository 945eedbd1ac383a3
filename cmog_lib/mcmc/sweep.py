"""Every chain of every datum, step after step: one chain's step under two vmaps, inside one compiled scan."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from cmog_lib.mcmc.steps import Move, State, hmc_step, metropolis_step


class Adaptation(NamedTuple):
    """Dual averaging of log step towards an acceptance: the running error, the average to be kept, the steps taken."""

    log_step: Array
    average: Array
    error: Array
    steps: Array
    origin: Array


@eqx.filter_jit
def sweep(
    w: Any,
    X: Array,
    states: State,
    scale: Array,
    step: Array,
    key: Array,
    M: int,
    warm_up: int,
    adapt: bool,
    target: Array,
    leapfrogs: int | None,
) -> tuple[Array, Array, Array, Array]:
    """The draws t [C, M, N, d]; mean acceptance, number of divergent steps and the step they were taken with, [C, N].

    leapfrogs: of a Hamiltonian step; None for Metropolis. adapt: whether the warm_up steps change `step`.
    """
    C, N = states.log_p.shape

    def one(x: Array, state: State, scale: Array, step: Array, key: Array) -> Move:
        if leapfrogs is None:
            return metropolis_step(w, x, state, step=step, scale=scale, key=key)
        key_jitter, key = jax.random.split(key)
        jittered = step * jax.random.uniform(key_jitter, (), step.dtype, 0.8, 1.2)
        return hmc_step(w, x, state, step=jittered, scale=scale, leapfrogs=leapfrogs, key=key)

    over_data = jax.vmap(one)
    over_chains = jax.vmap(over_data, in_axes=(None, 0, None, 0, 0))

    # One loop for both phases: the step of a chain, by far the most to compile, is then compiled once.
    def move(carry: tuple[State, Adaptation], now: tuple[Array, Array]) -> tuple[tuple[State, Adaptation], Any]:
        (states, adaptation), (key, adapting) = carry, now
        step = jnp.exp(jnp.where(adapting, adaptation.log_step, adaptation.average))
        moved = over_chains(X, states, scale, step, jax.random.split(key, (C, N)))
        adapted = _adapted(adaptation, moved.acceptance, target)
        adaptation = jax.tree.map(lambda new, old: jnp.where(adapting, new, old), adapted, adaptation)
        return (moved.state, adaptation), (moved.state.t, moved.acceptance, moved.divergent)

    zero = jnp.zeros_like(step)
    begin = Adaptation(jnp.log(step), jnp.log(step), zero, zero, jnp.log(10 * step))
    adapting = (jnp.arange(warm_up + M) < warm_up) & adapt
    (_, end), made = jax.lax.scan(move, (states, begin), (jax.random.split(key, warm_up + M), adapting))
    t, acceptance, divergent = jax.tree.map(lambda a: a[warm_up:], made)
    return jnp.moveaxis(t, 0, 1), acceptance.mean(axis=0), divergent.sum(axis=0), jnp.exp(end.average)


def _adapted(a: Adaptation, acceptance: Array, target: Array) -> Adaptation:
    """One step of Nesterov's dual averaging, with the constants of Hoffman and Gelman 2014, §3.2."""
    steps = a.steps + 1
    share = 1 / (steps + 10)
    error = (1 - share) * a.error + share * (target - acceptance)
    log_step = a.origin - jnp.sqrt(steps) / 0.05 * error
    forget = steps**-0.75
    return Adaptation(log_step, forget * log_step + (1 - forget) * a.average, error, steps, a.origin)
