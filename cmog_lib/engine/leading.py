"""The d largest eigenvalues of S, their eigenvectors, b and tr S, from a few products with the data and without S."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from cmog_lib.engine import door

LARGE, WIDE = 2**24, 256  # from this size and width on, S costs more than the products
MANY, NARROW = 40, 16  # N ≥ 40 D and D ≥ 16 d: the sample and the products are then a small part of S
SPARE, LEARNED = 6, 6  # directions beside the d; D / 6 eigenvectors of the sample are known to the preconditioner
SHARE = 4096  # rows that one thread sums
ROWS = 512  # of a block, which stays in the cache between two products with it
PASSES = 5  # over the data, at most
CONVERGED = 1e-4  # |S u_k − λ_k u_k| / λ_d, at most
SOUND = 64  # √(λ_1 mean |x|²), which float32 rounds, as a multiple of λ_d and of tr S − Σ_k λ_k over d, at most
SCALE = 1e25  # of tr S, at most, and its inverse at least: beyond it float32 loses squares


class Leading(NamedTuple):
    """What the model of latent dimension d needs of S.

    b: [D], the mean. eigenvalues: [d], the largest first. eigenvectors: [D, d]. total: tr S. All are in float64.
    """

    b: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    total: float


def leading(X: Float[Array | np.ndarray, "N D"], d: int) -> Leading | None:
    """S u_k = λ_k u_k for the d largest λ_k of S = 1/N Σ_i (x_i − b)(x_i − b)ᵀ, or None if S itself is needed.

    Equals the first d columns of S = U Λ Uᵀ: eigenvalues and tr S to rounding in float32, and each eigenvector to
    1e-4 λ_d over the gap between its eigenvalue and the next. This is block Davidson: S is projected onto a few
    directions, and the residuals S u_k − λ_k u_k, preconditioned by the covariance of 10 D of the rows, are the next
    directions. For MNIST, three products with the data suffice, at about a sixth of the operations that S takes.

    It answers only if the residuals say that it has converged, if the mean is not so far from the origin and λ_d and
    the other eigenvalues are not so small that float32 loses their digits, and if S would take longer. Only float32
    data in the host's memory qualify.

    Args:
        X: [N, D], data.
        d: how many eigenvalues, at least 1.
    """
    N, D = X.shape
    small = X.size < LARGE or D < WIDE or N < MANY * D or NARROW * d > D
    if small or X.dtype != np.float32 or isinstance(X, np.memmap) or not door.on_host(X):
        return None
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    # A thread for each share of the rows: threads inside of each small product would wait for each other all the time.
    blas = ThreadpoolController().select(user_api="blas")
    threads = max((library.num_threads for library in blas.lib_controllers), default=1)
    with blas.limit(limits=1), ThreadPoolExecutor(threads) as pool:
        return _davidson(np.asarray(X), d, lambda f, x: pool.map(f, _blocks(x, SHARE)))


Mapped = Callable[[Callable[[np.ndarray], Any], np.ndarray], Any]


def _davidson(x: np.ndarray, d: int, mapped: Mapped) -> Leading | None:
    k = d + SPARE
    b, total, square = _sums(x, mapped)
    if not 1 / SCALE < total < SCALE:
        return None
    eigenvalues, U, rest = _of_sample(x, b, mapped, max(len(b) // LEARNED, 2 * k))
    # Without a gap behind the k directions, the products would not converge.
    if not _sound(eigenvalues[:d], total, square) or not eigenvalues[k] < 0.9 * eigenvalues[d - 1]:
        return None
    # One direction is random, so that an eigenvector that the sample does not contain is found too.
    probe = np.random.default_rng(1).normal(size=(len(b), 1)) / len(b) ** 0.5
    V, SV, new, last = np.zeros((len(b), 0)), np.zeros((len(b), 0)), np.hstack([U[:, : k - 1], probe]), np.inf
    for remaining in reversed(range(PASSES)):
        new = new.astype("float32")
        V, R = np.linalg.qr(np.hstack([V, new]))
        SV = np.linalg.solve(R.T, np.hstack([SV, _times_S(x, b, mapped, new)]).T).T
        theta, Y = np.linalg.eigh(V.T @ SV)
        theta, Y = theta[: -k - 1 : -1], Y[:, : -k - 1 : -1]
        residual = SV @ Y - (V @ Y) * theta[None]
        error = np.linalg.norm(residual[:, :d], axis=0).max() / theta[d - 1]
        if error <= CONVERGED:
            answers = _sound(theta[:d], total, square)
            return Leading(b, theta[:d], (V @ Y)[:, :d], total) if answers else None
        if not error * (error / last) ** remaining <= CONVERGED:  # at this rate it does not converge in time
            return None
        last = error
        new = _preconditioned(residual, theta, eigenvalues, U, rest)
        new -= V @ (V.T @ new)
        new = np.linalg.qr(new)[0]
    return None


def _sound(eigenvalues: np.ndarray, total: float, square: float) -> bool:
    """Whether float32 keeps the digits of λ_d and of the discarded eigenvalues, which are tr S − Σ_k λ_k together."""
    smallest = min(eigenvalues[-1], (total - eigenvalues.sum()) / len(eigenvalues))
    return bool((eigenvalues[0] * square) ** 0.5 <= SOUND * smallest)


def _sums(x: np.ndarray, mapped: Mapped) -> tuple[np.ndarray, float, float]:
    """b, tr S and the mean of |x|², in float64."""

    def of_share(share: np.ndarray) -> Any:
        total, square, one, space = np.zeros(x.shape[1]), 0.0, np.ones(ROWS), np.empty((ROWS, x.shape[1]))
        for rows in _blocks(share, ROWS):
            block = space[: len(rows)]
            block[:] = rows
            total += one[: len(rows)] @ block
            square += float(np.vdot(block, block))
        return total, square

    totals, squares = zip(*mapped(of_share, x), strict=True)
    b, mean_square = np.sum(totals, axis=0) / len(x), sum(squares) / len(x)
    return b, mean_square - float(b @ b), mean_square


def _of_sample(x: np.ndarray, b: np.ndarray, mapped: Mapped, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The `count` largest eigenvalues of the covariance of 10 D rows, their eigenvectors, and the others' mean."""
    from scipy.linalg import eigh

    D = x.shape[1]
    # Random rows, since the order of the data may have a period.
    chosen = np.sort(np.random.default_rng(0).integers(0, len(x), 10 * D))
    sample = x[chosen] - b.astype("float32")[None]
    S: Any = sum(mapped(lambda share: share.T @ share, sample)) / np.float32(len(sample))
    eigenvalues, U = eigh(S, subset_by_index=[D - count, D - 1], check_finite=False)
    rest = (float(np.trace(S)) - float(eigenvalues.sum())) / (D - count)
    return eigenvalues[::-1].astype("float64"), U[:, ::-1].astype("float64"), rest


