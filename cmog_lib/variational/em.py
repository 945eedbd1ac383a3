"""Variational EM: the E-step fits a Gaussian q_i to each datum, and the M-step climbs on draws from these q_i."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.bound import log_weights
from cmog_lib.decoders import Decoder, as_module
from cmog_lib.decoders.contract import W
from cmog_lib.decoders.linear import is_linear
from cmog_lib.em import m_step_on_draws
from cmog_lib.engine.alternation import AUDIT, Run, alternate, mean, mean_log_p_x
from cmog_lib.engine.door import described, door
from cmog_lib.engine.optimise.batches import ascend_on_batches
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.model import log_p_x_given_t
from cmog_lib.posteriors import FullGaussian, Gaussian
from cmog_lib.quadrature import Nodes, grid
from cmog_lib.variational.gaussian import fit_q

COMMON = 64  # draws for each datum when a bound is measured; the noise is the same every time


@door("w X:X-of-a-regression q:gaussian-or-none e_steps m_steps M learning_rate:positive key")
def em_step(
    w: W,
    X: Float[Array, "N D"],
    q: Gaussian | FullGaussian | None = None,
    *,
    key: Key[Array, ""],
    full: bool = False,
    e_steps: int = 30,
    m_steps: int = 100,
    M: int = 2,
    learning_rate: float = 5e-3,
) -> tuple[W, Gaussian | FullGaussian]:
    """q = argmax_q L(w, q), q_i a Gaussian, then w_new = argmax_w' L(w', q): both maximise one bound.

    Args:
        w: decoder, any latent dimension.
        X: [N, D], data.
        q: the q of the last step, from which `fit_q` takes e_steps steps; None starts anew, with five times as many
            steps.
        key: random key.
        full: whether a q that starts anew has any covariance; otherwise q_i is N(m_i, diag s_i²).
        e_steps: number of steps of `fit_q`.
        m_steps: number of steps of Adam in the M-step, each on M new draws from every q_i.
        M: number of draws. A Linear decoder takes 16 M draws once, since its maximum has a closed form.
        learning_rate: of Adam in the M-step.

    Returns:
        The new decoder and the new q.

    Raises:
        ValueError: as in `fit_q` and `optimise.ascend`; for a Linear decoder also for constant columns, as in
            `ppca.em_step`.
        NotFinite: as in `fit_q` and `optimise.ascend`.

    Warns:
        RuntimeWarning: as in `fit_q`, if q starts anew.

    Source: Slides 17 to 19.
    """
    key_e, key_m = jax.random.split(key)
    q, _ = e_step(w, X, q, full, e_steps, key_e)
    w_new, _ = m_step(w, X, q, m_steps, M, learning_rate, key_m)
    return w_new, q


@door("w:decoder X:X-of-a-regression q:gaussian-or-none e_steps m_steps M learning_rate:positive steps key audit")
@interruptible
def fit(
    w: Decoder,
    X: Float[Array, "N D"],
    q: Gaussian | FullGaussian | None = None,
    *,
    steps: int,
    key: Key[Array, ""],
    full: bool = False,
    e_steps: int = 30,
    m_steps: int = 100,
    M: int = 2,
    learning_rate: float = 5e-3,
    audit: Nodes | None = None,
    progress: bool = True,
) -> Run:
    """max_{w,q} L(w, q), q_i = N(m_i, diag s_i²) or of any covariance, by E-steps and M-steps.

    After Ctrl-C it returns the finished iterations.

    Args:
        w: decoder from which to start.
        X: [N, D], data.
        q: the q of an earlier run, from which to go on; None starts anew.
        steps: number of iterations.
        key: random key.
        full: whether a q that starts anew has any covariance; otherwise q_i is N(m_i, diag s_i²).
        e_steps: number of steps of `fit_q` in each E-step, five times as many in an E-step that starts anew.
        m_steps: number of steps of Adam in each M-step.
        M: number of draws, as in `em_step`.
        learning_rate: of Adam in the M-step.
        audit: nodes for log p(X|w), which is recorded beside the bound. Default: a grid on [-6, 6] for d ≤ 2; for d > 2
            log p(X|w) is not computed.
        progress: whether to show the bar.

    Returns:
        The run. Its bounds are means over draws with the same noise at every half-step.

    Raises:
        ValueError: as in `em_step`.
        NotFinite: as in `em_step`.

    Warns:
        RuntimeWarning: as in `fit_q`, if q starts anew.
    """
    d, (key_common, key) = w.latent_dim, jax.random.split(key)
    nodes, keys = grid(d, AUDIT[d]) if audit is None and d in AUDIT else audit, jax.random.split(key, steps)

    def lower(w: Any, q: Any) -> float:
        return mean(log_weights(as_module(w), q, X, M=COMMON, key=key_common))

    def iteration(k: int, w: Any, q: Any) -> tuple[Any, Any, tuple[float, ...], int]:
        key_e, key_m = jax.random.split(keys[k])
        q, decoded = e_step(w, X, q, full, e_steps, key_e)
        raised = lower(w, q)
        w_new, more = m_step(w, X, q, m_steps, M, learning_rate, key_m)
        return w_new, q, (raised, lower(w_new, q)), decoded + more

    value = mean_log_p_x(X, nodes)
    return alternate(iteration, w, q, steps=steps, value=value, unit="VEM step", progress=progress)


def e_step(w: Any, X: Array, q: Any, full: bool, e_steps: int, key: Array) -> tuple[Any, int]:
    """q_i = argmax_q L(w, q), i = 1 … N, anew or from the last q; and the number of decoder evaluations."""
    if q is None:
        found = fit_q(w, X, full=full, steps=5 * e_steps, key=key, progress=False)
    else:
        found = fit_q(w, X, q, steps=e_steps, draws=1, key=key, progress=False)
    if found.interrupted:
        raise KeyboardInterrupt
    return found.q, found.evaluations


def m_step(w: Any, X: Array, q: Any, m_steps: int, M: int, rate: float, key: Array) -> tuple[Any, int]:
    """argmax_w E_q log p(X,T|w), on new draws at every step; and the number of decoder evaluations."""
    # On digits, new draws beat L-BFGS on fixed draws at a third of the cost.
    if is_linear(w):
        return m_step_on_draws(w, q.sample(M=16 * M, key=key), X), 0

    def facts(w: Any, X: Array, key: Array) -> str:
        return f"in the M-step {described(w, q.sample(M=M, key=key).reshape(-1, w.latent_dim), X)}"

    options: Any = {"steps": m_steps, "learning_rate": rate, "progress": False}
    found = ascend_on_batches(expected_log_p, w, X, (q, M), batch_size=len(X), key=key, facts=facts, **options)
    if found.interrupted:
        raise KeyboardInterrupt
    return found.w, m_steps * M * len(X)


def expected_log_p(w: Any, X: Float[Array, "N D"], draws: tuple[Any, int], key: Key[Array, ""]) -> Float[Array, ""]:
    """1/N Σ_i 1/M Σ_s log p(x_i|t_is,w), t_is ~ q_i: the part of the bound that depends on w, by draws.

    Args:
        w: decoder.
        X: [N, D], data.
        draws: q, with m [N, d], and M.
        key: of the draws.

    Returns:
        A scalar, nats per datum.
    """
    q, M = draws
    log_p = jax.vmap(jax.vmap(log_p_x_given_t, (None, 0, 0)), (None, None, 0))
    return jnp.mean(log_p(w, X, q.sample(M=M, key=key)))
