"""Nodes in several dimensions from nodes in one, and whether they can be held."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

MOST_NODES = 2**26


def affordable(rule: str, latent_dim: int, n: int, most: int | None) -> None:
    """Raises ValueError, with the price, where n^latent_dim nodes are too many or the dimension is above `most`."""
    # n^d itself would be too long a number to write, or to wait for.
    count = n**latent_dim if latent_dim * math.log10(n) < 300 else math.inf
    if count <= MOST_NODES and (most is None or latent_dim <= most):
        return
    gigabytes = count * (latent_dim + 1) * jnp.dtype(float).itemsize / 2**30
    limit = f"latent_dim at most {most} and " if most else ""
    raise ValueError(
        f"{rule} needs {limit}at most {MOST_NODES:,} nodes; latent_dim={latent_dim} with n={n} asks for"
        f" {n}^{latent_dim} = {count:.3g} nodes, {gigabytes:.3g} GiB before a single datum is seen. Use a smaller n,"
        f" or monte_carlo(latent_dim, M, key=key), whose cost does not grow with the dimension"
    )


def tensor(latent_dim: int, t: np.ndarray, log_weight: np.ndarray) -> tuple[Array, Array]:
    """Every combination of one-dimensional nodes; logarithms of the weights add up."""
    points = np.stack(np.meshgrid(*[t] * latent_dim, indexing="ij"), axis=-1).reshape(-1, latent_dim)
    weights = np.sum(np.meshgrid(*[log_weight] * latent_dim, indexing="ij"), axis=0).reshape(-1)
    return jnp.asarray(points), jnp.asarray(weights)
