"""Monte Carlo EM: the E-step's expectation replaced by an average over draws, and log p(X|w) beside it as the audit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder, as_module, projected
from cmog_lib.em import m_step_on_draws
from cmog_lib.engine import mode
from cmog_lib.engine.devices import gathered
from cmog_lib.engine.door import array, door, kind
from cmog_lib.engine.optimise.checkpoint import Checkpoint
from cmog_lib.engine.optimise.faults import given_back
from cmog_lib.engine.optimise.interrupts import interruptible, look
from cmog_lib.mcmc.chains import Chains
from cmog_lib.mcmc.samplers import hmc
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


def _earlier(name: str, value: Any, given: dict[str, Any]) -> Chains | None:
    if value is None:
        return None
    chains = kind(name, value, Chains, advice="of an earlier run")
    array(f"{name}.last", chains.last, ("C", len(given["X"]), given["w"].latent_dim))
    return chains


@door("w X:X-of-a-regression M burn_in:from-zero max_steps key", chains=_earlier)
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
    Raises ValueError and warns as `hmc` and `em.m_step_on_draws` do. Slides 14 and 15. Source: Wei and Tanner 1990.
    """
    start: Any
    key_mode, key_chains = jax.random.split(key)
    seen, X_seen, _ = projected(w, X)
    if chains is None:
        start, spent = mode.laplace(seen, X_seen, key_mode)
    else:
        # w has moved since: the chains stay where they are, but the posteriors are as wide as they are now. A scale
        # that hangs on where the chain stands is exact only in the long run; within one E-step it stays as it is.
        start, spent = eqx.tree_at(lambda chains: chains.scale, chains, mode.scale_at(seen, chains.last[0])), len(X)
    chains = hmc(seen, X_seen, start, M=M, warm_up=burn_in, key=key_chains, chains=1)
    chains = dataclasses.replace(chains, evaluations=chains.evaluations + spent)
    return m_step_on_draws(w, chains.t.reshape(-1, *chains.t.shape[2:]), X, max_steps=max_steps), chains


@door("w:decoder X:X-of-a-regression M burn_in:from-zero max_steps steps key audit", chains=_earlier)
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
    burn_in: int = 10,
    max_steps: int = 20,
    audit: Nodes | None = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> Run:
    """max_w log p(X|w) by Monte Carlo EM, with log p(X|w) by quadrature after every step where d ≤ 2.

    w: decoder, where it begins. X: [N, D], data. chains: of an earlier run, to go on from. steps: how many iterations.
    keep: chains go on from the last E-step; False starts them anew each time. M, burn_in, max_steps: as in
    `mc_em_step`. audit: the nodes for log p(X|w) (default: a grid on [-6, 6]). progress: show the bar. After Ctrl-C it
    returns what there is. checkpoint: a file that is written after every iteration and holds every decoder so far, as
    `path` does; where it is there already, the same call goes on from it.
    Raises ValueError and warns as `mc_em_step` does, and ValueError for a checkpoint that is damaged or of another run.
    """
    from tqdm.auto import tqdm

    d, interrupted = w.latent_dim, False
    nodes = grid(d, AUDIT[d]) if audit is None and d in AUDIT else audit

    def value(w: Any) -> float:
        return (
            float("nan") if nodes is None else float(gathered(log_p_x(as_module(w), X, nodes)).mean(dtype=np.float64))
        )

    options: Any = {"M": M, "burn_in": burn_in, "max_steps": max_steps}
    path, record, done = [w], [(value(w), 0)], 0
    file = None if checkpoint is None else _Kept(checkpoint, w, X, key, chains, nodes, keep, steps, *options.values())
    if file is not None and (found := file.load()):
        done, (_, *path), record, chains = found
        path = [w, *path]
    reached: Any = (path, record, chains)
    with tqdm(total=steps, initial=done, disable=not progress, unit="MC-EM step", leave=False) as bar:
        try:
            for key_step in jax.random.split(key, steps)[done:]:
                (*_, w), (*_, (_, spent)), chains = reached
                w, chains = mc_em_step(as_module(w), X, chains if keep else None, key=key_step, **options)
                row = value(w), spent + chains.evaluations
                # In one go, for a second Ctrl-C may come at any time.
                reached = ([*reached[0], w], [*reached[1], row], chains)
                if file is not None:
                    file.save(*reached)
                bar.update()
                bar.set_postfix(log_p_x=f"{row[0]:.6g}")
                look()
        except KeyboardInterrupt:
            interrupted = True
    path, record, chains = reached
    values, evaluations = (np.asarray(column) for column in zip(*record, strict=True))
    return Run(path[-1], tuple(path), values, evaluations, chains, interrupted)


class _Kept:
    """The checkpoint of one `fit`: every decoder so far, the record, and the chains."""

    def __init__(self, path: str | Path, w: Any, X: Array, key: Array, chains: Any, nodes: Any, *options: int) -> None:
        keep, _, M, *_ = options
        self.w, self.rest = eqx.partition(as_module(w), eqx.is_array)
        self.ws: list[Any] = []
        C = 1 if chains is None or not keep else len(chains.t)
        self.shape, self.dtype = (C, M, len(X), w.latent_dim), X.dtype
        self.file = Checkpoint(path, self.w, X, key, chains, nodes, options)

    def _state(self, ws: list[Any], record: list[Any], chains: Chains) -> Any:
        return ws, np.asarray(record), eqx.filter(chains, eqx.is_array), np.asarray(chains.evaluations)

    def save(self, path: list[Any], record: list[Any], chains: Chains) -> None:
        self.ws += [eqx.filter(as_module(w), eqx.is_array) for w in path[len(self.ws) :]]
        self.file.save(len(path) - 1, self._state(self.ws, record, chains))

    def load(self) -> tuple[int, list[Any], list[Any], Chains] | None:
        C, _, N, d = self.shape
        zeros = [jnp.zeros(shape, self.dtype) for shape in (self.shape, (C, N), (C, N), (N, d, d))]
        blank = Chains(zeros[0], zeros[1], jnp.zeros((C, N), int), zeros[2], zeros[3], 0)
        found = self.file.load(lambda step: self._state([self.w] * (step + 1), [(0.0, 0)] * (step + 1), blank))
        if found is None:
            return None
        step, (self.ws, record, chains, evaluations) = found
        chains = dataclasses.replace(chains, evaluations=int(evaluations))
        path = [given_back(eqx.combine(self.rest, w)) for w in self.ws]
        return step, path, [(value, int(n)) for value, n in record], chains
