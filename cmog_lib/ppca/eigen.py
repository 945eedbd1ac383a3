"""S = U Λ Uᵀ with every eigenvalue that the data determine, even if S, a sum of squares, has lost the small ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cmog_lib.engine.leading import leading
from cmog_lib.ppca import covariance

EPS = float(np.finfo("float64").eps)
# The error of eigh of S is a few roundings of the largest eigenvalue: above this share of it, seven digits are right.
SOUND = 1e-8

Parts = tuple[Float[Array, "D"], Float[Array, "D"], Float[Array, "D K"], Int[Array, ""], Float[Array, ""]]


def decomposed(X: Float[Array | np.ndarray, "N D"]) -> Parts:
    """b, Λ, U and the rank of S = U Λ Uᵀ, in the precision of X: from S, or from x − b = QR if S is not accurate.

    The computation is in float64.

    Args:
        X: [N, D], data.

    Returns:
        b [D]; Λ [D], the largest first and 0 past the rank; U [D, min(N, D)]; the rank; and the ratio of the largest
        standard deviation of a column to the smallest one that exceeds rounding errors.
    """
    N, D = X.shape
    one_program = N < D or isinstance(X, jax.core.Tracer) or (X.size < covariance.LARGE and not covariance.dealt_out(X))
    # A file is read block by block, even a short one, so that nothing is compiled for its number of rows.
    if one_program and (N < D or not isinstance(X, np.memmap)):
        return _at_once(jnp.asarray(X))
    # The session's precision, since a memory-mapped array has the precision of its file.
    dtype = jax.dtypes.canonicalize_dtype(X.dtype)
    with jax.enable_x64(True):
        b, S = covariance.moments(X)
        noise = rounding(b, jnp.diagonal(S), N, dtype)
        eigenvalues, U, sound = _of_covariance(S, noise)
        if not sound:
            R, certain = _root_of_covariance(S, noise)
            eigenvalues, U = _of_root(R if certain else covariance.root(X, b))
        return _ranked(b, eigenvalues, U, jnp.diagonal(S), noise, dtype)


def enough(X: Float[Array | np.ndarray, "N D"], d: int) -> Parts:
    """`decomposed`, or, if that is faster, U_d and Λ with λ_{d+1}, …, λ_D replaced by their mean σ².

    The model of latent dimension d is the same.

    Args:
        X: [N, D], data.
        d: the latent dimension.

    Returns:
        As `decomposed`, with U [D, d] in the second case. Its rank is then D, since σ² is not small.
    """
    found = leading(X, d)
    if found is None:
        return decomposed(X)
    D, dtype = X.shape[1], X.dtype
    discarded = np.full(D - d, (found.total - found.eigenvalues.sum()) / (D - d))
    eigenvalues = jnp.asarray(np.append(found.eigenvalues, discarded), dtype)
    U = covariance.fix_signs(jnp.asarray(found.eigenvectors, dtype))
    return jnp.asarray(found.b, dtype), eigenvalues, U, jnp.asarray(D, "int32"), jnp.ones((), dtype)


def rounding(b: Array, variance: Array, N: int, dtype: Any) -> Float[Array, "D"]:
    """The variance that rounding alone can cause in a direction, for each column: (ε (1 + √(D/N)))² (D s² + 4 b²).

    A value near b is rounded once, and so is the sum of D terms of size s from which it was computed. The largest
    eigenvalue of N × D independent errors is (1 + √(D/N))² times their variance.

    Args:
        b: [D], the mean of each column.
        variance: [D], the variance s² of each column.
        N: number of data.
        dtype: the data's precision, which sets ε.

    Returns:
        [D].
    """
    D = len(b)
    return (float(jnp.finfo(dtype).eps) * (1 + (D / N) ** 0.5)) ** 2 * (D * variance + 4 * b**2)


@jax.custom_jvp
def _at_once(X: Array) -> Parts:
    """`decomposed` as one program, which `vmap` maps over many data sets."""
    with jax.enable_x64(True):
        return (_by_rows if len(X) < X.shape[1] else _by_columns)(X, X.dtype)


@partial(jax.jit, static_argnames="dtype")
def _by_columns(X: Array, dtype: Any) -> Parts:
    b, S = covariance.moments(X)
    noise = rounding(b, jnp.diagonal(S), len(X), dtype)

    def again(found: tuple[Array, ...]) -> tuple[Array, ...]:
        # Without the barrier, XLA sees that this is the same in every iteration, and computes it before the loop.
        data, _ = jax.lax.optimization_barrier((X, found))
        return *_of_root(covariance.root(data, b)), jnp.asarray(True)

    # A loop of at most one iteration. Mapped over many data sets, it runs only if one of them needs it.
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
    """Λ and U of S, and whether the smallest eigenvalue is accurate, apart from those of constant columns."""
    eigenvalues, U = jnp.linalg.eigh(S)
    eigenvalues, varies = eigenvalues[::-1], jnp.arange(len(S)) < jnp.sum(jnp.diagonal(S) > noise)
    eigenvalues = jnp.where(varies, eigenvalues, 0.0)
    return eigenvalues, U[:, ::-1], jnp.all(~varies | (eigenvalues > SOUND * eigenvalues[0]))


@jax.jit
def _root_of_covariance(S: Array, noise: Array) -> tuple[Array, Bool[Array, ""]]:
    """R with RᵀR = S from the correlations, which are accurate for columns of any scale; and whether R is accurate.

    R is accurate if each eigenvalue of the correlations is large, or too small to distinguish it from 0 given the data.
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
    """Λ and U of S = RᵀR: the squares of R's singular values, accurate to 1e-32 of the largest (eigh: to 1e-16)."""
    _, lengths, Vt = jnp.linalg.svd(R, full_matrices=False)
    return lengths**2, Vt.T


@partial(jax.jit, static_argnames="dtype")
def _ranked(b: Array, eigenvalues: Array, U: Array, variance: Array, noise: Array, dtype: Any) -> Parts:
    """The parts, with 0 for eigenvalues that are rounding errors of the data or of the decomposition."""
    D, K = U.shape
    real = eigenvalues > noise @ U**2 + (16 * EPS) ** 2 * eigenvalues[0]
    rank = jnp.max(jnp.where(real, jnp.arange(1, K + 1), 0)).astype("int32")
    eigenvalues = jnp.pad(jnp.where(jnp.arange(K) < rank, eigenvalues, 0.0), (0, D - K))
    spread = jnp.sqrt(variance.max() / jnp.min(jnp.where(variance > noise, variance, variance.max())))
    b, eigenvalues, U, spread = (part.astype(dtype) for part in (b, eigenvalues, covariance.fix_signs(U), spread))
    return b, eigenvalues, U, rank, spread
