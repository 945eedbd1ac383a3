"""Maximum likelihood for factor analysis, one σ for each pixel, q = 10: scikit-learn's 1797 digits.

Ours is `ppca.fit_factor_analysis`, in float64. The peer is scikit-learn's FactorAnalysis by its exact LAPACK
decompositions, since its randomised ones end 2e-3 nats short. Each has the loosest of the tolerances 1, 0.1, 0.01 …
that ends within SLACK of the maximum. Pixels that are the same everywhere are left out for both.

Accuracy: 1/N log p(X|w) of what was found, by one function in float64 for both; a ratio is given where it is ours to
SLACK nats per datum.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cmog_lib import datasets, ppca
from cmog_lib.model import LOG_2PI

TITLE, UNIT, OURS = "Factor analysis: digits, q = 10", "fits", "cmog_lib"
DTYPE = "float64"
Q = 10
TOLERANCE = 0.1  # scikit-learn's, in nats of all data together
OUR_TOLERANCE = 1e-4  # of the nats per datum
SLACK = 1e-3  # nats per datum


class Fitted(NamedTuple):
    """What a contender gives: W, b and σ², and the data, which the judge needs too."""

    W: Any
    b: Any
    sigma_squared: Any
    X: Any


def prepare(folder: Path) -> None:
    """Nothing: the digits are there."""


def load(folder: Path) -> Any:
    """X: [N, D], without pixels that are the same everywhere."""
    X = np.asarray(datasets.digits().X, np.float64)
    return X[:, X.std(axis=0) > 0]


def ours(X: Any) -> Callable[[int], Fitted]:
    """`ppca.fit_factor_analysis`."""
    data = jnp.asarray(X)

    def answer(_: int) -> Fitted:
        w = ppca.fit_factor_analysis(data, Q, tolerance=OUR_TOLERANCE)
        return Fitted(w.W, w.b, jnp.exp(2 * w.log_sigma), X)

    return answer


def sklearn_em(X: Any) -> Callable[[int], Fitted]:
    """scikit-learn."""
    from sklearn.decomposition import FactorAnalysis

    def answer(_: int) -> Fitted:
        found = FactorAnalysis(Q, tol=TOLERANCE, max_iter=100_000, svd_method="lapack").fit(X)
        return Fitted(found.components_.T, found.mean_, found.noise_variance_, X)

    return answer


CONTENDERS = {OURS: ours, "scikit-learn": sklearn_em}


def judged(fitted: Fitted) -> dict[str, Any]:
    """One fit, and 1/N log p(X|w) where it ended, in nats."""
    W, b, sigma_squared, X = (np.asarray(part, np.float64) for part in fitted)
    C = W @ W.T + np.diag(sigma_squared)
    _, log_determinant = np.linalg.slogdet(C)
    squares = np.sum((X - b) * np.linalg.solve(C, (X - b).T).T, axis=1)
    return {"value": 1, "log_p_x": float(-0.5 * (len(b) * LOG_2PI + log_determinant + squares.mean()))}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """1/N log p(X|w), and whether it is ours."""
    ours = answers[OURS]["log_p_x"]
    return {name: (f"{a['log_p_x']:.4f} nats", abs(a["log_p_x"] - ours) <= SLACK) for name, a in answers.items()}
