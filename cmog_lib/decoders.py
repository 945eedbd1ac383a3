"""w itself: the decoder t ↦ μ(t, w), σ(t, w). Anything with this shape is a model for the whole library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib import _validate


@runtime_checkable
class Decoder(Protocol):
    """p(x|t,w) = N(μ(t,w), diag σ²(t,w)): what every function of the library asks of a model.

    `sigma` is a standard deviation. Slides 7–10.
    """

    @property
    def latent_dim(self) -> int: ...

    @property
    def data_dim(self) -> int: ...

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]: ...


class Linear(eqx.Module):
    """μ(t) = Wt + b, Σ(t) = Σ₀ = diag σ²: PPCA when σ is one number, factor analysis when it has D entries.

    W: [D, d] loadings. b: [D] mean. log_sigma: [] or [D], the logarithm of the standard deviation σ.
    Raises ValueError when the shapes do not fit together. Slide 4.
    """

    W: Float[Array, "D d"]
    b: Float[Array, "D"]
    log_sigma: Float[Array, ""] | Float[Array, "D"]

    def __init__(self, W: Array, b: Array, log_sigma: Array | float) -> None:
        self.W = _validate.array("W", W, ("D", "d"))
        data_dim, _ = self.W.shape
        self.b = _validate.array("b", b, (data_dim,))
        self.log_sigma = _validate.array("log_sigma", log_sigma, (data_dim,) if jnp.ndim(log_sigma) else ())

    @property
    def latent_dim(self) -> int:
        return self.W.shape[-1]

    @property
    def data_dim(self) -> int:
        return self.W.shape[-2]

    @property
    def sigma(self) -> Float[Array, "D"]:
        """σ, the standard deviation of every coordinate of x given t."""
        return jnp.broadcast_to(jnp.exp(self.log_sigma), self.b.shape)

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        return self.W @ t + self.b, self.sigma


class Opaque(eqx.Module):
    """μ, σ = w(t) for a decoder that is no pytree: compiled functions know it by identity, not by its arrays."""

    call: Callable = eqx.field(static=True)
    latent_dim: int = eqx.field(static=True)
    data_dim: int = eqx.field(static=True)

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        return self.call(t)


def as_module(w: Decoder) -> eqx.Module:
    """The same decoder t ↦ μ(t), σ(t), in a form that a jitted function takes as an argument."""
    return w if isinstance(w, eqx.Module) else Opaque(w.__call__, w.latent_dim, w.data_dim)
