"""A decoder or encoder of d latents, cut out of one that was padded to more latents."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib.engine.optimise.faults import given_back
from cmog_lib.posteriors import Gaussian


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


def cut(w: Any, encoder: Any, k: int, d: int) -> tuple[CutDecoder, CutEncoder]:
    """The k-th of the decoders and encoders that stand along a leading axis, with their first d latents alone."""
    w, encoder = jax.tree.map(lambda a: a[k], (w, encoder))
    return CutDecoder(given_back(w), d), CutEncoder(given_back(encoder), d)
