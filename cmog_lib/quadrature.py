"""log p(x|w) and p(t|x,w) by adding up over latents: three choices of nodes, one sum."""

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

    latent_dim: d, 1 to 3. n: cells a dimension, at least 2. half_width: the box is [-half_width, half_width]^d.
    Nodes are in row-major order: `nodes.log_weight.reshape(n, n)[i, j]` belongs to t = (centre i, centre j).
    Raises ValueError for a larger latent dimension, with what the grid would cost there. Slide 2.
    """
    step = 2 * half_width / n
    centre = -half_width + step * (np.arange(n) + 0.5)
    return Nodes(*table.tensor(latent_dim, centre, np.log(step) - 0.5 * (centre**2 + LOG_2PI)))


@door("latent_dim n:nodes-of-gauss-hermite")
def gauss_hermite(latent_dim: int, n: int) -> Nodes:
    """∫ f(t) p(t) dt, without error where f is a polynomial of degree below 2n in every t_j: n^d nodes.

    latent_dim: d. n: nodes a dimension, at least 2. Exact for polynomials, poor for a sharp likelihood.
    Raises ValueError when there would be too many nodes to hold. Source: Golub and Welsch (1969); SciPy computes it.
    """
    return Nodes(*table.gauss_hermite(latent_dim, n))


@door("latent_dim M:draws-of-the-prior key")
def monte_carlo(latent_dim: int, M: int, *, key: Key[Array, ""]) -> Nodes:
    """∫ f(t) p(t) dt ≈ 1/M Σ_s f(t_s), t_s ~ p(t) = N(0, I).

    latent_dim: d, as large as you like. M: how many draws. Raises ValueError when M < 1, when there would be too many
    draws to hold, and when the key is not a typed one.
    """
    t = jax.random.normal(key, (M, latent_dim))
    return Nodes(t, jnp.full(M, -np.log(M), t.dtype))


@door("w X nodes")
def log_p_x(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Float[Array, "N"]:
    """log p(x_i|w) = log Σ_s exp(log_weight_s) p(x_i|t_s,w), in nats, for every datum.

    w: decoder. X: [N, D], data. nodes: where to add up. Returns [N]. Differentiable in w; memory stays bounded.
    Raises ValueError when the shapes of X and the nodes are not the decoder's, or μ or σ is no number at a node.
    Slides 2 and 3.
    """
    # The same as jax.nn.logsumexp(log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None], axis=1), in blocks.
    return table.logsumexp(w, X, nodes)


@door("w X nodes:nodes-of-a-table")
@table.finite
@eqx.filter_jit
def posterior(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Weighted:
    """p(t_s|x_i,w) = weight_s p(x_i|t_s,w) / Σ_s' weight_s' p(x_i|t_s',w): Bayes' rule on the nodes.

    w: decoder. X: [N, D], data. nodes: where the posterior lives. Returns all N posteriors on the shared nodes,
    log_weight [N, S]. Raises ValueError when the shapes of X and the nodes are not the decoder's, and when N × S
    numbers are too many to hold. Slide 13.
    """
    return Weighted(nodes.t, log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None])  # which normalises


@dataclass(frozen=True, eq=False)
class Exact:
    """log p(x_i|w) with an estimate of its error, both [N], in nats and in double precision whatever the session's is.

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
        t, log_weight = self._cells_of(count("i", i, 0, len(self.log_p_x) - 1))
        return Weighted(jnp.asarray(t), jnp.asarray(log_weight))


@door("max_cells", w=cells.few_latents, X=cells.in_double, tolerance=cells.tolerance)
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
    return Exact(*cells.log_p_x(w, X, tolerance, max_cells))
