"""max_w log p(X|w) directly: the integral over t inside the gradient, possible because the latent dimension is tiny."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import decoded, described, door, warn
from cmog_lib.engine.optimise.batches import batch_of, batch_size_for, shares_of
from cmog_lib.engine.optimise.faults import with_facts
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.engine.table import CELLS
from cmog_lib.model import LOG_2PI, log_p_x_given_t_table
from cmog_lib.optimise import Ascent, NotFinite, ascend
from cmog_lib.quadrature import Nodes, grid, log_p_x

__all__ = ["fit", "shifted_grid"]

COARSE = 2.0  # nats that cells of half the side may add before a grid is called too coarse


@door("latent_dim n:nodes-of-a-grid half_width:positive key")
def shifted_grid(latent_dim: int, n: int, half_width: float = 4.0, *, key: Key[Array, ""]) -> Nodes:
    """∫ f(t) p(t) dt = E_u Σ_s f(t_s + hu) p(t_s + hu) h^d, u ~ U(−½, ½)^d: a grid shifted at random by part of a cell.

    It is unbiased for any n. In training, a new shift at every step prevents the decoder from fitting one set of nodes
    and ignoring what lies between them.

    Args:
        latent_dim: d, 1 to 3.
        n: cells per dimension, of side h = 2·half_width/n.
        half_width: the integral is over [-half_width, half_width]^d. For 4.0, a share of 6e-5 of p(t) lies outside in
            each dimension.
        key: a typed key.

    Returns:
        The shifted nodes, whose weights contain p(t) h^d.

    Raises:
        ValueError: as in `quadrature.grid`, or for an untyped key.

    Source: Cranley and Patterson 1976.
    """
    centres = grid(latent_dim, n, half_width).t
    return _shifted(centres, jnp.asarray(2 * half_width / n, centres.dtype), key)


@door("w key X batch_size n:cells half_width:positive steps chunk learning_rate:positive")
@interruptible
def fit(
    w: Decoder,
    X: Float[Array, "N D"],
    *,
    steps: int,
    key: Key[Array, ""],
    n: int | None = None,
    half_width: float = 4.0,
    batch_size: int = 256,
    learning_rate: float = 5e-3,
    optimiser: Any = None,
    chunk: int = 50,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> Ascent:
    """max_w 1/N Σ_i log p(x_i|w), p(x|w) = ∫ p(x|t,w) p(t) dt: maximum likelihood, the integral inside the gradient.

    Maximises E_u 1/N Σ_i log Σ_s p(x_i|t_s + hu,w) p(t_s + hu) h^d by stochastic gradients. By Jensen's inequality this
    is below log p(x|w); the gap shrinks as the grid becomes finer. A posterior narrower than a cell costs nats.
    `quadrature.exact` gives log p(x|w) itself.

    If the data are sharded over k devices, each device draws its part of the batch from its own rows.

    Args:
        w: decoder with latent_dim 1, 2 or 3, where training begins; see `decoders.start_at`.
        X: [N, D], data.
        steps: number of steps.
        key: a typed key.
        n: cells per dimension of the `shifted_grid` of every step; by default 512, 32 or 14 for d = 1, 2, 3.
        half_width: of the `shifted_grid`.
        batch_size: number of data drawn at random at every step, rounded up to a multiple of k.
        learning_rate: of the default optimiser, Adam, as in `optimise.ascend`.
        optimiser: as in `optimise.ascend`; by default Adam.
        chunk: as in `optimise.ascend`.
        progress: show the bar, in nats per datum.
        checkpoint: as in `optimise.ascend`.

    Returns:
        w and the trace of the value of each step, in nats per datum; after Ctrl-C the result so far.

    Raises:
        ValueError: for data that are not finite or do not fit the decoder, for more latent dimensions, and if w gives
            values that are not finite; the message names the place.
        NotFinite: if values become not finite at a later step; the message names the step and what was found there.

    Warns:
        RuntimeWarning: if, at the end of training, cells of half the side would add more than 2 nats.
    """
    n = CELLS[w.latent_dim] if n is None else n
    nodes, side = grid(w.latent_dim, n, half_width), jnp.asarray(2 * half_width / n, X.dtype)
    decoded(w, nodes.t)
    problem = _Problem(X, nodes.t, side, batch_size_for(X, batch_size), shares_of(X))
    try:
        found = ascend(
            mean_log_p_x,
            w,
            problem,
            steps=steps,
            key=key,
            optimiser=optimiser,
            learning_rate=learning_rate,
            chunk=chunk,
            progress=progress,
            checkpoint=checkpoint,
        )
    except NotFinite as error:
        X, shifted = _batch_and_nodes(problem, jax.random.fold_in(key, error.step))
        raise with_facts(error, described(error.ascent.w, shifted.t, X)) from error
    _warn_if_coarse(found.w, X[:256], n, half_width, key)
    return found


class _Problem(eqx.Module):
    """The inputs of a step besides w: all data, the unshifted nodes and the side of their cells, the batch."""

    X: Float[Array, "N D"]
    centres: Float[Array, "S d"]
    side: Float[Array, ""]
    batch_size: int
    shares: int


def mean_log_p_x(w: Any, problem: _Problem, key: Key[Array, ""]) -> Float[Array, ""]:
    """1/N Σ_i log Σ_s p(x_i|t_s,w) p(t_s) h^d, on a random batch and a grid that is shifted at random."""
    X, nodes = _batch_and_nodes(problem, key)
    # In one block, unlike quadrature.log_p_x, whose blocks are decoded a second time in the backward pass.
    return jax.nn.logsumexp(log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None], axis=1).mean()


def _batch_and_nodes(problem: _Problem, key: Key[Array, ""]) -> tuple[Float[Array, "N D"], Nodes]:
    key_batch, key_shift = jax.random.split(key)
    X = batch_of(problem.X, problem.batch_size, problem.shares, key_batch)
    return X, _shifted(problem.centres, problem.side, key_shift)


def _warn_if_coarse(w: Any, X: Array, n: int, half_width: float, key: Key[Array, ""]) -> None:
    d, keys = w.latent_dim, jax.random.split(key, 4)
    most = (2 * n) ** d

    def nats(n: int) -> float:
        # Both grids have equally many nodes, some of them switched off, so that one compiled function serves both.
        centres = np.asarray(grid(d, n, half_width).t)
        centres = np.pad(centres, ((0, most - len(centres)), (0, 0)), mode="edge")
        side = jnp.asarray(2 * half_width / n, centres.dtype)
        return float(_mean_over_shifts(w, X, jnp.asarray(centres), jnp.asarray(np.arange(most) < n**d), side, keys))

    gap = nats(2 * n) - nats(n)
    if np.isnan(gap):
        decoded(w, grid(d, 2 * n, half_width).t)
    if not gap <= COARSE:
        warn(
            f"with n={2 * n} instead of n={n} cells a dimension, log p(x|w) comes out {gap:.3g} nats higher: sigma has"
            " become so small that posteriors fit between the nodes, and what was maximised is not log p(x|w)."
            " Take a larger n, or a decoder with a larger sigma_min",
        )


@eqx.filter_jit
def _mean_over_shifts(w: Any, X: Array, centres: Array, on: Array, side: Array, keys: Array) -> Float[Array, ""]:
    """1/N Σ_i log p(x_i|w), averaged over a shift of the nodes for each key."""

    def one(key: Key[Array, ""]) -> Float[Array, ""]:
        nodes = _shifted(centres, side, key)
        return log_p_x(w, X, Nodes(nodes.t, jnp.where(on, nodes.log_weight, -jnp.inf))).mean()

    return jax.lax.map(one, keys).mean()


def _shifted(centres: Array, side: Array, key: Key[Array, ""]) -> Nodes:
    d = centres.shape[1]
    t = centres + side * (jax.random.uniform(key, (d,), centres.dtype) - 0.5)[None]
    return Nodes(t, d * jnp.log(side) - 0.5 * jnp.sum(t**2 + LOG_2PI, axis=1))
