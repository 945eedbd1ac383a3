"""Chains for all data at once, by Metropolis and by Hamiltonian steps."""

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

    w: decoder, any latent dimension. X: [N, D], data. start: a Gaussian for each datum (`laplace`), of which the chains
    start as draws and whose L is their scale; Chains, to go on where they stand; or points [C, N, d], with scale I.
    M: draws that are kept, after warm_up more that adapt the step to an acceptance of target. step: fixes it instead.
    Warns (RuntimeWarning) of chains that never moved, and after 50 draws or more also of a coordinate of t in which
    none of a datum's chains moved, and where R̂ is above 1.05. Raises ValueError for M < 1, shapes that do not fit, and
    a start at which log p(x,t|w) is not finite, naming it. Slide 15.
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

    Arguments, warnings and errors as in `metropolis`; also warns of trajectories that flew off, and refuses a start at
    which ∇log p(x,t|w) is not finite. Where the step is adapted, halfway through the warm_up each datum's scale is
    learnt too, from its draws and their slopes. Slide 15.
    No trajectory is adapted to more than a quarter of a circle in these units, after which a Gaussian's next draw has
    forgotten the last, and twice as far only mirrors it: at small d the acceptance stays above the target.
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
