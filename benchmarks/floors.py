"""The operations that no method can do without, by NumPy: what the rows time as their floor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.harness import cores


def leading_eigenvectors(S: np.ndarray, q: int) -> np.ndarray:
    """[D, q], by LAPACK."""
    from scipy.linalg import eigh

    vectors: np.ndarray = eigh(S, subset_by_index=[len(S) - q, len(S) - 1])[1]
    return vectors


def product_with_S(X: np.ndarray, U: np.ndarray) -> int:
    """Xᵀ(XU), once."""
    X.T @ (X @ U)
    return 1


def decomposed(S: np.ndarray) -> int:
    """LAPACK's eigenvalues and eigenvectors of many small matrices, on all cores. Returns how many there are."""
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(np.linalg.eigh, np.array_split(S, cores())))
    return len(S)


class Products:
    """Matrix products of given shapes (n, k, m), one after another, into memory that is there already."""

    def __init__(self, *shapes: tuple[int, int, int], dtype: Any = "float32") -> None:
        def filled(*shape: int) -> np.ndarray:
            return np.random.default_rng(0).normal(size=shape).astype(dtype)

        self.parts = [(filled(n, k), filled(k, m), np.empty((n, m), dtype)) for n, k, m in shapes]

    def __call__(self, times: int) -> int:
        """All of them, so many times. Returns how many times."""
        for _ in range(times):
            for A, B, AB in self.parts:
                np.matmul(A, B, out=AB)
        return times
