"""Of Gaussians: an s whose square is a number, a Cholesky factor, and the shape of one latent."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def of_one(m: Array) -> tuple[int, ...]:
    """The shape of t, if m belongs to one posterior."""
    if m.ndim > 1:
        raise ValueError(f"q must be one posterior, got a batch of shape {list(m.shape[:-1])}; take jax.vmap over it")
    return m.shape


def lower(L: Array) -> Array:
    """L, if it is a lower Cholesky factor or its values are not known yet."""
    if isinstance(L, jax.core.Tracer):
        return L
    known = _known(L)
    by: Any = np if isinstance(known, np.ndarray) else jnp
    with jax.ensure_compile_time_eval():
        above = float(by.abs(by.triu(known, 1)).max())
        least = float(by.diagonal(known, axis1=-2, axis2=-1).min())
    if above or not least > 0:
        came = f"entries of up to {above:g} above the diagonal" if above else f"{least:g} on the diagonal"
        raise ValueError(
            f"L must be lower triangular with a positive diagonal, got {came}; take jnp.linalg.cholesky(covariance)"
            " (scipy.linalg.cholesky returns the upper factor, unless lower=True)"
        )
    return L


def _known(value: Array) -> Any:
    """Known numbers as a NumPy array, so that nothing is compiled; over hosts unchanged. Neither is traced."""
    return np.asarray(value) if value.is_fully_addressable else value


def log_s(log_s: Array) -> Array:
    """log_s, if s² = exp(2 log_s), which covariances contain, is positive and finite or not known yet."""
    if isinstance(log_s, jax.core.Tracer):
        return log_s
    lowest, highest = (0.5 * math.log(float(end)) for end in (jnp.finfo(log_s.dtype).tiny, jnp.finfo(log_s.dtype).max))
    known = _known(log_s)
    with jax.ensure_compile_time_eval():
        least, most = float(known.min()), float(known.max())
    if least < lowest or most > highest:
        raise ValueError(
            f"log_s must be from {lowest:.4g} to {highest:.4g}, so that s² = exp(2 log_s) is a positive, finite number"
            f" in {log_s.dtype}, got {least if least < lowest else most:.4g}"
        )
    return log_s
