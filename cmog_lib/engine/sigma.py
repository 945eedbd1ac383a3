"""log σ from what a regression of x on t leaves over, and the data for which it would be −∞."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

CONSTANT = 8  # roundings of its largest value by which a column may vary and still count as constant


def units(x: Float[Array, "S D"]) -> Float[Array, "D"]:
    """max_i |x_ij|, or 1 where that is 0: in this unit no square of x leaves the range of its precision."""
    largest = jnp.abs(x).max(axis=0)
    return jnp.where(largest > 0, largest, 1.0)


def log_sigma(
    error: Float[Array, "D"], variance: Float[Array, "D"], unit: Float[Array, "D"], *, each: bool
) -> Float[Array, "*D"]:
    """log σ_j = log unit_j + ½ log error_j, or with each=False one σ for all; σ is at least √ε of a standard deviation.

    error: [D], the mean squares that are left over. variance: [D], those of the data. unit: [D], of x in both of them.
    The bound in σ has one maximum, so the best σ that is allowed lifts it too. ε: of the precision.
    """
    floor = jnp.finfo(error.dtype).eps
    if each:
        return jnp.log(unit) + 0.5 * jnp.log(jnp.maximum(error, floor * variance))
    whole = unit.max()
    error, variance = (jnp.mean((unit / whole) ** 2 * squares) for squares in (error, variance))
    return jnp.log(whole) + 0.5 * jnp.log(jnp.maximum(error, floor * variance))


def refuse_constant(X: Any, *, each: bool) -> None:
    """Raises ValueError for columns that do not vary, if each has its own σ; otherwise only if none varies."""
    if isinstance(X, jax.core.Tracer):
        return
    constant = np.flatnonzero(_constant(X))
    if each and len(constant):
        more = ", …" if len(constant) > 20 else ""
        raise ValueError(
            f"X must not have constant columns, since their σ would be 0 and the likelihood infinite; got "
            f"{len(constant)} of them: {', '.join(map(str, constant[:20]))}{more}; leave them out"
        )
    if len(constant) == X.shape[1]:
        raise ValueError(
            f"X must have rows that differ, since σ would be 0 and the likelihood infinite; got {len(X)} of them, and"
            f" all {len(constant)} columns are constant; take other data"
        )


@jax.jit
def _constant(X: Array) -> Bool[Array, "D"]:
    largest = jnp.abs(X).max(axis=0)
    return X.max(axis=0) - X.min(axis=0) <= CONSTANT * jnp.finfo(X.dtype).eps * largest
