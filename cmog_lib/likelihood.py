"""max_w log p(X|w) directly: the integral over t inside the gradient, possible because the latent dimension is tiny."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.decoders.contract import W
from cmog_lib.engine.coarse import Cells, warn_if_coarse
from cmog_lib.engine.door import decoded, described, door
from cmog_lib.engine.optimise.batches import ascend_on_batches
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.engine.table import CELLS
from cmog_lib.model import LOG_2PI, log_p_x_given_t_table
from cmog_lib.optimise import Ascent
from cmog_lib.quadrature import Nodes, grid

__all__ = ["fit", "shifted_grid"]


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
    centres, side = cells(latent_dim, n, half_width)
    return shifted(centres, side, key)


@door("w key X batch_size n:cells half_width:positive steps chunk learning_rate:positive")
@interruptible
def fit(
    w: W,
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
) -> Ascent[W]:
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
    on, halved = (cells(w.latent_dim, k, half_width) for k in (n, 2 * n))
    decoded(w, on[0])
    options: Any = {"steps": steps, "optimiser": optimiser, "learning_rate": learning_rate, "chunk": chunk}
    options |= {"batch_size": batch_size, "progress": progress, "checkpoint": checkpoint}

    def facts(w: Any, X: Array, key: Array) -> str:
        return described(w, shifted(on[0], on[1], key).t, X)

    found = ascend_on_batches(mean_log_p_x, w, X, on, key=key, facts=facts, **options)
    warn_if_coarse(shifted, found.w, X[:256], on, halved, key)
    return found


def mean_log_p_x(w: Decoder, X: Float[Array, "N D"], on: Cells, key: Key[Array, ""]) -> Float[Array, ""]:
    """1/N Σ_i log Σ_s p(x_i|t_s,w) p(t_s) h^d, on cells that are shifted at random: what `fit` maximises.

    Args:
        w: decoder.
        X: [N, D], the data of a step.
        on: the unshifted centres of the cells, [S, d], and their side h.
        key: of the shift.

    Returns:
        A scalar, nats per datum.
    """
    centres, side = on
    nodes = shifted(centres, side, key)
    # In one block, unlike quadrature.log_p_x, whose blocks are decoded a second time in the backward pass.
    return jax.nn.logsumexp(log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None], axis=1).mean()


def shifted(centres: Float[Array, "S d"], side: Float[Array, ""], key: Key[Array, ""]) -> Nodes:
    """t_s = centre_s + h u with weights p(t_s) h^d, the same u ~ U(−½, ½)^d for all nodes."""
    d = centres.shape[1]
    t = centres + side * (jax.random.uniform(key, (d,), centres.dtype) - 0.5)[None]
    return Nodes(t, d * jnp.log(side) - 0.5 * jnp.sum(t**2 + LOG_2PI, axis=1))


def cells(latent_dim: int, n: int, half_width: float) -> Cells:
    """The centres of the cells of `grid(latent_dim, n, half_width)`, and their side h."""
    centres = grid(latent_dim, n, half_width).t
    return centres, jnp.asarray(2 * half_width / n, centres.dtype)
