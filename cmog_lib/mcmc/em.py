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
from cmog_lib.em import m_step_on_draws
from cmog_lib.engine import mode
from cmog_lib.engine.alternation import AUDIT, Kept, Run, alternate, mean_log_p_x
from cmog_lib.engine.door import array, door, kind
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.mcmc.chains import Chains
from cmog_lib.mcmc.samplers import hmc
from cmog_lib.quadrature import Nodes, grid


def _earlier(name: str, value: Any, given: dict[str, Any]) -> Chains | None:
    if value is None:
        return None
    chains = kind(name, value, Chains, advice="of an earlier run")
    array(f"{name}.last", chains.last, ("C", len(given["X"]), given["w"].latent_dim))
    return chains


@door("w X:X-of-a-regression M warm_up:from-zero max_steps key", chains=_earlier)
def mc_em_step(
    w: Decoder,
    X: Float[Array, "N D"],
    chains: Chains | None = None,
    *,
    M: int,
    key: Key[Array, ""],
    warm_up: int = 10,
    max_steps: int = 20,
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
        max_steps: number of steps of the M-step, at most.

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
    chains = hmc(seen, X_seen, start, M=M, warm_up=warm_up, key=key_chains, chains=1)
    chains = dataclasses.replace(chains, evaluations=chains.evaluations + spent)
    return m_step_on_draws(w, chains.t.reshape(-1, *chains.t.shape[2:]), X, max_steps=max_steps), chains


@door("w:decoder X:X-of-a-regression M warm_up:from-zero max_steps steps key audit", chains=_earlier)
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
    max_steps: int = 20,
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
        max_steps: number of steps of each M-step, at most.
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
    options: Any = {"M": M, "warm_up": warm_up, "max_steps": max_steps}
    keys, d = jax.random.split(key, steps), w.latent_dim
    nodes = grid(d, AUDIT[d]) if audit is None and d in AUDIT else audit

    def iteration(k: int, w: Any, chains: Chains | None) -> tuple[Any, Chains, tuple[float, ...], int]:
        w_new, chains = mc_em_step(w, X, chains if keep else None, key=keys[k], **options)
        return w_new, chains, (), chains.evaluations

    file = None
    if checkpoint is not None:
        C, N = (1 if chains is None or not keep else len(chains.t)), len(X)
        zeros = [jnp.zeros(shape, X.dtype) for shape in ((C, M, N, d), (C, N), (N, d, d))]
        blank = Chains(zeros[0], zeros[1], jnp.zeros((C, N), int), zeros[1], zeros[2], 0)
        file = Kept(checkpoint, w, blank, X, key, chains, nodes, (keep, steps, *options.values()))
    value = mean_log_p_x(X, nodes)
    return alternate(iteration, w, chains, steps=steps, value=value, unit="MC-EM step", progress=progress, file=file)
