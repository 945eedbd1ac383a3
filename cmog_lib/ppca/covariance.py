"""b and S = 1/N Σ_i (x_i − b)(x_i − b)ᵀ = U Λ Uᵀ, of data that are many, wide, dealt out to devices, or on disk."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LARGE, BLOCK = 2**24, 4096  # numbers from which on a covariance is summed in blocks, of so many data each


def fix_signs(U: Float[Array, "D K"]) -> Float[Array, "D K"]:
    """The columns of U, each with its largest entry positive, since an eigenvector has no sign of its own."""
    size = jnp.abs(U)
    # The first of those that are largest up to rounding, so that a tie is broken in the same way everywhere.
    largest = jax.lax.argmax(size > 0.999 * size.max(axis=0)[None], 0, jnp.int32)
    return U * jnp.sign(jnp.take_along_axis(U, largest[None], axis=0))


def moments(X: Float[Array | np.ndarray, "N D"]) -> tuple[Float[Array, "D"], Float[Array, "D D"]]:
    """b = 1/N Σ_i x_i and S = 1/N Σ_i (x_i − b)(x_i − b)ᵀ, in float64."""
    known = not isinstance(X, jax.core.Tracer)
    if known and isinstance(X, jax.Array) and len(X.sharding.device_set) > 1:
        # Each device sums its share. What comes of it is small, and need not be decomposed by each of them.
        b, S = map(np.asarray, _moments(X))
        return jnp.asarray(b), jnp.asarray(S)
    if not known or X.size < LARGE:
        return _moments(X)
    # BLAS makes use of a product's symmetry, XLA does not; and in blocks the data need no copy in float64.
    x = np.asarray(X)
    b, S = x.mean(axis=0, dtype="float64"), np.zeros((x.shape[1], x.shape[1]))
    for k in range(0, len(x), BLOCK):
        residual = x[k : k + BLOCK] - b[None]
        S += residual.T @ residual
    return jnp.asarray(b), jnp.asarray(S / len(x))


@jax.jit
def _moments(X: Array) -> tuple[Array, Array]:
    x = X.astype("float64")
    b = x.mean(axis=0)
    x = x - b[None]
    return b, x.T @ x / len(x)


@jax.jit
def by_covariance(b: Array, S: Array) -> tuple[Array, Array, Array, Array]:
    """b, Λ, U and the trace of S, the largest eigenvalue first."""
    eigenvalues, eigenvectors = jnp.linalg.eigh(S)
    return b, eigenvalues[::-1], eigenvectors[:, ::-1], jnp.trace(S)


@jax.jit
def by_inner_products(X: Array) -> tuple[Array, Array, Array, Array]:
    """The same, from the N × N matrix of inner products: for fewer data than dimensions."""
    x = X.astype("float64")
    b = x.mean(axis=0)
    x = x - b[None]
    eigenvalues, inner = jnp.linalg.eigh(x @ x.T / len(x))
    # xᵀU has orthogonal columns up to rounding, which QR removes, also in the columns of length zero.
    eigenvectors, _ = jnp.linalg.qr(x.T @ inner[:, ::-1])
    return b, eigenvalues[::-1], eigenvectors, jnp.sum(x**2) / len(x)
