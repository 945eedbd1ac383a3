"""Chains for all data at once: the steps of one chain and one datum, under vmap, inside one compiled scan."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cmog_lib import _validate
from cmog_lib.decoders import Decoder, as_module
from cmog_lib.mcmc.steps import Move, State, hmc_step, metropolis_step, state_at
from cmog_lib.posteriors import FullGaussian, Weighted

FEW = 50  # draws below which a chain that stands still is not reported


class Chains(eqx.Module):
    """T_s ~ p(T|X,w), s = 1 … M, from C chains for each of N data, and how they got there.

    t: [C, M, N, d], the draws. acceptance: [C, N], mean probability of a step to be taken. divergent: [C, N], how many
    steps were not, because the trajectory flew off. step: [C, N], the length that adaptation ended with. scale:
    [N, d, d], in whose units it is. evaluations: how many latents were decoded in all.
    """

    t: Float[Array, "C M N d"]
    acceptance: Float[Array, "C N"]
    divergent: Int[Array, "C N"]
    step: Float[Array, "C N"]
    scale: Float[Array, "N d d"]
    evaluations: int = eqx.field(static=True)

    @property
    def last(self) -> Float[Array, "C N d"]:
        """Where the chains stand, to go on from."""
        return self.t[:, -1]

    @property
    def mean(self) -> Float[Array, "N d"]:
        """E_q t ≈ 1/(CM) Σ t_s, for each datum."""
        return self.t.mean(axis=(0, 1))

    @property
    def effective_sample_size(self) -> Float[np.ndarray, "N d"]:
        """How many independent draws would tell the mean of t_j as well, at most CM log₁₀ CM.

        Draws that turn round the mean tell it better than independent ones; how much better, an estimate from few draws
        cannot say, hence the cap. Source: NumPyro; the cap: Vehtari et al. 2021, §3.2.
        """
        from numpyro.diagnostics import effective_sample_size

        estimate, draws = effective_sample_size(np.asarray(self.t, np.float64)), self.t.shape[0] * self.t.shape[1]
        most = draws * max(np.log10(draws), 1)
        return np.where((estimate > 0) & (estimate < most), estimate, most)

    @property
    def r_hat(self) -> Float[np.ndarray, "N d"]:
        """Split R̂: how much wider all chains together are than each half of one. 1 where they agree, right or wrong."""
        from numpyro.diagnostics import split_gelman_rubin

        return split_gelman_rubin(np.asarray(self.t, np.float64))

    def posterior(self, i: int) -> Weighted:
        """q_i: the draws of datum i, all with the same weight. Raises ValueError when there is no such datum."""
        t = self.t[:, :, _validate.count("i", i, 0, self.t.shape[2] - 1)].reshape(-1, self.t.shape[3])
        return Weighted(t, jnp.full(len(t), -jnp.log(len(t)), t.dtype))


class Adaptation(NamedTuple):
    """Dual averaging of log step towards an acceptance: the running error, the average to be kept, the steps taken."""

    log_step: Array
    average: Array
    error: Array
    steps: Array
    origin: Array


def metropolis(
    w: Decoder,
    X: Float[Array, "N D"],
    start: FullGaussian | Chains | Float[Array, "C N d"],
    *,
    M: int,
    key: Key[Array, ""],
    chains: int = 4,
    warm_up: int = 200,
    step: float | None = None,
    target: float = 0.35,
) -> Chains:
    """T_s ~ p(T|X,w) by Metropolis steps t' = t + step·L_i ε, one chain for each datum and each of C starting points.

    w: decoder, any latent dimension. X: [N, D], data. start: a Gaussian for each datum (`laplace`), of which the chains
    start as draws and whose L is their scale; Chains, to go on where they stand; or points [C, N, d], with scale I.
    M: draws that are kept, after warm_up more that adapt the step to an acceptance of target. step: fixes it instead.
    Warns (RuntimeWarning) of chains that never moved. Raises ValueError for M < 1, shapes that do not fit, and a start
    at which log p(x,t|w) is not finite, naming it. Slide 15.
    """
    return _run(w, X, start, M, key, chains, warm_up, step, target, None)


def hmc(
    w: Decoder,
    X: Float[Array, "N D"],
    start: FullGaussian | Chains | Float[Array, "C N d"],
    *,
    M: int,
    key: Key[Array, ""],
    chains: int = 4,
    warm_up: int = 100,
    step: float | None = None,
    target: float = 0.8,
    leapfrogs: int = 2,
) -> Chains:
    """T_s ~ p(T|X,w) by Hamiltonian steps of `leapfrogs` leapfrogs: short trajectories, each step jittered by a fifth.

    Arguments, warnings and errors as in `metropolis`; also warns of trajectories that flew off. Slide 15.
    In units of the posterior's own scale a step comes out near 0.8, so that two leapfrogs turn a quarter of a circle,
    after which a Gaussian's next draw is independent of the last; four would turn it back.
    """
    return _run(w, X, start, M, key, chains, warm_up, step, target, _validate.count("leapfrogs", leapfrogs))


def _run(
    w: Any,
    X: Array,
    start: Any,
    M: int,
    key: Array,
    chains: int,
    warm_up: int,
    step: float | None,
    target: float,
    leapfrogs: int | None,
) -> Chains:
    w = as_module(_validate.decoder(w))
    X, key = _validate.array("X", X, ("N", w.data_dim)), _validate.key(key)
    M, warm_up = _validate.count("M", M), _validate.count("warm_up", warm_up, 0)
    if not 0 < target < 1:
        raise ValueError(f"target must be an acceptance between 0 and 1, got {target}")
    key, key_start = jax.random.split(key)
    t, scale, first = _start(start, w, X, chains, key_start)
    adapt = step is None and warm_up > 0
    first = first if step is None else jnp.full_like(first, _validate.positive("step", step))
    states = _states(w, X, t)
    bad = np.argwhere(~np.isfinite(np.asarray(states.log_p)))
    if len(bad):
        c, i = bad[0].tolist()
        raise ValueError(
            f"start must be where log p(x,t|w) is finite, got {float(states.log_p[c, i])} for chain {c} of X[{i}],"
            f" at t = {np.asarray(t[c, i]).round(6).tolist()}"
        )
    made = _scan(w, X, states, scale, first, key, M, warm_up, adapt, jnp.asarray(target, X.dtype), leapfrogs)
    each = leapfrogs or 1
    found = Chains(*made, scale, evaluations=t.shape[0] * len(X) * (each * (M + warm_up) + 1))
    _report(found)
    return found


def _start(start: Any, w: Any, X: Array, chains: int, key: Array) -> tuple[Array, Array, Array]:
    """t [C, N, d], scale [N, d, d], step [C, N]."""
    N, d = len(X), w.latent_dim
    if isinstance(start, Chains):
        return start.last, start.scale, start.step
    if isinstance(start, FullGaussian):
        _validate.array("start.m", start.m, (N, d))
        t, scale = start.sample(_validate.count("chains", chains), key=key), start.L
    else:
        t = _validate.array("start", start, ("C", N, d))
        scale = jnp.broadcast_to(jnp.eye(d, dtype=t.dtype), (N, d, d))
    return t, scale, jnp.full(t.shape[:2], d**-0.25, t.dtype)


@eqx.filter_jit
def _states(w: Any, X: Array, t: Array) -> State:
    over_data = jax.vmap(state_at, in_axes=(None, 0, 0))
    return jax.vmap(over_data, in_axes=(None, None, 0))(w, X, t)


@eqx.filter_jit
def _scan(
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
    C, N = states.log_p.shape

    def one(x: Array, state: State, scale: Array, step: Array, key: Array) -> Move:
        if leapfrogs is None:
            return metropolis_step(w, x, state, step=step, scale=scale, key=key)
        key_jitter, key = jax.random.split(key)
        jittered = step * jax.random.uniform(key_jitter, (), step.dtype, 0.8, 1.2)
        return hmc_step(w, x, state, step=jittered, scale=scale, leapfrogs=leapfrogs, key=key)

    over_data = jax.vmap(one)
    over_chains = jax.vmap(over_data, in_axes=(None, 0, None, 0, 0))

    def move(states: State, step: Array, key: Array) -> Move:
        return over_chains(X, states, scale, step, jax.random.split(key, (C, N)))

    def warm(carry: tuple[State, Adaptation], key: Array) -> tuple[tuple[State, Adaptation], None]:
        states, adaptation = carry
        moved = move(states, jnp.exp(adaptation.log_step), key)
        return (moved.state, _adapted(adaptation, moved.acceptance, target)), None

    def draw(states: State, key: Array) -> tuple[State, Move]:
        moved = move(states, step, key)
        return moved.state, moved

    key_warm, key_draw = jax.random.split(key)
    if adapt:
        zero = jnp.zeros_like(step)
        begin = Adaptation(jnp.log(step), jnp.log(step), zero, zero, jnp.log(10 * step))
        (states, adaptation), _ = jax.lax.scan(warm, (states, begin), jax.random.split(key_warm, warm_up))
        step = jnp.exp(adaptation.average)
    elif warm_up:
        states, _ = jax.lax.scan(draw, states, jax.random.split(key_warm, warm_up))
    _, moves = jax.lax.scan(draw, states, jax.random.split(key_draw, M))
    return (
        jnp.moveaxis(moves.state.t, 0, 1),
        moves.acceptance.mean(axis=0),
        moves.divergent.sum(axis=0),
        step,
    )


def _adapted(a: Adaptation, acceptance: Array, target: Array) -> Adaptation:
    """One step of Nesterov's dual averaging, with the constants of Hoffman and Gelman 2014, §3.2."""
    steps = a.steps + 1
    share = 1 / (steps + 10)
    error = (1 - share) * a.error + share * (target - acceptance)
    log_step = a.origin - jnp.sqrt(steps) / 0.05 * error
    forget = steps**-0.75
    return Adaptation(log_step, forget * log_step + (1 - forget) * a.average, error, steps, a.origin)


def _report(found: Chains) -> None:
    steps = found.t.shape[1]
    # A few rejected steps say nothing yet: Monte Carlo EM takes no more than that between two decoders.
    stuck = np.argwhere(np.asarray(found.acceptance) < 1e-3) if steps >= FEW else np.empty((0, 2), int)
    flown = float(found.divergent.sum()) / (found.divergent.size * steps)
    if len(stuck):
        c, i = stuck[0].tolist()
        warnings.warn(
            f"{len(stuck)} of {found.acceptance.size} chains hardly ever moved, the first is chain {c} of X[{i}]"
            f" (acceptance {float(found.acceptance[c, i]):.1g}, step {float(found.step[c, i]):.2g}): start nearer to"
            f" the mass (laplace), take a smaller step or a longer warm_up",
            RuntimeWarning,
            stacklevel=4,
        )
    elif flown > 0.1:
        warnings.warn(
            f"{flown:.0%} of the trajectories flew off (divergent): take a smaller step, or a higher target",
            RuntimeWarning,
            stacklevel=4,
        )
