"""b and S = 1/N Σ_i (x_i − b)(x_i − b)ᵀ, for data that are many, wide, spread over devices, or on disk."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cmog_lib.engine import door

LARGE, BLOCK = 2**24, 4096  # sizes of X from which a covariance is summed in blocks; number of data in a block


def fix_signs(U: Float[Array, "D K"]) -> Float[Array, "D K"]:
    """The columns of U, each with its largest entry positive, since the sign of an eigenvector is arbitrary."""
    size = jnp.abs(U)
    # The first entry that is largest up to rounding, so that a tie is broken in the same way everywhere.
    largest = jax.lax.argmax(size > 0.999 * size.max(axis=0)[None], 0, jnp.int32)
    return U * jnp.sign(jnp.take_along_axis(U, largest[None], axis=0))


def moments(X: Float[Array | np.ndarray, "N D"]) -> tuple[Float[Array, "D"], Float[Array, "D D"]]:
    """b = 1/N Σ_i x_i and S = 1/N Σ_i (x_i − b)(x_i − b)ᵀ, in float64."""
    if not in_blocks(X):
        b, S = _moments(X)
        if dealt_out(X):
            # Each device has summed its share. The sums are small, so one device decomposes them.
            b, S = (jnp.asarray(np.asarray(part)) for part in (b, S))
        return b, S
    # BLAS uses the symmetry of a product, XLA does not. In blocks, the data need no copy in float64.
    x = np.asarray(X)
    b, S, rest = x.mean(axis=0, dtype="float64"), np.zeros((x.shape[1], x.shape[1])), np.zeros(x.shape[1])
    for k in range(0, len(x), BLOCK):
        residual = x[k : k + BLOCK] - b[None]
        S += residual.T @ residual
        rest += residual.sum(axis=0)
    rest /= len(x)  # the rounding error of the mean
    return jnp.asarray(b + rest), jnp.asarray(S / len(x) - rest[:, None] * rest[None, :])


def in_blocks(X: Any) -> bool:
    """Whether NumPy sums X block by block: if X is a file, or large and in the host's memory. Otherwise JAX sums it."""
    return isinstance(X, np.ndarray) or (door.on_host(X) and X.size >= LARGE)


@jax.jit
def _moments(X: Array) -> tuple[Array, Array]:
    x = X.astype("float64")
    b = x.mean(axis=0)
    x = x - b[None]
    rest = x.mean(axis=0)
    return b + rest, x.T @ x / len(x) - rest[:, None] * rest[None, :]


def dealt_out(X: Any) -> bool:
    """Whether several devices hold X."""
    return _devices(X) > 1


def _devices(X: Any) -> int:
    return len(X.sharding.device_set) if isinstance(X, jax.Array) and not isinstance(X, jax.core.Tracer) else 1


def root(X: Float[Array | np.ndarray, "N D"], b: Float[Array, "D"]) -> Float[Array, "D D"]:
    """R with RᵀR = S, in float64, from x − b = QR and so without squares: for each block or device, then for all R."""
    N, D = X.shape
    if not in_blocks(X):
        devices = _devices(X)
        R = _root(X, b, devices if N % devices == 0 else 1)
        return jnp.asarray(np.asarray(R)) if devices > 1 else R
    x, mean, R = np.asarray(X), np.asarray(b), np.zeros((0, D))
    for k in range(0, N, BLOCK):
        R = np.linalg.qr(np.concatenate([R, x[k : k + BLOCK] - mean[None]]), mode="r")
    return jnp.asarray(R / N**0.5)


@partial(jax.jit, static_argnames="shares")
def _root(X: Array, b: Array, shares: int) -> Array:
    x = (X.astype("float64") - b[None]) / len(X) ** 0.5
    if shares > 1:
        x = jax.vmap(_triangle)(x.reshape(shares, -1, x.shape[1])).reshape(-1, x.shape[1])
    return _triangle(x)


def _triangle(x: Array) -> Array:
    R: Any = jnp.linalg.qr(x, mode="r")
    return R
