"""Maximum likelihood for PPCA with a fifth of the cells missing, at random: what the rows `missing_…` share.

Everyone gets the same columns of mean 0 and deviation 1, since the peer would make them so itself, and stops by
itself: the peer where its objective changes by less than 1e-4 of its value, ours at TOLERANCE. The peer begins at
random, ours at the PPCA of the data with zeros in their gaps. The peer keeps neither W nor σ, so both are read from the
last calls that it makes of NumPy and SciPy.

Accuracy: 1/N log p(X_observed|w) of what was found, exactly, by one function for both; a ratio is given where ours is
no lower than the peer's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib import ppca
from cmog_lib.decoders import Linear

OURS, UNIT, DTYPE = "cmog_lib", "fits", "float64"
SHARE, TOLERANCE = 0.2, 1e-2  # of cells that are missing; nats per datum


class Fitted(NamedTuple):
    """What a contender gives, and the data, which the judge needs too."""

    w: Linear
    X: Any


def prepare(X: np.ndarray, folder: Path) -> None:
    """The data with gaps, standardised; columns that are nearly constant are left out."""
    X = np.asarray(X, np.float64)
    X = X[:, (X[0] != X).sum(axis=0) >= len(X) // 100]
    X = np.where(np.random.default_rng(0).random(X.shape) < SHARE, np.nan, X)
    np.save(folder / "data.npy", (X - np.nanmean(X, axis=0)) / np.nanstd(X, axis=0))


def load(q: int, folder: Path) -> tuple[np.ndarray, int]:
    """X [N, D] with NaN for a missing cell, and the latent dimension."""
    return np.load(folder / "data.npy"), q


def ours(problem: tuple[np.ndarray, int]) -> Callable[[int], Fitted]:
    """`ppca.fit_missing`."""
    X, q = problem
    data = jnp.asarray(X)
    return lambda _: Fitted(ppca.fit_missing(data, q, tolerance=TOLERANCE), X)


def imputing(problem: tuple[np.ndarray, int]) -> Callable[[int], Fitted]:
    """The package `ppca`."""
    import ppca._ppca as peer

    X, q = problem
    logarithms, last = list[Any](), dict[str, Any]()

    class Listening:
        """NumPy, whose logarithms are kept: of an iteration's three, the second is of σ²."""

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def log(self, value: Any) -> Any:
            logarithms.append(value)
            return np.log(value)

    orthonormal = peer.orth
    peer.np, peer.orth = Listening(), lambda W: (last.update(W=W), orthonormal(W))[1]

    def answer(seed: int) -> Fitted:
        np.random.seed(seed)
        peer.PPCA().fit(X.copy(), d=q)
        sigma_squared = logarithms[-2]
        logarithms.clear()
        return Fitted(Linear(jnp.asarray(last["W"]), jnp.zeros(X.shape[1]), jnp.asarray(np.log(sigma_squared) / 2)), X)

    return answer


CONTENDERS = {OURS: ours, "ppca": imputing}


def judged(fitted: Fitted) -> dict[str, Any]:
    """One fit, and where it ended, in nats."""
    log_p_x = jax.jit(jax.vmap(partial(ppca.log_p_x_observed, fitted.w)))
    return {"value": 1, "log_p_x": float(log_p_x(jnp.asarray(fitted.X)).mean())}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """1/N log p(X_observed|w), and whether ours is no lower."""
    ours = answers[OURS]["log_p_x"]
    return {name: (f"{a['log_p_x']:.2f} nats", a["log_p_x"] <= ours) for name, a in answers.items()}
