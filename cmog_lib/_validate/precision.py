"""Everything is worked on in the session's precision: float64 with `jax_enable_x64`, float32 without."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def in_session(tree: Any) -> Any:
    """The same pytree with its floating-point arrays in the session's precision."""
    precision = jnp.result_type(float)

    def differs(leaf: Any) -> bool:
        real = isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return bool(real and leaf.dtype != precision)

    if not any(map(differs, jax.tree.leaves(tree))):
        return tree
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if differs(leaf) else leaf, tree)
