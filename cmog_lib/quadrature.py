"""log p(x|w) and p(t|x,w) as sums over latents: three choices of nodes, one sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine import cells, table
from cmog_lib.engine.door import count, door
from cmog_lib.model import LOG_2PI, log_p_x_given_t_table
from cmog_lib.nodes import Nodes
from cmog_lib.posteriors import Weighted

__all__ = ["Exact", "Nodes", "exact", "gauss_hermite", "grid", "log_p_x", "monte_carlo", "posterior"]


@door("latent_dim n:nodes-of-a-grid half_width:positive")
def grid(latent_dim: int, n: int, half_width: float = 6.0) -> Nodes:
    """∫ f(t) p(t) dt ≈ Σ_s f(t_s) p(t_s) h^d: the centres of n^d equal cells of side h = 2·half_width/n.

    Returns the nodes in row-major order: `nodes.log_weight.reshape(n, n)[i, j]` belongs to t = (centre i, centre j).

    Args:
        latent_dim: d, 1 to 3.
        n: cells per dimension, at least 2.
        half_width: the box is [-half_width, half_width]^d.

    Returns:
        The nodes, whose weights contain p(t) h^d.

    Raises:
        ValueError: for a larger latent dimension or too many nodes, with the memory that the grid would need.

    Source: Slide 2.
    """
    step = 2 * half_width / n
    centre = -half_width + step * (np.arange(n) + 0.5)
    return Nodes(*table.tensor(latent_dim, centre, np.log(step) - 0.5 * (centre**2 + LOG_2PI)))


@door("latent_dim n:nodes-of-gauss-hermite")
def gauss_hermite(latent_dim: int, n: int) -> Nodes:
    """∫ f(t) p(t) dt, without error if f is a polynomial of degree below 2n in every t_j: n^d nodes.

    The rule is exact for polynomials and poor for a sharp likelihood.

    Args:
        latent_dim: d.
        n: nodes per dimension, at least 2.

    Returns:
        The nodes, whose weights contain p(t).

    Raises:
        ValueError: if there would be too many nodes to hold.

    Source: Golub and Welsch (1969); SciPy computes it.
    """
    return Nodes(*table.gauss_hermite(latent_dim, n))


@door("latent_dim M:draws-of-the-prior key")
def monte_carlo(latent_dim: int, *, M: int, key: Key[Array, ""]) -> Nodes:
    """∫ f(t) p(t) dt ≈ 1/M Σ_s f(t_s), t_s ~ p(t) = N(0, I).

    Draws M nodes of equal weight from the prior.

    Args:
        latent_dim: d, of any size.
        M: number of draws.
        key: a typed key.

    Returns:
        The draws as nodes, each of weight 1/M.

    Raises:
        ValueError: if M < 1, if there would be too many draws to hold, or if the key is not a typed one.
    """
    t = jax.random.normal(key, (M, latent_dim))
    return Nodes(t, jnp.full(M, -np.log(M), t.dtype))


@door("w X nodes")
def log_p_x(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Float[Array, "N"]:
    """log p(x_i|w) = log Σ_s exp(log_weight_s) p(x_i|t_s,w), in nats, for every datum.

    Args:
        w: decoder.
        X: [N, D], data.
        nodes: where to sum.

    Returns:
        [N], nats. Differentiable in w; memory stays bounded.

    Raises:
        ValueError: if the shapes of X and the nodes do not fit the decoder, or if μ or σ is not finite at a node.

    Source: Slides 2 and 3.
    """
    # The same as jax.nn.logsumexp(log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None], axis=1), in blocks.
    return table.logsumexp(w, X, nodes)


@door("w X nodes:nodes-of-a-table")
@table.finite
@eqx.filter_jit
def posterior(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Weighted:
    """p(t_s|x_i,w) = weight_s p(x_i|t_s,w) / Σ_s' weight_s' p(x_i|t_s',w): Bayes' rule on the nodes.

    Args:
        w: decoder.
        X: [N, D], data.
        nodes: the points of the posterior.

    Returns:
        All N posteriors on the shared nodes, with log_weight [N, S].

    Raises:
        ValueError: if the shapes of X and the nodes do not fit the decoder, if N × S numbers are too many to hold, or
            if μ or σ is not finite at a node.

    Source: Slide 13.
    """
    return Weighted(nodes.t, log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None])  # which normalises


@dataclass(frozen=True, eq=False)
class Exact:
    """log p(x_i|w) with an estimate of its error, in nats and always in double precision.

    Attributes:
        log_p_x: [N], nats.
        error: [N], nats: the change from the last halving of the cells, or from leaving out every second cell, plus the
            rounding error; inf if the sum had not settled.
        evaluations: number of latents that this process decoded.
    """

    log_p_x: Float[np.ndarray, "N"]
    error: Float[np.ndarray, "N"]
    evaluations: int
    _cells_of: Callable[[int], tuple[np.ndarray, np.ndarray]] = field(repr=False)

    def posterior(self, i: int) -> Weighted:
        """p(t|x_i,w) on the cells with which the sum for the i-th datum ended.

        Computed at each call. With several hosts, every process must call it.

        Args:
            i: index of the datum, from 0.

        Returns:
            The posterior, with t [S, d] and log_weight [S].

        Raises:
            ValueError: if there is no such datum.
        """
        t, log_weight = self._cells_of(count("i", i, 0, len(self.log_p_x) - 1))
        return Weighted(jnp.asarray(t), jnp.asarray(log_weight))


@door(w=cells.few_latents, X=cells.in_double, tolerance=cells.tolerance)
def exact(
    w: Decoder,
    X: Float[Array, "N D"] | Float[np.ndarray, "N D"],
    *,
    tolerance: float = 1e-4,
) -> Exact:
    """log p(x_i|w) = log ∫ p(x_i|t,w) p(t) dt to a stated error: cells with mass are halved until the sum is stable.

    Computes in double precision, whatever the session's precision is. Its values are the reference of the series.

    Assumes that p(x,t|w) has no mode further out than |t_j| = 8 that is cut off from all mass nearer in. Assumes, too,
    that no feature of μ or σ is too narrow to be seen. The first cells have a side of 1/32, 1/4 or 2/3 (d = 1, 2, 3),
    and between their centres w is compared with its slopes at 16,384 more latents. For |t| up to 2 this finds a bump of
    μ of 20 σ down to a width of 0.01, 0.02 or 0.1 (the standard deviation of its Gaussian shape). A narrower one may be
    missed, and then `error` does not show it.

    Args:
        w: decoder with latent_dim 1, 2 or 3.
        X: [N, D], data.
        tolerance: the error to reach, 1e-10 to 0.5 nats.

    Returns:
        The values and their errors, both [N], and the posteriors on request.

    Raises:
        ValueError: for more latent dimensions, and if μ or σ is not finite or σ is not positive at a latent, which the
            message names.

    Warns:
        RuntimeWarning: if the tolerance was not reached; `error` then states the error that was reached.
    """
    return Exact(*cells.log_p_x(w, X, tolerance))
