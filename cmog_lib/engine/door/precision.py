"""Everything is worked on in the session's precision, and multiplied with all the digits that it has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

P, R = ParamSpec("P"), TypeVar("R")


def in_session(tree: Any) -> Any:
    """The same pytree with its floating-point arrays in the session's precision."""
    precision = jnp.result_type(float)

    def differs(leaf: Any) -> bool:
        real = isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return bool(real and leaf.dtype != precision)

    if not any(map(differs, jax.tree.leaves(tree))):
        return tree
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if differs(leaf) else leaf, tree)


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, in which every matrix product and convolution is at highest precision, and so in its derivatives.

    On NVIDIA GPUs since Ampere JAX multiplies float32 numbers in TF32, with 10 bits of the 23, unless told otherwise.
    Every public function and every network is told here; what they call need not be.
    """

    @functools.wraps(function)
    def precise(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return precise
