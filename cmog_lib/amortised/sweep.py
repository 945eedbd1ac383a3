"""Every latent dimension at once: models of d = 1, 2, 4 … as one array of models of the largest, padded."""

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
    """μ, σ = w(t_1, …, t_d, 0, …, 0): a decoder that does not look at the latents past the d-th.

    w: the decoder inside. used: which latents it sees. As a model it is the one of d latents: the others are
    integrated out of p(x|w) = ∫ p(x|t,w) p(t) dt without a trace.
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

    encoder: the one inside. used: as in `PaddedDecoder`. The others add nothing to KL(q‖p(t)), nor to L(w,q).
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
    """μ, σ = w(t_1, …, t_d, 0, …, 0), a decoder of d latents; the same as its padded form in all but `latent_dim`."""

    w: Any
    latent_dim: int = eqx.field(static=True)

    @property
    def data_dim(self) -> int:
        return self.w.data_dim

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        return self.w(jnp.pad(t, (0, self.w.latent_dim - self.latent_dim)))


class CutEncoder(eqx.Module):
    """q(t_1, …, t_d|x) = ∏_j≤d N(t_j; m_j(x), s_j²(x)): the part of an answer that a `CutDecoder` uses."""

    encoder: Any
    latent_dim: int = eqx.field(static=True)

    @property
    def data_dim(self) -> int:
        return self.encoder.data_dim

    def __call__(self, x: Float[Array, "D"]) -> Gaussian:
        q = self.encoder(x)
        return Gaussian(q.m[: self.latent_dim], q.log_s[: self.latent_dim])


class Sweep(eqx.Module):
    """Models of all `dims`, trained side by side. w, encoder: padded to the largest, every array with a leading axis.

    trace: the sum of their mean bounds at every step. interrupted: whether the reader stopped it.
    """

    w: PaddedDecoder
    encoder: PaddedEncoder
    dims: tuple[int, ...] = eqx.field(static=True)
    trace: Float[np.ndarray, "steps"]
    interrupted: bool = False

    def model(self, d: int) -> tuple[CutDecoder, CutEncoder]:
        """The decoder and the encoder of d latents alone, without the padding: latent_dim is d.

        Raises ValueError for a d that was not trained.
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
    """max Σ_d 1/N Σ_i L(w_d, q_d(t|x_i)), over all d of dims at once: each has parameters of its own, so each its max.

    w, encoder: of the largest dimension; the models of all dims begin as they are, cut to their first d latents.
    X: [N, D], data. All see the same data and draws at a step, so that what differs between two is d.
    dims: some of 1 … w.latent_dim, each once. The rest as in `fit`.
    Raises ValueError for dims that are no such thing, and as `fit` does; NotFinite likewise.
    """
    problem = Problem(X, None, batch_size_for(X, batch_size), shares_of(X), M)
    both = padded(w, encoder, dims)
    options: Any = {"learning_rate": learning_rate, "chunk": chunk, "progress": progress}
    try:
        found = ascend(sum_of_bounds, both, problem, steps=steps, key=key, **options)
    except NotFinite as error:
        good = jnp.isfinite(_bounds(error.ascent.w, problem, jax.random.fold_in(key, error.step)))
        k = int(jnp.argmin(good))  # where all are, that of a gradient: the first is as good as any
        w, encoder = jax.tree.map(lambda a: a[k], error.ascent.w)
        raise with_facts(error, f"with d = {dims[k]} {seen(w, encoder, X, key)}") from error
    return Sweep(found.w[0], found.w[1], dims, found.trace, found.interrupted)


def padded(w: Any, encoder: Any, dims: tuple[int, ...]) -> tuple[PaddedDecoder, PaddedEncoder]:
    """Copies of both, one for each d of dims, stacked along a leading axis; each uses its first d latents."""
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
