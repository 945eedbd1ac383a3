"""Maximum likelihood for PPCA, q = 10, on all 60,000 training images of MNIST (digits where there is none).

Ours is `ppca.fit`, which here multiplies in float32 and adds in float64 (`engine.leading`). The peer is scikit-learn's
PCA(10) with the solver that it chooses itself, on the same float32 and on float64; its W, b and σ are those of p(x|w)
in Tipping and Bishop.

Accuracy: 1/N log p(X|w) of what was found, by one function in float64 for all; a ratio is given where it is ours to
SLACK nats per datum.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from benchmarks.data import images
from benchmarks.floors import leading_eigenvectors, product_with_S
from cmog_lib import ppca
from cmog_lib.model import LOG_2PI

TITLE, UNIT, OURS = "PPCA: 60000 × 784, q = 10", "fits", "cmog_lib"
FLOOR = "a product with S for each eigenvector, without S"
Q = 10
SLACK = 1e-6  # nats per datum


class Fitted(NamedTuple):
    """What a contender gives: W, b and σ², and the data's mean and covariance, which the judge needs too."""

    W: Any
    b: Any
    sigma_squared: Any
    mean: Any
    S: Any


def prepare(folder: Path) -> None:
    """The data's mean and covariance, in float64."""
    X = np.asarray(images(), np.float64)
    mean = X.mean(axis=0)
    np.savez(folder / "problem.npz", mean=mean, S=(X - mean).T @ (X - mean) / len(X))


def load(folder: Path) -> tuple[Any, Any, Any]:
    """X [N, D], and its moments."""
    found = np.load(folder / "problem.npz")
    return images(), found["mean"], found["S"]


# The contenders.


def ours(problem: Any) -> Callable[[int], Fitted]:
    """`ppca.fit`."""
    X, *moments = problem

    def answer(_: int) -> Fitted:
        w = ppca.fit(X, Q)
        return Fitted(w.W, w.b, jnp.exp(2 * w.log_sigma), *moments)

    return answer


def sklearn_float32(problem: Any) -> Callable[[int], Fitted]:
    """scikit-learn, on the same numbers."""
    return _sklearn(problem, np.float32)


def sklearn_float64(problem: Any) -> Callable[[int], Fitted]:
    """scikit-learn, on the same numbers in float64."""
    return _sklearn(problem, np.float64)


def _sklearn(problem: Any, dtype: Any) -> Callable[[int], Fitted]:
    from sklearn.decomposition import PCA

    X, *moments = problem
    X = np.asarray(X, dtype)

    def answer(_: int) -> Fitted:
        pca = PCA(Q).fit(X)
        scale = np.sqrt(np.maximum(pca.explained_variance_ - pca.noise_variance_, 0))
        return Fitted(pca.components_.T * scale, pca.mean_, pca.noise_variance_, *moments)

    return answer


CONTENDERS = {OURS: ours, "scikit-learn": sklearn_float32, "scikit-learn, float64": sklearn_float64}


def floor(problem: Any) -> Callable[[int], int]:
    """Xᵀ(XU) for the eigenvectors, in float32: to check an answer takes as much."""
    X, _, S = problem
    X, U = np.asarray(X), leading_eigenvectors(S, Q).astype("float32")
    return lambda _: product_with_S(X, U)


# What a fit is worth.


def judged(fitted: Fitted) -> dict[str, Any]:
    """One fit, and 1/N log p(X|w) where it ended, in nats."""
    W, b, sigma_squared, mean, S = (np.asarray(part, np.float64) for part in fitted)
    C = W @ W.T + sigma_squared * np.eye(len(b))
    around_b = S + np.outer(mean - b, mean - b)
    _, log_determinant = np.linalg.slogdet(C)
    log_p_x = -0.5 * (len(b) * LOG_2PI + log_determinant + np.trace(np.linalg.solve(C, around_b)))
    return {"value": 1, "log_p_x": float(log_p_x)}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """1/N log p(X|w), and whether it is ours."""
    ours = answers[OURS]["log_p_x"]
    return {n: (f"{a['log_p_x']:.7f} nats", abs(a["log_p_x"] - ours) <= SLACK) for n, a in answers.items()}
