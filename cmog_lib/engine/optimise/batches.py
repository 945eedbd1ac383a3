"""Batches: the data that a step of a training loop sees."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Float, Key


def shares_of(X: Any) -> int:
    """k, where the rows of X lie on k devices in equal shares; 1 where one device holds them all."""
    if not isinstance(X, jax.Array) or isinstance(X, jax.core.Tracer):
        return 1
    rows, *_ = X.sharding.shard_shape(X.shape)
    return len(X) // rows


def batch_of(X: Float[Array, "N D"], size: int, shares: int, key: Key[Array, ""]) -> Float[Array, "size D"]:
    """x_{i_1}, …, x_{i_size}, i ~ U{1 … N}: independent draws, size / shares of them from each share of the rows.

    X: [N, D], data. size: a multiple of `shares`; where it is N or more, X itself is returned. shares: `shares_of(X)`,
    asked for before compilation, because a traced array has no place. A device draws from its own rows only, so that
    no datum travels between devices and each of them computes its part of the batch.
    """
    if size >= len(X):
        return X
    rows = len(X) // shares
    chosen = jax.random.randint(key, (shares, size // shares), 0, rows)
    drawn = jax.vmap(lambda share, k: share[k])(X.reshape(shares, rows, X.shape[1]), chosen)
    return drawn.reshape(size, X.shape[1])


def batch_size_for(X: Any, batch_size: int) -> int:
    """The batch size rounded up to a multiple of the devices that hold X, and at most N."""
    shares = shares_of(X)
    return min(-(-batch_size // shares) * shares, len(X))
