"""Monte Carlo EM: the E-step's expectation is an average over draws, and log p(X|w) by quadrature is the audit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder, projected
from cmog_lib.decoders.linear import is_linear
from cmog_lib.em import log_p_of_draws, m_step_on_draws
from cmog_lib.engine import mode
from cmog_lib.engine.alternation import AUDIT, Kept, Run, alternate, mean_log_p_x
from cmog_lib.engine.chains.iteration import iterated
from cmog_lib.engine.door import array, door, kind
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.mcmc.chains import Chains, report
from cmog_lib.mcmc.samplers import hmc
from cmog_lib.mcmc.start import acceptance, states_at
from cmog_lib.mcmc.steps import hmc_step
from cmog_lib.quadrature import Nodes, grid


def _earlier(name: str, value: Any, given: dict[str, Any]) -> Chains | None:
    if value is None:
        return None
    chains = kind(name, value, Chains, advice="of an earlier run")
    array(f"{name}.last", chains.last, ("C", len(given["X"]), given["w"].latent_dim))
    return chains


OPTIONS = "M warm_up:from-zero leapfrogs max_steps learning_rate:positive-or-none"


@door(f"w X:X-of-a-regression {OPTIONS} key", chains=_earlier, target=acceptance)
def mc_em_step(
    w: Decoder,
    X: Float[Array, "N D"],
    chains: Chains | None = None,
    *,
    M: int,
    key: Key[Array, ""],
    warm_up: int = 10,
    target: float = 0.8,
    leapfrogs: int = 2,
    max_steps: int = 20,
    learning_rate: float | None = None,
) -> tuple[Any, Chains]:
    """w_new = argmax_w' 1/M Σ_s log p(X,T_s|w'), T_s ~ p(T|X,w): one E-step by Hamiltonian chains, and one M-step.

    R̂ needs several and longer chains; here log p(X|w) is the check.

    Args:
        w: decoder, any latent dimension.
        X: [N, D], data.
        chains: the chains of the last step, which are continued from their last draws. None starts one chain for each
            datum at a mode.
        M: number of draws for each datum.
        key: random key.
        warm_up: number of earlier draws, which adapt the step size, with 20 or more also the scale, and are discarded.
        target: the acceptance to which the step size is adapted, between 0 and 1.
        leapfrogs: number of leapfrog steps of a trajectory.
        max_steps: number of steps of the M-step, at most.
        learning_rate: of Adam, which then takes max_steps steps in place of L-BFGS: a generalised EM, whose iterations
            cost much less. It begins anew in each M-step. None for L-BFGS; Linear needs neither.

    Returns:
        The new decoder and the `Chains`.

    Raises:
        ValueError: as `hmc` and `em.m_step_on_draws` do.

    Warns:
        RuntimeWarning: as `hmc` does.

    Source: Slides 14 and 15; Wei and Tanner 1990.
    """
    start: Any
    key_mode, key_chains = jax.random.split(key)
    seen, X_seen, _ = projected(w, X)
    if chains is None:
        start, spent = mode.laplace(seen, X_seen, key_mode)
    else:
        # w has changed, and with it the width of the posteriors: the chains keep their place but get a new scale. A
        # scale that depends on the chain's place is exact only in the long run; within one E-step it is constant.
        start, spent = eqx.tree_at(lambda chains: chains.scale, chains, mode.scale_at(seen, chains.last[0])), len(X)
    options: Any = {"M": M, "warm_up": warm_up, "target": target, "leapfrogs": leapfrogs}
    chains = hmc(seen, X_seen, start, key=key_chains, chains=1, **options)
    chains = dataclasses.replace(chains, evaluations=chains.evaluations + spent)
    T = chains.t.reshape(-1, *chains.t.shape[2:])
    return m_step_on_draws(w, T, X, max_steps=max_steps, learning_rate=learning_rate), chains


@door(f"w:decoder X:X-of-a-regression {OPTIONS} steps key audit", chains=_earlier, target=acceptance)
@interruptible
def fit(
    w: Decoder,
    X: Float[Array, "N D"],
    chains: Chains | None = None,
    *,
    steps: int,
    M: int,
    key: Key[Array, ""],
    keep: bool = True,
    warm_up: int = 10,
    target: float = 0.8,
    leapfrogs: int = 2,
    max_steps: int = 20,
    learning_rate: float | None = None,
    audit: Nodes | None = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> Run:
    """max_w log p(X|w) by Monte Carlo EM, with log p(X|w) by quadrature after every step where d ≤ 2.

    After Ctrl-C it returns the result so far.

    Args:
        w: decoder with which to begin.
        X: [N, D], data.
        chains: of an earlier run, to continue from; None starts new ones.
        steps: number of iterations.
        M: number of draws for each datum and iteration.
        key: random key.
        keep: True continues the chains of the last E-step; False starts new ones at every iteration.
        warm_up: number of earlier draws in each E-step, which adapt the step size, with 20 or more also the scale, and
            are discarded.
        target: the acceptance to which the step size is adapted, between 0 and 1.
        leapfrogs: number of leapfrog steps of a trajectory.
        max_steps: number of steps of each M-step, at most.
        learning_rate: of Adam in place of L-BFGS; see `mc_em_step`.
        audit: the nodes for log p(X|w) (default: a grid on [-6, 6]^d for d ≤ 2, none for larger d).
        progress: show the progress bar.
        checkpoint: a file that is written after every iteration and holds all decoders of `path`. If it exists, the
            same call continues from it.

    Returns:
        A `Run`. Its path has fewer decoders after Ctrl-C; its q are the chains of the last E-step.

    Raises:
        ValueError: as `mc_em_step` does, and if the checkpoint is damaged or belongs to another run.

    Warns:
        RuntimeWarning: as `mc_em_step` does.
    """
    options: Any = {"M": M, "warm_up": warm_up, "target": target, "leapfrogs": leapfrogs}
    options |= {"max_steps": max_steps, "learning_rate": learning_rate}
    keys, d = jax.random.split(key, steps), w.latent_dim
    nodes = grid(d, AUDIT[d]) if audit is None and d in AUDIT else audit

    def iteration(k: int, w: Any, chains: Chains | None) -> tuple[Any, Chains, tuple[float, ...], int]:
        found, chains = None, chains if keep else None
        if chains is not None and learning_rate is not None and not is_linear(w):
            found = _in_one(w, X, chains, key=keys[k], **options)
        # Something was not finite, or is not compiled as one: step by step, each of which says what it finds.
        w_new, chains = found or mc_em_step(w, X, chains, key=keys[k], **options)
        return w_new, chains, (), chains.evaluations

    file = None
    if checkpoint is not None:
        C, N = (1 if chains is None or not keep else len(chains.t)), len(X)
        zeros = [jnp.zeros(shape, X.dtype) for shape in ((C, M, N, d), (C, N), (N, d, d))]
        blank = Chains(zeros[0], zeros[1], jnp.zeros((C, N), int), zeros[1], zeros[2], 0)
        file = Kept(checkpoint, w, blank, X, key, chains, nodes, (keep, steps, *options.values()))
    value = mean_log_p_x(X, nodes)
    return alternate(iteration, w, chains, steps=steps, value=value, unit="MC-EM step", progress=progress, file=file)


def _in_one(
    w: Any,
    X: Array,
    chains: Chains,
    *,
    M: int,
    key: Array,
    warm_up: int,
    target: float,
    leapfrogs: int,
    max_steps: int,
    learning_rate: float,
) -> tuple[Any, Chains] | None:
    """`mc_em_step` from earlier chains and with Adam, as one compiled function; None if something is not finite."""
    how: Any = {"M": M, "warm_up": warm_up, "leapfrogs": leapfrogs, "updates": max_steps}
    how |= {"target": jnp.asarray(target, X.dtype), "learning_rate": jnp.asarray(learning_rate, float)}
    rooms, (_, key_chains) = (hmc_step, states_at, log_p_of_draws), jax.random.split(key)
    key_steps, _ = jax.random.split(key_chains)  # as `hmc` does
    found = iterated(rooms, w, X, chains.last, chains.step, key_steps, **how)
    if found is None:
        return None
    w_new, made = found
    evaluations = chains.step.size * (leapfrogs * (M + warm_up) + 1) + len(X)
    return w_new, report(Chains(*made, evaluations=evaluations))
