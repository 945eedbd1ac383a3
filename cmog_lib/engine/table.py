"""Nodes in several dimensions from nodes in one, and whether they, and tables over them, can be held."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

MOST_OF_NODES, MOST_OF_A_TABLE = 2, 8  # GiB


def affordable(rule: str, latent_dim: int, n: int, most: int | None) -> None:
    """Raises ValueError, with the price, where n^latent_dim nodes are too many or the dimension is above `most`."""
    # n^d itself would be too long a number to write, or to wait for.
    count = n**latent_dim if latent_dim * math.log10(n) < 300 else math.inf
    price = _gigabytes(count * (latent_dim + 1))
    if price <= MOST_OF_NODES and (most is None or latent_dim <= most):
        return
    limit = f"latent_dim at most {most} and " if most else ""
    raise ValueError(
        f"{rule} needs {limit}nodes of at most {MOST_OF_NODES} GiB; latent_dim={latent_dim} with n={n} asks for"
        f" {n}^{latent_dim} = {count:.3g} nodes, {price:.3g} GiB before a single datum is seen. Use a smaller n,"
        f" or monte_carlo(latent_dim, M, key=key), whose cost does not grow with the dimension"
    )


def affordable_draws(latent_dim: int, M: int) -> None:
    """Raises ValueError, with the price, where M draws are too many."""
    price = _gigabytes(M * (latent_dim + 1))
    if price > MOST_OF_NODES:
        raise ValueError(
            f"M must leave nodes of at most {MOST_OF_NODES} GiB, got {M}: with latent_dim={latent_dim},"
            f" {price:.3g} GiB. Take fewer draws, or average log p(x|w) over several calls with other keys"
        )


def affordable_table(X: Any, S: int) -> None:
    """Raises ValueError, with the price, where a number for each datum and node is too much for a device."""
    devices = len(X.sharding.device_set) if isinstance(X, jax.Array) and not isinstance(X, jax.core.Tracer) else 1
    price = _gigabytes(len(X) * S / devices)
    if price > MOST_OF_A_TABLE:
        raise ValueError(
            f"X and nodes must leave a table of at most {MOST_OF_A_TABLE} GiB, got {len(X)} data on {S} nodes:"
            f" {price:.3g} GiB on a device. Take fewer data at a time, or fewer nodes"
        )


def tensor(latent_dim: int, t: np.ndarray, log_weight: np.ndarray) -> tuple[Array, Array]:
    """Every combination of one-dimensional nodes; logarithms of the weights add up."""
    # A column at a time: the points exist once, in the session's precision.
    n, weights = len(t), log_weight
    points = np.empty((n**latent_dim, latent_dim), jax.dtypes.canonicalize_dtype(float))
    for j in range(latent_dim):
        points[:, j] = np.tile(np.repeat(t, n ** (latent_dim - 1 - j)), n**j)
    for _ in range(latent_dim - 1):
        weights = (weights[:, None] + log_weight[None]).reshape(-1)
    return jnp.asarray(points), jnp.asarray(weights)


def _gigabytes(numbers: int | float) -> float:
    return numbers * jax.dtypes.canonicalize_dtype(float).itemsize / 2**30
