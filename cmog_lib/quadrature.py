"""log p(x|w) and p(t|x,w) by adding up over latents: three choices of nodes, one sum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib import _nodes, _validate
from cmog_lib._precision import full_precision
from cmog_lib.decoders import Decoder, as_module, projected
from cmog_lib.model import LOG_2PI, log_p_x_given_t_table
from cmog_lib.posteriors import Weighted
from cmog_lib.sharding import by_process, gathered

TABLE_ENTRIES = 2**23  # how many numbers of the table log p(x_i|t_k,w) exist at a time


class Nodes(eqx.Module):
    """∫ f(t) p(t) dt ≈ Σ_s exp(log_weight_s) f(t_s): the prior is inside the weights.

    t: [S, d], latents. log_weight: [S]; -inf switches a node off. Slide 2.
    """

    t: Float[Array, "S d"]
    log_weight: Float[Array, "S"]


def grid(latent_dim: int, n: int, half_width: float = 6.0) -> Nodes:
    """∫ f(t) p(t) dt ≈ Σ_s f(t_s) p(t_s) h^d: the centres of n^d equal cells of side h = 2·half_width/n.

    latent_dim: d, 1 to 3. n: cells a dimension, at least 2. half_width: the box is [-half_width, half_width]^d.
    Nodes are in row-major order: `nodes.log_weight.reshape(n, n)[i, j]` belongs to t = (centre i, centre j).
    Raises ValueError for a larger latent dimension, with what the grid would cost there. Slide 2.
    """
    latent_dim, n = _validate.count("latent_dim", latent_dim), _validate.count("n", n, 2)
    half_width = _validate.positive("half_width", half_width)
    _nodes.affordable("grid", latent_dim, n, 3)
    step = 2 * half_width / n
    centre = -half_width + step * (np.arange(n) + 0.5)
    return Nodes(*_nodes.tensor(latent_dim, centre, np.log(step) - 0.5 * (centre**2 + LOG_2PI)))


def gauss_hermite(latent_dim: int, n: int) -> Nodes:
    """∫ f(t) p(t) dt, without error where f is a polynomial of degree below 2n in every t_j: n^d nodes.

    latent_dim: d. n: nodes a dimension, at least 2. Exact for polynomials, poor for a sharp likelihood.
    Raises ValueError when there would be too many nodes to hold. Source: Golub and Welsch (1969); SciPy computes it.
    """
    from scipy.special import roots_hermitenorm

    latent_dim, n = _validate.count("latent_dim", latent_dim), _validate.count("n", n, 2)
    _nodes.affordable("gauss_hermite", latent_dim, n, None)
    t, weight = roots_hermitenorm(n)
    with np.errstate(divide="ignore"):  # the outermost of several hundred weights underflow, rightly, to nothing
        return Nodes(*_nodes.tensor(latent_dim, t, np.log(weight) - 0.5 * LOG_2PI))


def monte_carlo(latent_dim: int, M: int, *, key: Key[Array, ""]) -> Nodes:
    """∫ f(t) p(t) dt ≈ 1/M Σ_s f(t_s), t_s ~ p(t) = N(0, I).

    latent_dim: d, as large as you like. M: how many draws. Raises ValueError when M < 1, when there would be too many
    draws to hold, and when the key is not a typed one.
    """
    latent_dim, M = _validate.count("latent_dim", latent_dim), _validate.count("M", M)
    _nodes.affordable_draws(latent_dim, M)
    t = jax.random.normal(_validate.key(key), (M, latent_dim))
    return Nodes(t, jnp.full(M, -np.log(M), t.dtype))


@full_precision
def log_p_x(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Float[Array, "N"]:
    """log p(x_i|w) = log Σ_s exp(log_weight_s) p(x_i|t_s,w), in nats, for every datum.

    w: decoder. X: [N, D], data. nodes: where to add up. Returns [N]. Differentiable in w; memory stays bounded.
    Raises ValueError when the shapes of X and the nodes are not the decoder's, or μ or σ is no number at a node.
    Slides 2 and 3.
    """
    w, X, nodes = _checked(w, X, nodes)
    # Of x only what the decoder can tell is asked of every node; the rest is the same at all of them.
    told, seen, constant = projected(w, X)
    return _numbers(_log_p_x(told, seen, nodes) + constant, w, nodes)


@full_precision
def posterior(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Weighted:
    """p(t_s|x_i,w) = weight_s p(x_i|t_s,w) / Σ_s' weight_s' p(x_i|t_s',w): Bayes' rule on the nodes.

    w: decoder. X: [N, D], data. nodes: where the posterior lives. Returns all N posteriors on the shared nodes,
    log_weight [N, S]. Raises ValueError when the shapes of X and the nodes are not the decoder's, and when N × S
    numbers are too many to hold. Slide 13.
    """
    w, X, nodes = _checked(w, X, nodes)
    _nodes.affordable_table(X, len(nodes.t))
    q = _posterior(w, X, nodes)
    _numbers(q.log_weight, w, nodes)
    return q


@dataclass(frozen=True, eq=False)
class Exact:
    """log p(x_i|w) with a bound on its error, both [N], in nats and in double precision whatever the session's is.

    error: what the last halving of the cells, or every second cell left out, changed, with rounding; inf where the
    sum had not settled. evaluations: how many latents this process decoded.
    """

    log_p_x: Float[np.ndarray, "N"]
    error: Float[np.ndarray, "N"]
    evaluations: int
    _cells_of: Callable[[int], tuple[np.ndarray, np.ndarray]] = field(repr=False)

    def posterior(self, i: int) -> Weighted:
        """p(t|x_i,w) on the cells that the i-th datum ended with: t [S, d], log_weight [S]. Computed when asked for.

        i: which datum, from 0; over hosts every process must ask. Raises ValueError when there is no such datum.
        """
        t, log_weight = self._cells_of(_validate.count("i", i, 0, len(self.log_p_x) - 1))
        return Weighted(jnp.asarray(t), jnp.asarray(log_weight))


@full_precision
def exact(
    w: Decoder,
    X: Float[Array, "N D"] | Float[np.ndarray, "N D"],
    *,
    tolerance: float = 1e-4,
    max_cells: int = 2**20,
) -> Exact:
    """log p(x_i|w) = log ∫ p(x_i|t,w) p(t) dt to a stated error: cells halved where the mass is until nothing moves.

    w: decoder with latent_dim 1, 2 or 3. X: [N, D], data. tolerance: the error to reach, 1e-10 to 0.5 nats.
    max_cells: how many cells one datum may use at a time. Always in double precision: this is the truth of the series.
    Warns (RuntimeWarning) where the tolerance was not reached; `error` then says what was.
    Assumes that p(x,t|w) has no mode further out than |t_j| = 8 that is cut off from all mass nearer in. Assumes, too,
    that no feature of μ or σ is too narrow to be seen. The first cells have a side of 1/32, 1/4 or 2/3 (d = 1, 2, 3),
    and between their centres w is compared with its slopes at 16,384 more latents. For |t| up to 2 this finds a bump
    of μ of 20 σ down to a width of 0.01, 0.02 or 0.1 (the standard deviation of its Gaussian shape). A narrower one
    may be missed, and then `error` does not show it.
    Raises ValueError for more latent dimensions, and where μ or σ is not finite or σ not positive, naming the place.
    """
    from cmog_lib import _refine

    d = _validate.decoder(w).latent_dim
    if d not in _refine.SIDE:
        raise ValueError(
            f"w.latent_dim must be 1, 2 or 3 for an exact sum over cells, got {d}: at 64 cells a dimension"
            f" {64.0**d:.3g} latents would be decoded and {64.0**d * 8 / 2**30:.3g} GiB held for each datum. Beyond 3,"
            f" log p(x|w) can only be estimated: log_p_x(w, X, monte_carlo({d}, M, key=key))"
        )
    tolerance, max_cells = _validate.positive("tolerance", tolerance), _validate.count("max_cells", max_cells)
    if not 1e-10 <= tolerance <= 0.5:
        raise ValueError(f"tolerance must be from 1e-10 to 0.5 nats, got {tolerance}")
    with jax.enable_x64(True):
        X, double, evaluations = _validate.array("X", X, ("N", w.data_dim)), _here(as_module(w)), 0

        def settled(rows: np.ndarray) -> np.ndarray:
            nonlocal evaluations
            log_p_x, error, evaluations, _ = _refine.settle(double, rows.astype(float), tolerance, max_cells)
            return np.stack([log_p_x, error], axis=1)

        log_p_x, error = by_process(settled, X).T

    def cells_of(i: int) -> tuple[np.ndarray, np.ndarray]:
        with jax.enable_x64(True):
            row = gathered(X[i : i + 1]).astype(float)
            *_, cells = _refine.settle(double, row, tolerance, max_cells)
        return cells

    missed = ~(error <= tolerance)
    if missed.any():
        worst = int(np.argmax(error))
        warnings.warn(
            f"exact did not reach tolerance={tolerance:g} for {missed.sum()} of {len(X)} data; the worst is"
            f" X[{worst}] with error {error[worst]:.2g}. Raise max_cells (now {max_cells}) or the tolerance; where the"
            f" error is inf, the decoder turns too fast or its sigma is too small for these cells",
            RuntimeWarning,
            stacklevel=3,
        )
    return Exact(log_p_x, error, evaluations, cells_of)


@eqx.filter_jit
def _log_p_x(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Float[Array, "N"]:
    # Blocks of nodes, so that the table never exists as a whole; its backward pass computes each block again.
    S = len(nodes.t)
    block = int(np.clip(TABLE_ENTRIES // max(X.shape), 1, S))
    fill = -S % block
    t = jnp.pad(nodes.t, ((0, fill), (0, 0)), mode="edge").reshape(-1, block, nodes.t.shape[1])
    # A node that is switched off weighs next to nothing, not nothing: a whole block of -inf has no gradient.
    off = jnp.finfo(nodes.log_weight.dtype).min / 4
    log_weight = jnp.pad(nodes.log_weight, (0, fill), constant_values=-jnp.inf).clip(off).reshape(-1, block)

    @jax.checkpoint
    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        t, log_weight = part
        terms = log_p_x_given_t_table(w, X, t) + log_weight[None]
        return jnp.logaddexp(total, jax.nn.logsumexp(terms, axis=1)), None

    start = jnp.full(len(X), -jnp.inf, jnp.result_type(X, nodes.log_weight))
    total = jax.lax.scan(add, start, (t, log_weight))[0]
    return jnp.where(total < off / 2, -jnp.inf, total)


@eqx.filter_jit
def _posterior(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Weighted:
    joint = log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None]
    return Weighted(nodes.t, joint)  # which normalises


def _numbers(values: Array, w: Any, nodes: Nodes) -> Array:
    # One latent is looked at always (a constant that is no number is lost when XLA folds it), all where it shows.
    if not isinstance(values, jax.core.Tracer):
        _validate.decoded(w, nodes.t if bool(jnp.isnan(values).any()) else nodes.t[:1])
    return values


def _here(w: Any) -> Any:
    # In this process's own memory: what was learned from data over hosts lies on the devices of all.
    return jax.tree.map(lambda leaf: jnp.asarray(gathered(leaf)) if eqx.is_inexact_array(leaf) else leaf, w)


def _checked(w: Decoder, X: Array, nodes: Nodes) -> tuple[Any, Array, Nodes]:
    w = as_module(w)
    X = _validate.array("X", X, ("N", w.data_dim))
    return w, X, Nodes(*_validate.nodes(nodes, w.latent_dim))
