"""PPCA of 2000 bootstrap samples of one small data set, q = 2: Tobamovirus, 38 × 18 (Tipping and Bishop 1999).

Ours is `ppca.fit` mapped by `jax.vmap`. The peer is scikit-learn's PCA(2) in a loop. Both get the same samples, new
ones each turn, in float64.

Accuracy: 1/N log p(X|w) at the maximum follows from W's lengths and σ; that of every sample is ours to SLACK nats.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.data import file
from benchmarks.floors import decomposed
from cmog_lib import ppca

TITLE, UNIT, OURS = "Bootstrap: 2000 fits, 38 × 18, q = 2", "fits", "cmog_lib, vmap"
DTYPE = "float64"
FLOOR = "an eigendecomposition for each fit"
FITS, Q = 2000, 2
SLACK = 1e-9  # nats per datum


class Spread(NamedTuple):
    """What a contender gives of each fit: the q largest variances [FITS, q], and σ² [FITS]."""

    kept: Any
    sigma_squared: Any


def prepare(folder: Path) -> None:
    """The data, as numbers."""
    np.save(folder / "data.npy", np.loadtxt(file("tobamovirus", "virus3.dat")))


def load(folder: Path) -> np.ndarray:
    """X: [38, 18]."""
    return np.load(folder / "data.npy")


def samples(X: np.ndarray, seed: int) -> np.ndarray:
    """[FITS, N, D], rows drawn with replacement."""
    return X[np.random.default_rng(seed).integers(0, len(X), (FITS, len(X)))]


def ours(X: np.ndarray) -> Callable[[int], Spread]:
    """`ppca.fit`, for all samples at once."""

    def spread(X: Any) -> Spread:
        w = ppca.fit(X, Q)
        sigma_squared = jnp.exp(2 * w.log_sigma)
        return Spread(jnp.sum(w.W**2, axis=0) + sigma_squared, sigma_squared)

    fit = jax.jit(jax.vmap(spread))

    def answer(seed: int) -> Spread:
        with jax.enable_x64(True):
            return fit(jnp.asarray(samples(X, seed)))

    return answer


def sklearn_loop(X: np.ndarray) -> Callable[[int], Spread]:
    """scikit-learn, one sample after another; its variances have N − 1 where maximum likelihood has N."""
    from sklearn.decomposition import PCA

    def answer(seed: int) -> Spread:
        fits = [PCA(Q).fit(sample) for sample in samples(X, seed)]
        kept, rest = (np.array([getattr(fit, of) for fit in fits]) for of in ("explained_variance_", "noise_variance_"))
        return Spread(kept * (len(X) - 1) / len(X), rest * (len(X) - 1) / len(X))

    return answer


CONTENDERS = {OURS: ours, "scikit-learn, a loop": sklearn_loop}


def floor(X: np.ndarray) -> Callable[[int], int]:
    """LAPACK for each sample's covariance, on all cores; the covariances are there."""
    x = samples(X, 0)
    x = x - x.mean(axis=1, keepdims=True)
    S = np.swapaxes(x, 1, 2) @ x / len(X)
    return lambda _: decomposed(S)


def judged(spread: Spread) -> dict[str, Any]:
    """As many fits, and 1/N log p(X|w) of each, but for what is the same for all."""
    kept, sigma_squared = (np.asarray(part, np.float64) for part in spread)
    log_p_x = -0.5 * (np.log(kept).sum(axis=1) + (18 - Q) * np.log(sigma_squared))
    return {"value": FITS, "log_p_x": log_p_x.tolist()}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """The largest difference from ours."""
    ours = np.asarray(answers[OURS]["log_p_x"])
    far = {name: float(np.abs(np.asarray(a["log_p_x"]) - ours).max()) for name, a in answers.items()}
    return {name: ("" if name == OURS else f"equal to {gap:.0e} nats", gap <= SLACK) for name, gap in far.items()}
