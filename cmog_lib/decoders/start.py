"""Where training begins."""

from __future__ import annotations

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cmog_lib.decoders.linear import Linear
from cmog_lib.decoders.networks import CNN, MLP
from cmog_lib.engine.door import door, in_session

W = TypeVar("W", Linear, MLP, CNN)


def _known(name: str, w: Any, given: dict[str, Any]) -> Any:
    if not isinstance(w, (Linear, MLP, CNN)):
        raise ValueError(f"{name} must be a decoders.Linear, MLP or CNN, got {type(w).__name__}")
    return in_session(w)


@door("w X", w=_known)
def start_at(w: W, X: Float[Array, "N D"]) -> W:
    """b = 1/N Σ_i x_i, σ² = 1/(ND) Σ_i |x_i − b|²: μ starts at the data's mean, σ at their overall standard deviation.

    If the first σ of a network is far from the data's, training spends its first hundreds of steps on correcting it.

    Args:
        w: Linear, MLP or CNN decoder, or one of a class derived from these.
        X: [N, D], data.

    Returns:
        w with a new b and a new offset c of σ (log_sigma of a Linear decoder); nothing else is replaced.

    Raises:
        ValueError: if w is another decoder, if the data have the wrong width, or if their standard deviation is not
            above σ_min.
    """
    b, s = jax.device_get(_mean_and_deviation(X))
    floor = 0.0 if isinstance(w, Linear) else np.asarray(w.sigma_min)
    if not s > floor:
        raise ValueError(f"X must have a standard deviation above sigma_min = {float(floor):g}, got {float(s):g}")
    if isinstance(w, Linear):
        return eqx.tree_at(lambda w: (w.b, w.log_sigma), w, (jnp.asarray(b), jnp.full_like(w.log_sigma, np.log(s))))
    c = s - floor + np.log(-np.expm1(floor - s))  # softplus(c) = s − σ_min, also where exp(s) overflows
    return eqx.tree_at(lambda w: (w.b, w.c), w, (jnp.asarray(b), jnp.full_like(w.c, c)))


@eqx.filter_jit
def _mean_and_deviation(X: Float[Array, "N D"]) -> tuple[Float[Array, "D"], Float[Array, ""]]:
    b = X.mean(axis=0)
    largest = jnp.abs(X - b[None]).max()  # in this unit no square leaves the range of float32
    return b, largest * jnp.sqrt(jnp.mean(((X - b[None]) / jnp.where(largest > 0, largest, 1.0)) ** 2))
