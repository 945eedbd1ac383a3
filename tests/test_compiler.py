"""The compiler under the library computes what it is asked to: jaxlib 0.10.2 does not, and is excluded for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def test_jit_of_a_vmapped_product_and_sum_is_right_for_many_points(dtype):
    n = 40_000  # the fault of jaxlib 0.10.2 (jax-ml/jax issue 39103) shows from 32,769 points, in float64 from 16,385
    rows = jnp.stack([jnp.arange(n, dtype=dtype), jnp.zeros(n, dtype), jnp.zeros(n, dtype)], axis=1)
    matrix = jnp.eye(3, dtype=dtype)
    squares = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(rows)
    assert np.array_equal(np.asarray(squares), np.arange(n, dtype=dtype) ** 2)
