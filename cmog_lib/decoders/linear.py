"""The linear decoder of lecture 2."""

from __future__ import annotations

from typing import Any, TypeGuard

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cmog_lib.engine import door
from cmog_lib.engine.door import full_precision


class Linear(eqx.Module):
    """μ(t) = Wt + b, Σ(t) = Σ₀ = diag σ²: PPCA when σ is one number, factor analysis when it has D entries.

    Attributes:
        W: [D, d], loadings.
        b: [D], mean.
        log_sigma: [] or [D], the logarithm of the standard deviation σ.

    Raises:
        ValueError: if the shapes do not fit together.

    Source: Slide 4.
    """

    W: Float[Array, "D d"]
    b: Float[Array, "D"]
    log_sigma: Float[Array, ""] | Float[Array, "D"]

    def __init__(self, W: Array, b: Array, log_sigma: Array | float) -> None:
        self.W = door.array("W", W, ("D", "d"))
        data_dim, _ = self.W.shape
        self.b = door.array("b", b, (data_dim,))
        self.log_sigma = door.array("log_sigma", log_sigma, (data_dim,) if np.ndim(log_sigma) else ())

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

    @full_precision
    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        return self.W @ t + self.b, self.sigma


def is_linear(w: Any) -> TypeGuard[Linear]:
    """Whether w is exactly a `Linear`, for which closed forms hold: a derived class may decode differently."""
    return type(w) is Linear


def only_linear(w: Any, which: str, advice: str = "") -> Linear:
    """Returns w in the session's precision if it is a `Linear`.

    Args:
        w: decoder.
        which: what a Linear decoder is needed for, for the error message.
        advice: what to do instead, for the error message.

    Raises:
        ValueError: if w is not a `Linear`.
    """
    if is_linear(w):
        return door.in_session(w)
    came = type(w).__name__ + (", a class derived from it" if isinstance(w, Linear) else "")
    raise ValueError(f"w must be a decoders.Linear, {which}, got {came}{advice}")
