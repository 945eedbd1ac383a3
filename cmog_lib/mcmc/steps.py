"""One step of one chain for one datum: Metropolis and Hamiltonian Monte Carlo, as the lecture draws them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import array, door, kind
from cmog_lib.model import log_p_xt

DIVERGENT = 1000.0  # nats: a trajectory that gains as much energy counts as divergent


class State(NamedTuple):
    """The state of a chain: t [d], with log p(x,t|w) and its gradient there, so that neither is computed twice.

    Attributes:
        t: [d], the latent.
        log_p: log p(x,t|w), in nats.
        gradient: [d], ∇_t log p(x,t|w). Infinite after an accepted Metropolis step, which does not compute it; call
            `state_at` before a Hamiltonian step.
    """

    t: Float[Array, "*batch d"]
    log_p: Float[Array, "*batch"]
    gradient: Float[Array, "*batch d"]


class Move(NamedTuple):
    """Result of one step of a chain.

    Attributes:
        state: the new state.
        path: [leapfrogs, d], every t on the way to the proposal, which is the last one; [1, d] for Metropolis.
        acceptance: the probability of accepting the proposal.
        divergent: whether the trajectory diverged.
    """

    state: State
    path: Float[Array, "*batch leapfrogs d"]
    acceptance: Float[Array, "*batch"]
    divergent: Bool[Array, "*batch"]


def _state(name: str, value: Any, given: dict[str, Any]) -> State:
    state = kind(name, value, State, advice="as state_at makes it")
    array(f"{name}.t", state.t, (given["w"].latent_dim,))
    return state


def _state_with_slope(name: str, value: Any, given: dict[str, Any]) -> State:
    state = _state(name, value, given)
    array(f"{name}.gradient", state.gradient, (given["w"].latent_dim,))  # infinite after a Metropolis step
    return state


@door("w:decoder x t")
def state_at(w: Decoder, x: Float[Array, "D"], t: Float[Array, "d"]) -> State:
    """t with log p(x,t|w) and ∇_t log p(x,t|w).

    The posterior's normaliser p(x|w) is not needed: it does not depend on t.

    Args:
        w: decoder.
        x: [D], one datum.
        t: [d], one latent.

    Returns:
        A `State`.

    Raises:
        ValueError: if the shapes of x and t do not fit the decoder.
    """
    log_p, gradient = jax.value_and_grad(lambda t: log_p_xt(w, x, t))(t)
    return State(t, log_p, gradient)


@door("w:decoder x step:number scale:[d,d] key", state=_state)
def metropolis_step(
    w: Decoder, x: Float[Array, "D"], state: State, *, step: Any, scale: Float[Array, "d d"], key: Key[Array, ""]
) -> Move:
    """t' = t + step·Lε, ε ~ N(0, I), accepted with probability min(1, p(x,t'|w) / p(x,t|w)); else t stays.

    Args:
        w: decoder.
        x: [D], one datum.
        state: current state of the chain, as `state_at` or an earlier step returns it.
        step: the step size, in units of the scale.
        scale: [d, d], L, roughly a Cholesky factor of the posterior's covariance.
        key: random key.

    Returns:
        A `Move`.

    Raises:
        ValueError: if the shapes do not fit.

    Source: Slide 15; Metropolis et al. 1953.
    """
    key_proposal, key_accept = jax.random.split(key)
    epsilon = jax.random.normal(key_proposal, state.t.shape, state.t.dtype)
    proposal = state.t + step * scale @ epsilon
    unknown = jnp.full_like(state.gradient, jnp.inf)  # Metropolis does not use the gradient, so it is not computed
    new = State(proposal, log_p_xt(w, x, proposal), unknown)
    kept, acceptance = accept(state, new, new.log_p - state.log_p, key_accept)
    # A proposal may be bad, but it cannot diverge.
    return Move(kept, proposal[None], acceptance, jnp.zeros_like(acceptance, bool))


@door("w:decoder x step:number scale:[d,d] leapfrogs key", state=_state_with_slope)
def hmc_step(
    w: Decoder,
    x: Float[Array, "D"],
    state: State,
    *,
    step: Any,
    scale: Float[Array, "d d"],
    leapfrogs: int,
    key: Key[Array, ""],
) -> Move:
    """(t', p') = leapfrog(t, p), p ~ N(0, I), accepted with probability min(1, exp(H(t, p) − H(t', p'))).

    The energy is H = −log p(x,t|w) + ½|p|². A trajectory that gains 1000 nats or more of it counts as divergent.

    Args:
        w: decoder.
        x: [D], one datum.
        state: current state of the chain, with a gradient, as `state_at` returns it.
        step: the step size of the leapfrog, in units of the scale.
        scale: [d, d], L, roughly a Cholesky factor of the posterior's covariance, which is the inverse mass.
        leapfrogs: number of leapfrog steps of the trajectory; each costs one decoder evaluation.
        key: random key.

    Returns:
        A `Move`.

    Raises:
        ValueError: if the shapes do not fit, or leapfrogs is below 1.

    Source: Slide 15; Neal 2011, §§2–3.
    """
    key_momentum, key_accept = jax.random.split(key)
    momentum = jax.random.normal(key_momentum, state.t.shape, state.t.dtype)
    new, p, path = leapfrog(w, x, state, momentum, step=step, scale=scale, leapfrogs=leapfrogs)
    gained = new.log_p - state.log_p - 0.5 * (jnp.sum(p**2) - jnp.sum(momentum**2))
    kept, acceptance = accept(state, new, gained, key_accept)
    return Move(kept, path, acceptance, ~(gained > -DIVERGENT))


@door("w:decoder x momentum:[d] step:number scale:[d,d] leapfrogs", state=_state_with_slope)
def leapfrog(
    w: Decoder,
    x: Float[Array, "D"],
    state: State,
    momentum: Float[Array, "d"],
    *,
    step: Any,
    scale: Float[Array, "d d"],
    leapfrogs: int,
) -> tuple[State, Float[Array, "d"], Float[Array, "leapfrogs d"]]:
    """p' = p + ½ step·Lᵀ∇log p(x,t|w), t' = t + step·L p', p'' = p' + ½ step·Lᵀ∇log p(x,t'|w), `leapfrogs` times.

    Args:
        w: decoder.
        x: [D], one datum.
        state: where the trajectory starts, with a gradient, as `state_at` returns it.
        momentum: [d], p at the start.
        step: the step size, in units of the scale.
        scale: [d, d], L, roughly a Cholesky factor of the posterior's covariance, which is the inverse mass.
        leapfrogs: number of leapfrog steps; each costs one decoder evaluation.

    Returns:
        The last state, the last momentum [d], and every t on the way [leapfrogs, d].

    Raises:
        ValueError: if the shapes do not fit, or leapfrogs is below 1.

    Source: Neal 2011, §2.3.
    """

    def leap(carry: tuple[State, Array], _: None) -> tuple[tuple[State, Array], Array]:
        here, p = carry
        p = p + 0.5 * step * scale.T @ here.gradient
        there = state_at(w, x, here.t + step * scale @ p)
        return (there, p + 0.5 * step * scale.T @ there.gradient), there.t

    (new, p), path = jax.lax.scan(leap, (state, momentum), length=leapfrogs)
    return new, p, path


def accept(state: State, new: State, log_ratio: Array, key: Array) -> tuple[State, Array]:
    """The new state with probability min(1, exp(log_ratio)), else the old one.

    Args:
        state: the current state.
        new: the proposal.
        log_ratio: logarithm of the acceptance ratio; NaN counts as a ratio of 0.
        key: random key.

    Returns:
        The next state, and the probability of accepting the proposal.
    """
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    accepted = jnp.log(jax.random.uniform(key, dtype=log_ratio.dtype)) < log_ratio
    kept = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, state)
    return kept, jnp.exp(jnp.minimum(log_ratio, 0))
