"""max_w log p(X|w) of PPCA for every q from 1 to D − 1: 7000 images of 16 × 16, the middle of MNIST's; else digits.

Ours is `ppca.fit_all`, one decomposition, and its `log_likelihood` at every q. The peer is what scikit-learn offers:
PCA(q) fitted, and its score, for each q; a q costs what any other costs, and so it does those of SOME in a turn. It has
the same numbers in float64, in which ours computes too; in float32 it errs by more than SLACK where q is large.

Accuracy: 1/N log p(X|w) is ours to SLACK nats per datum at every q that was done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.data import images
from cmog_lib import ppca

TITLE, UNIT, OURS = "Likelihood at every q: 7000 × 256", "values", "cmog_lib"
DTYPE = "float64"
FLOOR = "S and its eigenvalues"
N, MARGIN = 7000, 6
SOME = (1, 2, 5, 10, 20, 30, 40)
SLACK = 1e-4  # nats per datum


def prepare(folder: Path) -> None:
    """Nothing: everyone reads the images where they are."""


def load(folder: Path) -> Any:
    """X: [N, D], without pixels that are the same everywhere."""
    X = np.asarray(images())[:N]
    if X.shape[1] == 784:
        X = X.reshape(-1, 28, 28)[:, MARGIN:-MARGIN, MARGIN:-MARGIN].reshape(len(X), -1)
    return X[:, X.std(axis=0) > 0]


def ours(X: Any) -> Callable[[int], Any]:
    """`ppca.fit_all`: q ↦ the likelihood."""
    data = jnp.asarray(X)

    def answer(_: int) -> Any:
        log_likelihood = np.asarray(ppca.fit_all(data).log_likelihood)
        return {q: log_likelihood[q] for q in range(1, len(log_likelihood))}

    return answer


def sklearn_each(X: Any) -> Callable[[int], Any]:
    """scikit-learn's PCA, fitted for each q."""
    from sklearn.decomposition import PCA

    data = np.asarray(X, np.float64)
    return lambda _: {q: PCA(q).fit(data).score(data) for q in SOME}


CONTENDERS = {OURS: ours, "scikit-learn, a fit for each q": sklearn_each}


def floor(X: Any) -> Callable[[int], int]:
    """S by BLAS, which uses its symmetry, and its eigenvalues by LAPACK: the likelihood at every q from 1 to D − 1."""
    x = np.asarray(X, np.float64)
    x = x - x.mean(axis=0)

    def answer(_: int) -> int:
        return len(np.linalg.eigvalsh(x.T @ x)) - 1

    return answer


def judged(log_likelihood: Any) -> dict[str, Any]:
    """How many values, and those at SOME."""
    return {"value": len(log_likelihood), "log_p_x": [float(log_likelihood[q]) for q in SOME]}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """The largest difference from ours."""
    ours = np.asarray(answers[OURS]["log_p_x"])
    far = {name: float(np.abs(np.asarray(answer["log_p_x"]) - ours).max()) for name, answer in answers.items()}
    return {name: ("" if name == OURS else f"equal to {d:.0e} nats", d <= SLACK) for name, d in far.items()}
