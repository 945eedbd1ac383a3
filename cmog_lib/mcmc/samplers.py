"""Metropolis and Hamiltonian chains for all data at once."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine.chains.sweep import sweep
from cmog_lib.engine.door import door
from cmog_lib.mcmc.chains import Chains, report
from cmog_lib.mcmc.start import acceptance, begin, place
from cmog_lib.mcmc.steps import hmc_step, metropolis_step
from cmog_lib.posteriors import FullGaussian


@door("w X key M warm_up:from-zero chains:count step:positive-or-none", start=place, target=acceptance)
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

    Args:
        w: decoder, any latent dimension.
        X: [N, D], data.
        start: a Gaussian for each datum (`laplace`): the chains start at draws from it, and its L is their scale. Or
            Chains, which are continued from their last draws. Or points [C, N, d], with scale I.
        M: number of draws to keep, of each chain and datum.
        key: random key.
        chains: number of chains C for each datum, if start is a Gaussian.
        warm_up: number of earlier draws, which adapt the step size to the target and are discarded.
        step: a fixed step size, in units of the scale; None adapts it.
        target: the acceptance to which the step size is adapted, between 0 and 1.

    Returns:
        `Chains`.

    Raises:
        ValueError: if M < 1, if the shapes do not fit, or if log p(x,t|w) is not finite at a start, naming it.

    Warns:
        RuntimeWarning: if chains hardly ever moved. From 50 draws on also if no chain of a datum moved in a coordinate
            of t, and if R̂ exceeds 1.05.

    Source: Slide 15.
    """
    return _run(w, X, start, M, key, chains, warm_up, step, target, None)


@door("w X key M warm_up:from-zero chains:count step:positive-or-none leapfrogs", start=place, target=acceptance)
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

    If the step size is adapted in 20 or more draws of warm_up, the scale of each datum is adapted halfway through too,
    from the draws and the gradients there. No trajectory is adapted to more than a quarter of a circle in these units:
    for a Gaussian, the next draw is then independent of the last, and twice that length only mirrors it. So for small d
    the acceptance stays above the target.

    Args:
        w: decoder, any latent dimension.
        X: [N, D], data.
        start: a Gaussian for each datum (`laplace`): the chains start at draws from it, and its L is their scale. Or
            Chains, which are continued from their last draws. Or points [C, N, d], with scale I.
        M: number of draws to keep, of each chain and datum.
        key: random key.
        chains: number of chains C for each datum, if start is a Gaussian.
        warm_up: number of earlier draws, which adapt the step size to the target and are discarded.
        step: a fixed step size, in units of the scale; None adapts it.
        target: the acceptance to which the step size is adapted, between 0 and 1.
        leapfrogs: number of leapfrog steps of a trajectory.

    Returns:
        `Chains`.

    Raises:
        ValueError: if M < 1, if the shapes do not fit, or if log p(x,t|w) or its gradient is not finite at a start,
            naming it.

    Warns:
        RuntimeWarning: if more than a tenth of the trajectories diverged, or if chains hardly ever moved. From 50 draws
            on also if no chain of a datum moved in a coordinate of t, and if R̂ exceeds 1.05.

    Source: Slide 15.
    """
    return _run(w, X, start, M, key, chains, warm_up, step, target, leapfrogs)


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
    at = begin(w, X, start, target, chains, key, slopes=leapfrogs is not None)
    adapt = step is None and warm_up > 0
    first = at.step if step is None else jnp.full_like(at.step, step)
    move = metropolis_step if leapfrogs is None else hmc_step
    made = sweep(move, at.w, at.X, at.states, at.scale, first, at.key, M, warm_up, adapt, at.target, leapfrogs)
    latents = at.states.log_p.size * ((leapfrogs or 1) * (M + warm_up) + 1)
    return report(Chains(*made, evaluations=latents))
