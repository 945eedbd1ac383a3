"""All latent dimensions at once: models of d = 1, 2, 4 … as one array of models of the largest, padded."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from cmog_lib.amortised.encoders import Encoder
from cmog_lib.amortised.vae import mean_bound
from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import door
from cmog_lib.engine.encoders import described
from cmog_lib.engine.optimise.batches import ascend_on_batches
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.engine.padding import CutDecoder, CutEncoder, cut
from cmog_lib.posteriors import Gaussian


class PaddedDecoder(eqx.Module):
    """μ, σ = w(t_1, …, t_d, 0, …, 0): a decoder that ignores the latents after the d-th.

    As a model it is that of d latents: the others integrate to one in p(x|w) = ∫ p(x|t,w) p(t) dt.

    Attributes:
        w: the decoder of all latents.
        used: [d_max], True for the latents that it uses.
    """

    w: Any
    used: Bool[Array, "d_max"]

    @property
    def latent_dim(self) -> int:
        return self.w.latent_dim

    @property
    def data_dim(self) -> int:
        return self.w.data_dim

    def __call__(self, t: Float[Array, "d_max"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        return self.w(jnp.where(self.used, t, 0))


class PaddedEncoder(eqx.Module):
    """q(t|x) = N(m(x), diag s²(x)) for the latents that are used, and p(t) = N(0, 1), their posterior, for the others.

    The others add nothing to KL(q‖p(t)), nor to L(w,q).

    Attributes:
        encoder: the encoder of all latents.
        used: [d_max], as in `PaddedDecoder`.
    """

    encoder: Any
    used: Bool[Array, "d_max"]

    @property
    def latent_dim(self) -> int:
        return self.encoder.latent_dim

    @property
    def data_dim(self) -> int:
        return self.encoder.data_dim

    def __call__(self, x: Float[Array, "D"]) -> Gaussian:
        q = self.encoder(x)
        return Gaussian(jnp.where(self.used, q.m, 0), jnp.where(self.used, q.log_s, 0))


class EveryDimension(eqx.Module):
    """Models of all `dims`, trained side by side.

    Attributes:
        w: the decoders, padded to the largest dimension; every array has a leading axis for dims.
        encoder: the encoders, padded likewise.
        dims: the latent dimensions.
        trace: the sum of their mean bounds at every step, in nats per datum.
        interrupted: whether Ctrl-C stopped the training.
    """

    w: PaddedDecoder
    encoder: PaddedEncoder
    dims: tuple[int, ...] = eqx.field(static=True)
    trace: Float[np.ndarray, "steps"]
    interrupted: bool = False

    def model(self, d: int) -> tuple[CutDecoder, CutEncoder]:
        """The decoder and the encoder of d latents alone, without the padding.

        Args:
            d: one of dims.

        Returns:
            A `CutDecoder` and a `CutEncoder`, whose latent_dim is d.

        Raises:
            ValueError: if d was not trained.
        """
        if d not in self.dims:
            raise ValueError(f"d must be one of {self.dims}, got {d!r}")
        return cut(self.w.w, self.encoder.encoder, self.dims.index(d), int(d))


@door("w encoder X M batch_size dims:dims-of-w")
@interruptible
def fit_every_dimension(
    w: Decoder,
    encoder: Encoder,
    X: Float[Array, "N D"],
    dims: tuple[int, ...],
    *,
    steps: int,
    key: Key[Array, ""],
    batch_size: int = 128,
    M: int = 1,
    learning_rate: float = 2e-3,
    chunk: int = 50,
    progress: bool = True,
) -> EveryDimension:
    """max Σ_d 1/N Σ_i L(w_d, q_d(t|x_i)), over all d of dims at once: each d has its own parameters and maximum.

    At a step, all models get the same data and the same draws, so that two of them differ only in d. After Ctrl-C it
    returns the result so far.

    Args:
        w: decoder of the largest dimension. The models of all dims begin as copies of it that use the first d latents.
        encoder: of the largest dimension, copied likewise.
        X: [N, D], data.
        dims: different numbers from 1 to w.latent_dim.
        steps: number of gradient steps.
        key: random key.
        batch_size: number of data in a step, drawn at random.
        M: number of draws of t for each datum in a step.
        learning_rate: of Adam.
        chunk: number of steps in one compiled call; between calls the progress bar is updated and Ctrl-C is checked.
        progress: show the progress bar.

    Returns:
        An `EveryDimension`.

    Raises:
        ValueError: if dims is invalid, and as `fit` does.
        NotFinite: as `fit` does.
    """
    options: Any = {"steps": steps, "learning_rate": learning_rate, "chunk": chunk, "progress": progress}

    def facts(both: Any, batch: Array, key: Array) -> str:
        k = int(jnp.argmin(jnp.isfinite(bounds(both, batch, M, key))))  # the first, if only a gradient is not finite
        w, encoder = jax.tree.map(lambda a: a[k], both)
        return f"with d = {dims[k]} {described(w, encoder, X, key)}"

    both = padded(w, encoder, dims)
    found = ascend_on_batches(sum_of_bounds, both, X, M, batch_size=batch_size, key=key, facts=facts, **options)
    return EveryDimension(found.w[0], found.w[1], dims, found.trace, found.interrupted)


def padded(w: Any, encoder: Any, dims: tuple[int, ...]) -> tuple[PaddedDecoder, PaddedEncoder]:
    """Copies of both, one for each d of dims, stacked along a leading axis; each uses its first d latents.

    Args:
        w: decoder of the largest dimension.
        encoder: of the largest dimension.
        dims: the latent dimensions.

    Returns:
        The padded decoders and the padded encoders.
    """
    used = jnp.arange(w.latent_dim)[None] < jnp.asarray(dims)[:, None]
    models = [(PaddedDecoder(w, u), PaddedEncoder(encoder, u)) for u in used]
    return jax.tree.map(lambda *copies: jnp.stack(copies), *models)


def sum_of_bounds(both: Any, X: Float[Array, "N D"], M: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """Σ_d 1/N Σ_i L(w_d, q_d(t|x_i)): what is maximised, on a batch and draws that are the same for every d."""
    return bounds(both, X, M, key).sum()


def bounds(both: Any, X: Float[Array, "N D"], M: int, key: Key[Array, ""]) -> Float[Array, "dims"]:
    """1/N Σ_i L(w_d, q_d(t|x_i)) for each d: `mean_bound` of one model after the other."""
    return jax.lax.map(lambda one: mean_bound(one, X, M, key), both)
