"""All latent dimensions at once: models of d = 1, 2, 4 … as one array of models of the largest, padded."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from cmog_lib.amortised import encoders
from cmog_lib.amortised.encoders import Encoder
from cmog_lib.amortised.vae import Problem, batch_bound, seen
from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import door, sizes
from cmog_lib.engine.optimise.batches import batch_size_for, shares_of
from cmog_lib.engine.optimise.faults import given_back, with_facts
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.optimise import NotFinite, ascend
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


class CutDecoder(eqx.Module):
    """μ, σ = w(t_1, …, t_d, 0, …, 0), a decoder of d latents; the same as its padded form in all but `latent_dim`.

    Attributes:
        w: the decoder of all latents.
        latent_dim: d.
    """

    w: Any
    latent_dim: int = eqx.field(static=True)

    @property
    def data_dim(self) -> int:
        return self.w.data_dim

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        return self.w(jnp.pad(t, (0, self.w.latent_dim - self.latent_dim)))


class CutEncoder(eqx.Module):
    """q(t_1, …, t_d|x) = ∏_j≤d N(t_j; m_j(x), s_j²(x)): the factors of q that a `CutDecoder` uses.

    Attributes:
        encoder: the encoder of all latents.
        latent_dim: d.
    """

    encoder: Any
    latent_dim: int = eqx.field(static=True)

    @property
    def data_dim(self) -> int:
        return self.encoder.data_dim

    def __call__(self, x: Float[Array, "D"]) -> Gaussian:
        q = self.encoder(x)
        return Gaussian(q.m[: self.latent_dim], q.log_s[: self.latent_dim])


class Sweep(eqx.Module):
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
        k = self.dims.index(d)
        w, encoder = jax.tree.map(lambda a: a[k], (self.w.w, self.encoder.encoder))
        return CutDecoder(given_back(w), int(d)), CutEncoder(given_back(encoder), int(d))


def _dims(name: str, value: Any, given: dict[str, Any]) -> tuple[int, ...]:
    dims, most = sizes(name, value), given["w"].latent_dim
    if len(set(dims)) != len(dims) or max(dims) > most:
        raise ValueError(f"{name} must be different numbers from 1 to w.latent_dim = {most}, got {dims}")
    return dims


@door("w X M batch_size", encoder=encoders.fitting, dims=_dims)
@interruptible
def fit_sweep(
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
) -> Sweep:
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
        A `Sweep`.

    Raises:
        ValueError: if dims is invalid, and as `fit` does.
        NotFinite: as `fit` does.
    """
    problem = Problem(X, None, batch_size_for(X, batch_size), shares_of(X), M)
    both = padded(w, encoder, dims)
    options: Any = {"learning_rate": learning_rate, "chunk": chunk, "progress": progress}
    try:
        found = ascend(sum_of_bounds, both, problem, steps=steps, key=key, **options)
    except NotFinite as error:
        good = jnp.isfinite(_bounds(error.ascent.w, problem, jax.random.fold_in(key, error.step)))
        k = int(jnp.argmin(good))  # if all are finite, a gradient is not: the first model stands for all
        w, encoder = jax.tree.map(lambda a: a[k], error.ascent.w)
        raise with_facts(error, f"with d = {dims[k]} {seen(w, encoder, X, key)}") from error
    return Sweep(found.w[0], found.w[1], dims, found.trace, found.interrupted)


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


def sum_of_bounds(both: Any, problem: Problem, key: Key[Array, ""]) -> Float[Array, ""]:
    """Σ_d 1/N Σ_i L(w_d, q_d(t|x_i)), estimated from one batch; the same batch and draws for every d."""
    return _bounds(both, problem, key).sum()


def _bounds(both: Any, problem: Problem, key: Key[Array, ""]) -> Float[Array, "dims"]:
    def of_one(both: Any) -> Array:
        return batch_bound(both, problem, key)

    return jax.lax.map(of_one, both)
