"""Chains for all data at once: where they start, and what is said when they did not move."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib import _validate
from cmog_lib.decoders import Decoder, as_module
from cmog_lib.mcmc.chains import Chains
from cmog_lib.mcmc.sweep import states_at, sweep
from cmog_lib.posteriors import FullGaussian

FEW = 50  # draws below which a chain that stands still is not reported


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
    states = states_at(w, X, t)
    bad = np.argwhere(~np.isfinite(np.asarray(states.log_p)))
    if len(bad):
        c, i = bad[0].tolist()
        raise ValueError(
            f"start must be where log p(x,t|w) is finite, got {float(states.log_p[c, i])} for chain {c} of X[{i}],"
            f" at t = {np.asarray(t[c, i]).round(6).tolist()}"
        )
    made = sweep(w, X, states, scale, first, key, M, warm_up, adapt, jnp.asarray(target, X.dtype), leapfrogs)
    each = leapfrogs or 1
    found = Chains(*made, scale, evaluations=t.shape[0] * len(X) * (each * (M + warm_up) + 1))
    _report(found)
    return found


def _start(start: Any, w: Any, X: Array, chains: int, key: Array) -> tuple[Array, Array, Array]:
    """t [C, N, d], scale [N, d, d], step [C, N]."""
    N, d = len(X), w.latent_dim
    if isinstance(start, Chains):
        _validate.array("start.last", start.last, ("C", N, d))
        return start.last, start.scale, start.step
    if isinstance(start, FullGaussian):
        _validate.array("start.m", start.m, (N, d))
        t, scale = start.sample(_validate.count("chains", chains), key=key), start.L
    else:
        t = _validate.array("start", start, ("C", N, d))
        scale = jnp.broadcast_to(jnp.eye(d, dtype=t.dtype), (N, d, d))
    return t, scale, jnp.full(t.shape[:2], d**-0.25, t.dtype)


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
