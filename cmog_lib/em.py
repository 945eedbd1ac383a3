"""EM with the true posterior on nodes: the E-step raises the bound to log p(X|w), the M-step raises both.

On fixed nodes t_s the integral is a sum, p(x|w) = Σ_s p(t_s) p(x|t_s,w), and everything here is exact for that sum. How
well the sum stands for the integral depends on the nodes: if p(t|x,w) is narrower than the distance between them, EM
fits the nodes and ignores what lies between. `fit` warns of it.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib.decoders import Decoder, Linear, as_module
from cmog_lib.decoders.contract import W
from cmog_lib.decoders.linear import is_linear
from cmog_lib.engine.alternation import Run, alternate, mean_log_p_x
from cmog_lib.engine.coarse import warn_if_few_nodes
from cmog_lib.engine.door import door
from cmog_lib.engine.optimise.decoder import maximise_decoder
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.engine.sigma import log_sigma, units
from cmog_lib.model import LOG_2PI, log_p_x_given_t
from cmog_lib.optimise import ascend
from cmog_lib.posteriors import Weighted
from cmog_lib.quadrature import Nodes, posterior

__all__ = ["Run", "e_step", "em_step", "fit", "m_step", "m_step_on_draws", "mean_bound"]


@door("w X nodes:nodes-of-a-table")
def e_step(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Weighted:
    """q = argmax_q L(w, q) = p(t|x_i,w) on the nodes, for every datum: the bound equals log p(x_i|w).

    Args:
        w: decoder.
        X: [N, D], data.
        nodes: the points of q.

    Returns:
        All N posteriors, with log_weight [N, S].

    Raises:
        ValueError: if the shapes of X and the nodes do not fit the decoder, if N × S numbers are too many to hold, or
            if μ or σ is not finite at a node.

    Source: Slide 13.
    """
    return posterior(w, X, nodes)


@door("w X:X-of-a-regression q:weights max_steps")
def m_step(w: W, q: Weighted, X: Float[Array, "N D"], *, max_steps: int = 20) -> W:
    """argmax_w Σ_i E_{q_i} log p(x_i,t|w): closed form for Linear, and L-BFGS from w for every other decoder.

    The σ of a Linear decoder is at least √ε of its data's standard deviation, as in `ppca.em_step`.

    Args:
        w: decoder, where the search begins.
        q: from the E-step, with log_weight [N, S].
        X: [N, D], data.
        max_steps: the most steps of L-BFGS, in double precision. A step that would lower the value is not taken, so the
            value never falls.

    Returns:
        The new decoder.

    Raises:
        ValueError: if the shapes of q and X do not fit, if w is not finite on the nodes of q, or if a Linear decoder
            has its own σ for a constant column.
        NotFinite: if the value or its gradient is not finite during the search.

    Source: Slide 12.
    """
    return highest(w, summary(X, q), max_steps)[0]


@door("w X:X-of-a-regression T:[M,N,d] max_steps learning_rate:positive-or-none")
def m_step_on_draws(
    w: W,
    T: Float[Array, "M N d"],
    X: Float[Array, "N D"],
    *,
    max_steps: int = 20,
    learning_rate: float | None = None,
) -> W:
    """argmax_w 1/M Σ_s log p(X,T_s|w), T_s ~ q(T): the M-step of Monte Carlo EM, on draws in place of nodes.

    Args:
        w: decoder, where the search begins.
        T: [M, N, d], M draws of every datum's latent.
        X: [N, D], data.
        max_steps: as in `m_step`.
        learning_rate: of Adam, which then takes max_steps steps in place of L-BFGS; None for L-BFGS.

    Returns:
        The new decoder.

    Raises:
        ValueError: if the shapes do not fit, if the draws or w are not finite, and for constant columns as in `m_step`.
        NotFinite: if the value or its gradient is not finite during the search.

    Source: Slide 15.
    """
    if learning_rate is not None and not is_linear(w):
        options: Any = {"key": jax.random.key(0), "chunk": max_steps, "progress": False}
        return ascend(log_p_of_draws, w, (X, T), steps=max_steps, learning_rate=learning_rate, **options).w
    M, N, d = T.shape
    # Each draw is a node that belongs to one datum.
    x = jnp.broadcast_to(X[None], (M, *X.shape)).reshape(M * N, -1)
    of_draws = Summary(T.reshape(M * N, d), jnp.full(M * N, 1 / (M * N), X.dtype), x, jnp.zeros_like(x))
    return highest(w, of_draws, max_steps)[0]


def log_p_of_draws(w: Any, data: tuple[Array, Array], _: Any = None) -> Float[Array, ""]:
    """1/(MN) Σ_s log p(X|T_s,w), nats per datum; data: X [N, D] and T [M, N, d]."""
    X, T = data
    x = jnp.broadcast_to(X[None], (len(T), *X.shape)).reshape(-1, X.shape[1])
    return jax.vmap(log_p_x_given_t, in_axes=(None, 0, 0))(w, x, T.reshape(len(x), -1)).mean()


@door("w X:X-of-a-regression nodes:nodes-of-a-table max_steps")
def em_step(w: W, X: Float[Array, "N D"], nodes: Nodes, *, max_steps: int = 20) -> W:
    """w_new = argmax_w' Σ_i E_{p(t|x_i,w)} log p(x_i,t|w'): one E-step and one M-step; log p(X|w) never falls.

    Args:
        w: decoder, where the search begins.
        X: [N, D], data.
        nodes: the points of q.
        max_steps: as in `m_step`.

    Returns:
        The new decoder.

    Raises:
        ValueError: as in `e_step` and `m_step`.
        NotFinite: as in `m_step`.

    Source: Slides 10–12.
    """
    return m_step(w, e_step(w, X, nodes), X, max_steps=max_steps)


@door("w:decoder X:X-of-a-regression nodes:nodes-of-a-table steps max_steps")
@interruptible
def fit(
    w: Decoder, X: Float[Array, "N D"], nodes: Nodes, *, steps: int, max_steps: int = 20, progress: bool = True
) -> Run:
    """max_w log p(X|w) by E-step, M-step, E-step, M-step, …, with the bound and log p(X|w) recorded at each.

    Args:
        w: decoder, where the search begins; see `decoders.start_at`.
        X: [N, D], data.
        nodes: fixed for the whole run.
        steps: number of iterations.
        max_steps: of each M-step.
        progress: show the bar.

    Returns:
        The decoders with their values; after Ctrl-C the record up to the last complete iteration.

    Raises:
        ValueError: as in `e_step` and `m_step`.
        NotFinite: as in `m_step`.

    Warns:
        RuntimeWarning: if half of the final posteriors rest on fewer than two nodes: the grid is too coarse.

    Source: Slides 10–12.
    """

    def iteration(_: int, w: Any, __: None) -> tuple[Any, None, tuple[float, ...], int]:
        q = e_step(w, X, nodes)
        touching = mean_bound(w, q, X, nodes)
        w_new, asked = highest(w, summary(X, q), max_steps)
        lifted = mean_bound(as_module(w_new), q, X, nodes)
        return w_new, None, (touching, lifted), (1 + asked) * len(nodes.t)

    value = mean_log_p_x(X, nodes)
    run = alternate(iteration, w, None, steps=steps, value=value, unit="EM step", progress=progress)
    warn_if_few_nodes(e_step(as_module(run.w), X, nodes).weight)
    return run


@door("w X q:weights nodes:nodes-of-q")
def mean_bound(w: Decoder, q: Weighted, X: Float[Array, "N D"], nodes: Nodes) -> float:
    """1/N L(w, q) = 1/N Σ_i Σ_s q_i(t_s) [log p(x_i|t_s,w) + log p(t_s) − log q_i(t_s)], nats per datum.

    Args:
        w: decoder.
        q: the posteriors of all data, with log_weight [N, S].
        X: [N, D], data.
        nodes: the points of q; p(t_s) is the node's share of the prior, exp(log_weight_s).

    Returns:
        A float, nats per datum.

    Raises:
        ValueError: if the shapes do not fit, or if the points of q are not the nodes.

    Source: Slide 12.
    """
    return float(_mean_bound(w, q, X, nodes.log_weight))


def highest(w: Any, summary: Summary, max_steps: int) -> tuple[Any, int]:
    """argmax_w 1/N E_q log p(X|T,w): a regression of x on t for Linear, L-BFGS from w for every other decoder.

    Also returns how often the value and its gradient were computed.
    """
    if is_linear(w):
        return regression(w, summary), 0
    found = maximise_decoder(expected_log_p, w, summary, summary.t, summary.mean, max_steps)
    return found.w, found.evaluations


class Summary(eqx.Module):
    """Sufficient statistics of q and X for the M-step, per datum: each node's share of the data, their mean and spread.

    t: [S, d]. n: [S] = 1/N Σ_i q_i(t_s). mean: [S, D] = Σ_i q_i(t_s) x_i / Σ_i q_i(t_s). s: [S, D], the standard
    deviation around that mean. N does not appear: a step costs no more than decoding the S nodes.
    """

    t: Float[Array, "S d"]
    n: Float[Array, "S"]
    mean: Float[Array, "S D"]
    s: Float[Array, "S D"]


@eqx.filter_jit
def summary(X: Array, q: Weighted) -> Summary:
    """n_s = 1/N Σ_i q_i(t_s), and the mean and standard deviation of the data under the weights q_i(t_s)."""
    centre, weight = X.mean(axis=0), q.weight / len(X)
    unit = units(X - centre[None])
    x, n = (X - centre[None]) / unit[None], weight.sum(axis=0)
    first, second = (jnp.matmul(weight.T, power) for power in (x, x**2))
    # A node without any share of the data has no mean and needs none.
    mean, square = (moment / jnp.where(n > 0, n, 1)[:, None] for moment in (first, second))
    s = jnp.sqrt(jnp.maximum(square - mean**2, 0))
    return Summary(q.t, n, mean * unit[None] + centre[None], s * unit[None])


def expected_log_p(w: Any, summary: Summary) -> Float[Array, ""]:
    """1/N Σ_i E_{q_i} log p(x_i|t,w): the part of the bound that depends on w."""
    mu, sigma = jax.vmap(lambda t: w(t))(summary.t)
    n = summary.n[:, None]
    squares = ((summary.mean - mu) / sigma) ** 2 + (summary.s / sigma) ** 2
    return -0.5 * jnp.sum(n * (squares + 2 * jnp.log(sigma) + LOG_2PI))


@eqx.filter_jit
def regression(w: Linear, summary: Summary) -> Linear:
    """The linear regression of the nodes' means on the nodes, each weighted by its share of the data."""
    n = summary.n[:, None] / summary.n.sum()
    t_mean, x_mean = jnp.sum(n * summary.t, axis=0), jnp.sum(n * summary.mean, axis=0)
    t, x = summary.t - t_mean[None], summary.mean - x_mean[None]
    unit = units(jnp.abs(x) + summary.s)
    x, s = x / unit[None], summary.s / unit[None]
    W = jnp.linalg.solve((n * t).T @ t, (n * t).T @ x).T
    error, variance = (jnp.sum(n * (part**2 + s**2), axis=0) for part in (x - t @ W.T, x))
    W = W * unit[:, None]
    return Linear(W, x_mean - W @ t_mean, log_sigma(error, variance, unit, each=w.log_sigma.ndim > 0))


@eqx.filter_jit
def _mean_bound(w: Any, q: Weighted, X: Array, log_p_t: Array) -> Array:
    # 0 log 0 = 0: nodes that are switched off, or where a posterior is 0, add nothing.
    log_ratio = jnp.where(q.log_weight > -jnp.inf, log_p_t[None] - q.log_weight, 0)
    log_ratio = jnp.where(q.weight > 0, log_ratio, 0)
    return expected_log_p(w, summary(X, q)) + jnp.sum(q.weight * log_ratio) / len(X)
