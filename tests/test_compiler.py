"""The compiler under the library computes what it is asked to: jaxlib 0.10.2 does not, and is excluded for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

# A reader's process compiles with these; the other tests here do without them.
AS_EVERYWHERE = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


def test_jit_of_a_vmapped_product_and_sum_is_right_for_many_points(dtype):
    n = 40_000  # the fault of jaxlib 0.10.2 (jax-ml/jax issue 39103) shows from 32,769 points, in float64 from 16,385
    rows = jnp.stack([jnp.arange(n, dtype=dtype), jnp.zeros(n, dtype), jnp.zeros(n, dtype)], axis=1)
    matrix = jnp.eye(3, dtype=dtype)
    squares = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)), compiler_options=AS_EVERYWHERE)(rows)
    assert np.array_equal(np.asarray(squares), np.arange(n, dtype=dtype) ** 2)
