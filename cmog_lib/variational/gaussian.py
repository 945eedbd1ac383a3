"""The Gaussian q of every datum, factorised or full, by reparameterised gradients from several starts."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine import gaussians, mode
from cmog_lib.engine.door import door
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.model import log_p_xt
from cmog_lib.posteriors import FullGaussian, Gaussian


class Fitted(eqx.Module):
    """What `fit_q` found: the best q of all starts for each datum, and its bound.

    Attributes:
        q: the best of all starts for each datum, m [N, d].
        bound: [N], L(w, q_i) by draws, in nats.
        error: [N], the standard error of bound.
        trace: the bound per datum at every step, averaged over data and starts.
        evaluations: number of decoder evaluations.
        interrupted: whether the fit was stopped with Ctrl-C.
    """

    q: Gaussian | FullGaussian
    bound: Float[Array, "N"]
    error: Float[Array, "N"]
    trace: Float[np.ndarray, "steps"]
    evaluations: int
    interrupted: bool = False


@door("w key X steps starts draws start:gaussian-or-none M:draws-in-pairs")
@interruptible
def fit_q(
    w: Decoder,
    X: Float[Array, "N D"],
    start: Gaussian | FullGaussian | None = None,
    *,
    key: Key[Array, ""],
    full: bool = False,
    starts: int = 8,
    steps: int = 150,
    M: int = 2,
    draws: int = 256,
    progress: bool = True,
) -> Fitted:
    """q_i = argmax_q L(w,q), along ∇ 1/M Σ_s [log p(x_i,t_s|w) − log q(t_s)], t_s = m_i + s_i ε_s, ε_s ~ N(0, I).

    q is N(m_i, diag s_i²), or with `full` has any covariance. The slope of log q at a fixed t_s has mean 0, so it is
    left out. After Ctrl-C the function returns what it has found so far.

    Args:
        w: decoder, any latent dimension.
        X: [N, D], data, all at once.
        start: a q for each datum from which to go on, m [N, d]; it also sets the family of q. Without one, each datum
            starts from `starts` places where draws from the prior are likely, and the best result is kept. This finds
            some of several modes, not necessarily all.
        key: random key.
        full: whether q has any covariance, if there is no start.
        starts: number of starts for each datum, if there is no start.
        steps: number of steps of Adam.
        M: number of draws in a step, even. They come in pairs m ± s ε, in which odd terms in ε cancel.
        draws: number of draws by which the bounds are measured at the end.
        progress: whether to show the bars, one for each stage.

    Returns:
        The best q and its bound for each datum.

    Raises:
        ValueError: if shapes do not fit, if a count is below 1, if M is odd, if key is not a typed key, or if log
            p(x,t|w) or a slope of the decoder is not finite where a start ends its search for a mode.
        NotFinite: if a step or a final bound is not finite; it holds the step, what was seen there and the last good q.

    Warns:
        RuntimeWarning: if, judging by its slope, the bound would still rise by more than 10 nats for a datum, or by
            more than half a nat on average. With fewer than 16 draws this is not measured.

    Source: after Slide 19; Kingma and Welling 2014; Roeder, Wu and Duvenaud 2017 (the part of the gradient that is left
    out).
    """
    key_start, key_climb, key_bound = jax.random.split(key, 3)
    if start is None:
        q, evaluations = mode.near_draws(w, X, starts, full, key_start)
    else:
        q, evaluations = jax.tree.map(lambda part: part[None], start), 0
    found = gaussians.climb(log_ratios, w, X, q, steps, M, key_climb, progress)
    q, bound, error = gaussians.best(w, X, found, draws, key_bound)
    evaluations += (len(found.trace) * M + draws) * found.w.m[..., 0].size
    if draws >= gaussians.RISE and not found.interrupted:
        evaluations += gaussians.warn_if_rising(log_ratios, w, X, q, len(found.trace), jax.random.fold_in(key, 3))
    return Fitted(q, bound, error, found.trace, evaluations, found.interrupted)


def log_ratios(w: Any, q: Any, X: Float[Array, "N D"], T: Float[Array, "M K N d"]) -> Float[Array, "M K N"]:
    """log p(x_i,t|w) − log q_i(t) at draws t of q_i: each is an estimate of L(w,q_i), of which `fit_q` takes the slope.

    The slope of log q at a fixed t has mean 0 and is left out. What remains has no noise once q is p(t|x,w).

    Args:
        w: decoder.
        q: K Gaussians for each datum, m [K, N, d].
        X: [N, D], data.
        T: [M, K, N, d], draws of each q.

    Returns:
        [M, K, N], nats.
    """
    q = jax.lax.stop_gradient(q)

    def one(x: Array, q: Any, t: Array) -> Array:
        return log_p_xt(w, x, t) - q.log_q(t)

    return jax.vmap(jax.vmap(jax.vmap(one), (None, 0, 0)), (None, None, 0))(X, q, T)
