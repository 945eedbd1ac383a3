"""One step of one chain for one datum: Metropolis and Hamiltonian Monte Carlo, as the lecture draws them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import array, door, kind
from cmog_lib.model import log_p_xt

DIVERGENT = 1000.0  # nats of energy that a trajectory may lose before its step is called too long


class State(NamedTuple):
    """Where a chain stands: t [d], with log p(x,t|w) and its gradient there, so that neither is computed twice.

    After a Metropolis step that was accepted the gradient is infinite, for it was not computed. Call `state_at` before
    a Hamiltonian step.
    """

    t: Float[Array, "*batch d"]
    log_p: Float[Array, "*batch"]
    gradient: Float[Array, "*batch d"]


class Move(NamedTuple):
    """What became of one step: the new state, every t on the way to the one that was tried, the probability with which
    that is taken, and whether the way there flew off."""

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
    """t with log p(x,t|w) and ∇_t log p(x,t|w). The posterior's normaliser p(x|w) is not needed: it has no t.

    Raises ValueError when the shapes of x and t are not the decoder's.
    """
    log_p, gradient = jax.value_and_grad(lambda t: log_p_xt(w, x, t))(t)
    return State(t, log_p, gradient)


@door("w:decoder x step:number scale:[d,d] key", state=_state)
def metropolis_step(
    w: Decoder, x: Float[Array, "D"], state: State, *, step: Any, scale: Float[Array, "d d"], key: Key[Array, ""]
) -> Move:
    """t' = t + step·Lε, ε ~ N(0, I), accepted with probability min(1, p(x,t'|w) / p(x,t|w)); else t stays.

    w: decoder. x: [D], one datum. state: where the chain stands. step: how far it tries to go, in units of scale = L,
    [d, d], a Cholesky factor of roughly the posterior's covariance. Raises ValueError when the shapes do not fit.
    Slide 15. Source: Metropolis et al. 1953.
    """
    key_proposal, key_accept = jax.random.split(key)
    epsilon = jax.random.normal(key_proposal, state.t.shape, state.t.dtype)
    proposal = state.t + step * scale @ epsilon
    unknown = jnp.full_like(state.gradient, jnp.inf)  # Metropolis has no use for the gradient, and does not ask for it
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

    H = −log p(x,t|w) + ½|p|². w: decoder. x: [D], one datum. state: where the chain stands. step: of the leapfrog, in
    units of scale = L, [d, d], a Cholesky factor of roughly the posterior's covariance, which is the inverse mass.
    leapfrogs: steps of a trajectory, each of which asks the decoder once. Raises ValueError when the shapes do not fit,
    and for leapfrogs below 1. Slide 15. Source: Neal 2011, §§2–3.
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
    """p' = p + ½ step·Lᵀ∇log p(x,t|w), t' = t + step·L p', p'' = p' + ½ step·Lᵀ∇log p(x,t'|w), so many times.

    Returns the last state and momentum, and every t on the way. Arguments and errors as in `hmc_step`.
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
    """The new state with probability min(1, exp(log_ratio)), and that; a ratio that is no number counts as 0."""
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    accepted = jnp.log(jax.random.uniform(key, dtype=log_ratio.dtype)) < log_ratio
    kept = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, state)
    return kept, jnp.exp(jnp.minimum(log_ratio, 0))
