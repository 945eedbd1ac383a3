"""Monte Carlo EM: the E-step's expectation replaced by an average over draws, and log p(X|w) beside it as the audit."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib import _validate
from cmog_lib.decoders import Decoder, as_module, projected
from cmog_lib.em import m_step_on_draws
from cmog_lib.mcmc.chains import Chains
from cmog_lib.mcmc.samplers import hmc
from cmog_lib.mcmc.scale import evaluations_of_laplace, laplace, scale_at
from cmog_lib.quadrature import Nodes, grid, log_p_x

# Cells a dimension of the grid that audits: fine enough for posteriors a tenth as wide as the prior.
AUDIT = {1: 2048, 2: 96}


class Run(eqx.Module):
    """What `fit` went through. w: the last decoder. path: the decoders w_0 … w_steps. log_p_x: 1/N log p(X|w) at each.

    log_p_x is by quadrature, in nats per datum, and NaN where d > 2. chains: the last E-step's,
    to go on from. evaluations: how many latents the E-steps decoded up to each of the decoders.
    """

    w: Any
    path: tuple[Any, ...]
    log_p_x: Float[np.ndarray, "ws"]
    evaluations: Any
    chains: Chains | None
    interrupted: bool = False


def mc_em_step(
    w: Decoder,
    X: Float[Array, "N D"],
    chains: Chains | None = None,
    *,
    M: int,
    key: Key[Array, ""],
    burn_in: int = 10,
    max_steps: int = 20,
) -> tuple[Any, Chains]:
    """w_new = argmax_w' 1/M Σ_s log p(X,T_s|w'), T_s ~ p(T|X,w): one E-step by Hamiltonian chains, and one M-step.

    w: decoder, any latent dimension. X: [N, D], data. chains: the last step's, which go on from where they stand; None
    starts one chain for each datum at a mode. M: draws for each datum, after burn_in that adapt the step and are thrown
    away. max_steps: of the M-step. Returns the new decoder and the chains. (R̂ needs several chains, and longer ones:
    here log p(X|w) is the check.)
    Raises ValueError and warns as `hmc` and `em.m_step_on_draws` do. Slides 15 and 16. Source: Wei and Tanner 1990.
    """
    start: Any
    key_mode, key_chains = jax.random.split(_validate.key(key))
    X = _validate.array("X", X, ("N", _validate.decoder(w).data_dim))
    seen, X_seen, _ = projected(as_module(w), X)
    if chains is None:
        start, spent = laplace(seen, X_seen, key=key_mode), evaluations_of_laplace(len(X))
    else:
        # w has moved since: the chains stay where they are, but the posteriors are as wide as they are now. A scale
        # that hangs on where the chain stands is exact only in the long run; within one E-step it stays as it is.
        start, spent = eqx.tree_at(lambda chains: chains.scale, chains, scale_at(seen, chains.last[0])), len(X)
    chains = hmc(seen, X_seen, start, M=M, warm_up=burn_in, key=key_chains, chains=1)
    chains = dataclasses.replace(chains, evaluations=chains.evaluations + spent)
    return m_step_on_draws(w, chains.t.reshape(-1, *chains.t.shape[2:]), X, max_steps=max_steps), chains


def fit(
    w: Decoder,
    X: Float[Array, "N D"],
    chains: Chains | None = None,
    *,
    steps: int,
    M: int,
    key: Key[Array, ""],
    keep: bool = True,
    burn_in: int = 10,
    max_steps: int = 20,
    audit: Nodes | None = None,
    progress: bool = True,
) -> Run:
    """max_w log p(X|w) by Monte Carlo EM, with log p(X|w) by quadrature after every step where d ≤ 2.

    w: decoder, where it begins. X: [N, D], data. chains: of an earlier run, to go on from. steps: how many iterations.
    keep: chains go on from the last E-step; False starts them anew each time. M, burn_in, max_steps: as in
    `mc_em_step`. audit: the nodes for log p(X|w) (default: a grid on [-6, 6]). progress: show the bar. After Ctrl-C it
    returns what there is. Raises ValueError and warns as `mc_em_step` does.
    """
    from tqdm.auto import tqdm

    steps, key = _validate.count("steps", steps), _validate.key(key)
    d, interrupted = _validate.decoder(w).latent_dim, False
    nodes = grid(d, AUDIT[d]) if audit is None and d in AUDIT else audit

    def value(w: Any) -> float:
        return float("nan") if nodes is None else float(np.asarray(log_p_x(w, X, nodes), np.float64).mean())

    path, values, evaluations = [w], [value(w)], [0]
    with tqdm(total=steps, disable=not progress, unit="MC-EM step", leave=False) as bar:
        try:
            for key_step in jax.random.split(key, steps):
                begin = chains if keep else None
                w_new, moved = mc_em_step(path[-1], X, begin, M=M, key=key_step, burn_in=burn_in, max_steps=max_steps)
                now = value(w_new)
                path, values, chains = [*path, w_new], [*values, now], moved
                evaluations.append(evaluations[-1] + moved.evaluations)
                bar.update()
                bar.set_postfix(log_p_x=f"{now:.6g}")
        except KeyboardInterrupt:
            interrupted = True
    return Run(path[-1], tuple(path), np.asarray(values), np.asarray(evaluations), chains, interrupted)
