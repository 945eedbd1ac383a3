"""S = U Λ Uᵀ with every eigenvalue that the data carry, also where S, which squares them, has lost the small ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cmog_lib.ppca import covariance

EPS = float(np.finfo("float64").eps)
# eigh of S errs by a few roundings of the largest eigenvalue: above this share of it, seven digits are right.
SOUND = 1e-8

Parts = tuple[Float[Array, "D"], Float[Array, "D"], Float[Array, "D K"], Int[Array, ""], Float[Array, ""]]


def decomposed(X: Float[Array | np.ndarray, "N D"]) -> Parts:
    """b, Λ, U and the rank of S = U Λ Uᵀ, in the precision of X: from S, or from x − b = QR where S is not sound.

    X: [N, D], data. Λ: [D], the largest first, 0 past the rank. U: [D, min(N, D)]. The last part is the ratio of the
    largest standard deviation of a column to the smallest that is not rounding. Computed in float64.
    """
    N, D = X.shape
    one_program = N < D or isinstance(X, jax.core.Tracer) or (X.size < covariance.LARGE and not covariance.dealt_out(X))
    # A file is read block by block, however short it is: no part of that is compiled for the number of its rows.
    if one_program and (N < D or not isinstance(X, np.memmap)):
        return _at_once(jnp.asarray(X))
    # The session's precision, which a mapped array, left as it is on disk, does not have by itself.
    dtype = jax.dtypes.canonicalize_dtype(X.dtype)
    with jax.enable_x64(True):
        b, S = covariance.moments(X)
        noise = rounding(b, jnp.diagonal(S), N, dtype)
        eigenvalues, U, sound = _of_covariance(S, noise)
        if not sound:
            R, certain = _root_of_covariance(S, noise)
            eigenvalues, U = _of_root(R if certain else covariance.root(X, b))
        return _ranked(b, eigenvalues, U, jnp.diagonal(S), noise, dtype)


def rounding(b: Array, variance: Array, N: int, dtype: Any) -> Float[Array, "D"]:
    """The variance that rounding alone may show in a direction, for each column: (ε (1 + √(D/N)))² (D s² + 4 b²).

    ε: of the data's precision. A value is rounded once where it lies, at b, and what it was computed from too: a sum of
    D terms of size s. Of N × D independent errors the largest eigenvalue is (1 + √(D/N))² times their variance.
    """
    D = len(b)
    return (float(jnp.finfo(dtype).eps) * (1 + (D / N) ** 0.5)) ** 2 * (D * variance + 4 * b**2)


@jax.custom_jvp
def _at_once(X: Array) -> Parts:
    """The same in one program, which `vmap` maps over many sets of data."""
    with jax.enable_x64(True):
        return (_by_rows if len(X) < X.shape[1] else _by_columns)(X, X.dtype)


@partial(jax.jit, static_argnames="dtype")
def _by_columns(X: Array, dtype: Any) -> Parts:
    b, S = covariance.moments(X)
    noise = rounding(b, jnp.diagonal(S), len(X), dtype)

    def again(found: tuple[Array, ...]) -> tuple[Array, ...]:
        # Without the barrier XLA sees that every turn does the same, and does it before the first.
        data, _ = jax.lax.optimization_barrier((X, found))
        return *_of_root(covariance.root(data, b)), jnp.asarray(True)

    # A loop of one turn at most. Mapped over many sets of data, it does not turn unless one of them needs it.
    eigenvalues, U, _ = jax.lax.while_loop(lambda found: ~found[2], again, _of_covariance(S, noise))
    return _ranked(b, eigenvalues, U, jnp.diagonal(S), noise, dtype)


@partial(jax.jit, static_argnames="dtype")
def _by_rows(X: Array, dtype: Any) -> Parts:
    """For fewer data than dimensions: xᵀ = QR gives S = Q (RRᵀ/N) Qᵀ."""
    x = X.astype("float64")
    b = x.mean(axis=0)
    x = x - b[None]
    Q, R = jnp.linalg.qr(x.T)
    eigenvalues, U = _of_root(R.T / len(x) ** 0.5)
    variance = jnp.mean(x**2, axis=0)
    return _ranked(b, eigenvalues, Q @ U, variance, rounding(b, variance, len(x), dtype), dtype)


@_at_once.defjvp
def _derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Parts, tuple[Any, ...]]:
    """dλ_k = u_kᵀ dS u_k, du_k = Σ_{j≠k} u_j u_jᵀ dS u_k / (λ_k − λ_j): first-order perturbation of S."""
    (X,), (dX,) = primals, tangents
    b, eigenvalues, U, rank, spread = found = _at_once(X)
    D, K = U.shape
    db = dX.mean(axis=0)
    x, dx = X - b[None], dX - db[None]
    dS_U = (x.T @ (dx @ U) + dx.T @ (x @ U)) / len(X)
    inside, kept = U.T @ dS_U, eigenvalues[:K]
    gap = kept[None] - kept[:, None]
    dU = U @ (inside / jnp.where(gap == 0, jnp.inf, gap))
    if K < D:
        dU += (dS_U - U @ inside) / jnp.where(kept == 0, jnp.inf, kept)[None]
    d_eigenvalues = jnp.pad(jnp.diagonal(inside), (0, D - K))
    return found, (db, d_eigenvalues, dU, np.zeros(rank.shape, jax.dtypes.float0), jnp.zeros_like(spread))


@jax.jit
def _of_covariance(S: Array, noise: Array) -> tuple[Array, Array, Bool[Array, ""]]:
    """Λ and U of S, and whether the smallest eigenvalue is right, but for those of columns that do not vary."""
    eigenvalues, U = jnp.linalg.eigh(S)
    eigenvalues, varies = eigenvalues[::-1], jnp.arange(len(S)) < jnp.sum(jnp.diagonal(S) > noise)
    eigenvalues = jnp.where(varies, eigenvalues, 0.0)
    return eigenvalues, U[:, ::-1], jnp.all(~varies | (eigenvalues > SOUND * eigenvalues[0]))


@jax.jit
def _root_of_covariance(S: Array, noise: Array) -> tuple[Array, Bool[Array, ""]]:
    """R with RᵀR = S by the correlations, which columns of very different scale do not spoil; and whether it is right.

    It is right where each eigenvalue of the correlations is large, or so small that the data do not tell it from 0.
    """
    variance = jnp.diagonal(S)
    s = jnp.sqrt(jnp.where(variance > noise, variance, 0.0))
    unit = jnp.where(s > 0, 1 / s, 0.0)
    theta, V = jnp.linalg.eigh(unit[:, None] * S * unit[None, :] + jnp.diag(jnp.where(s > 0, 0.0, 1.0)))
    large, nothing = theta > SOUND * theta[-1], jnp.abs(theta) <= (noise * unit**2) @ V**2
    R = jnp.sqrt(jnp.where(large, theta, 0.0))[:, None] * V.T * s[None]
    return R, jnp.all(large | nothing)


@jax.jit
def _of_root(R: Array) -> tuple[Array, Array]:
    """Λ and U of S = RᵀR: the squares of R's singular values, right to 1e-32 of the largest where eigh has 1e-16."""
    _, lengths, Vt = jnp.linalg.svd(R, full_matrices=False)
    return lengths**2, Vt.T


@partial(jax.jit, static_argnames="dtype")
def _ranked(b: Array, eigenvalues: Array, U: Array, variance: Array, noise: Array, dtype: Any) -> Parts:
    """The parts, with 0 for eigenvalues that come from rounding, of the data or of the decomposition."""
    D, K = U.shape
    real = eigenvalues > noise @ U**2 + (16 * EPS) ** 2 * eigenvalues[0]
    rank = jnp.max(jnp.where(real, jnp.arange(1, K + 1), 0)).astype("int32")
    eigenvalues = jnp.pad(jnp.where(jnp.arange(K) < rank, eigenvalues, 0.0), (0, D - K))
    spread = jnp.sqrt(variance.max() / jnp.min(jnp.where(variance > noise, variance, variance.max())))
    b, eigenvalues, U, spread = (part.astype(dtype) for part in (b, eigenvalues, covariance.fix_signs(U), spread))
    return b, eigenvalues, U, rank, spread
