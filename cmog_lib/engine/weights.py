"""The random numbers with which networks begin, drawn without a compilation for every shape."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key


def linear_layer(n_in: int, n_out: int, key: Key[Array, ""]) -> eqx.nn.Linear:
    """`eqx.nn.Linear(n_in, n_out, key=key)`, with weights and biases drawn by `uniform`."""
    blank = eqx.filter_eval_shape(eqx.nn.Linear, n_in, n_out, key=key)
    drawn = [
        jnp.asarray(uniform(k, part.shape, 1 / math.sqrt(n_in)))
        for k, part in zip(jax.random.split(key), (blank.weight, blank.bias), strict=True)
    ]
    return eqx.tree_at(lambda layer: [layer.weight, layer.bias], blank, drawn)


def uniform(key: Key[Array, ""], shape: tuple[int, ...], limit: float = 1.0) -> Any:
    """`jax.random.uniform(key, shape, minval=-limit, maxval=limit)`, without a compilation for every shape.

    The n-th number depends only on the key and n, so the numbers of any shape are the first of a longer row. The result
    is a NumPy array, except inside `jit`.
    """
    if isinstance(key, jax.core.Tracer):
        return jax.random.uniform(key, shape, minval=-limit, maxval=limit)
    count = math.prod(shape)
    length = 64 ** max(1, math.ceil(math.log(count, 64)))
    return np.asarray(_row(key, length, jnp.asarray(limit, float)))[:count].reshape(shape)


@partial(jax.jit, static_argnames="length")
def _row(key: Key[Array, ""], length: int, limit: Float[Array, ""]) -> Float[Array, "length"]:
    return jax.random.uniform(key, (length,), minval=-limit, maxval=limit)