def _times_S(x: np.ndarray, b: np.ndarray, mapped: Mapped, Q: np.ndarray) -> np.ndarray:
    """S Q: the products in float32, their sum over the blocks in float64."""
    mean = (b @ Q).astype("float32")

    def of_share(share: np.ndarray) -> Any:
        SQ, rounded = np.zeros((x.shape[1], Q.shape[1])), np.zeros(Q.shape[1])
        for rows in _blocks(share, ROWS):
            y = rows @ Q
            y -= mean[None]
            SQ += rows.T @ y
            rounded += y.sum(axis=0)
        return SQ - b[:, None] * rounded[None]

    SQ: Any = sum(mapped(of_share, x))
    found: np.ndarray = SQ / len(x)
    return found


def _preconditioned(residual: Any, theta: Any, eigenvalues: Any, U: Any, rest: float) -> Any:
    """(S_sample − θ_k)⁻¹ residual_k for each k; where S_sample is nearly θ_k, the quotient is limited."""

    def inverse(values: Any) -> Any:
        gap = values - theta[None]
        return 1 / np.where(np.abs(gap) < 0.05 * theta[None], -0.05 * theta[None], gap)

    inside = U.T @ residual
    return U @ (inside * inverse(eigenvalues[:, None])) + (residual - U @ inside) * inverse(rest)


def _blocks(x: np.ndarray, size: int) -> Any:
    return (x[start : start + size] for start in range(0, len(x), size))
