"""The d largest eigenvalues from products with the data: those of S, or None if float32 is not enough."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import ppca
from cmog_lib.engine import leading as engine
from cmog_lib.model import LOG_2PI
from cmog_lib.ppca import eigen

N, D, d = 4000, 96, 4
DECAYING = 8.0 / np.arange(1, D + 1)
CLUSTERED = np.where(np.arange(D) < d, 4.0, 1.0) * np.linspace(1.0001, 1.0, D)


@pytest.fixture
def small_data_qualify(monkeypatch):
    for name, value in {"LARGE": 0, "WIDE": 0, "SHARE": 900, "ROWS": 300}.items():
        monkeypatch.setattr(engine, name, value)


def data(eigenvalues: np.ndarray, *, seed: int = 0, shift: float = 0.0, n: int = N) -> np.ndarray:
    """Rows with these variances along random directions, in float32."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.normal(size=(D, D)))[0]
    return (random.normal(size=(n, D)) * eigenvalues**0.5 @ directions.T + shift).astype("float32")


def decomposed(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """b, Λ and U of S, plainly, in float64."""
    x = X.astype("float64")
    b = x.mean(axis=0)
    eigenvalues, U = np.linalg.eigh((x - b).T @ (x - b) / len(x))
    return b, eigenvalues[::-1], U[:, ::-1]


def log_p(W: Any, b: Any, sigma: float, X: np.ndarray) -> float:
    """1/N log p(X|w), in float64."""
    W, x = np.asarray(W, "float64"), X.astype("float64") - np.asarray(b, "float64")
    C = W @ W.T + sigma**2 * np.eye(D)
    squares = np.trace(np.linalg.solve(C, x.T @ x / len(x)))
    return -0.5 * (D * LOG_2PI + np.linalg.slogdet(C)[1] + squares)


@pytest.mark.parametrize(
    ("eigenvalues", "shift"),
    [(DECAYING, 0.0), (DECAYING, 2.0), (CLUSTERED, 0.0), (DECAYING * 1e-12, 0.0), (DECAYING * 1e12, 0.0)],
    ids=["ordinary", "a mean away from 0", "clustered", "small", "large"],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_largest_eigenvalues_are_those_of_S(small_data_qualify, eigenvalues, shift, seed):
    X = data(eigenvalues, seed=seed, shift=shift)
    b, expected, U = decomposed(X)
    found = engine.leading(X, d)
    assert found is not None
    scale = expected[0] ** 0.5
    np.testing.assert_allclose(found.b, b, atol=1e-12 * scale)
    np.testing.assert_allclose(found.total, expected.sum(), rtol=1e-12)
    # Rounding in float32, and the square of the residual, 1e-8, over the relative gap, which is 0.2 or more.
    np.testing.assert_allclose(found.eigenvalues, expected[:d], rtol=2e-6)
    outside = found.eigenvectors - U[:, :d] @ (U[:, :d].T @ found.eigenvectors)
    assert np.linalg.norm(outside, axis=0).max() < engine.CONVERGED * expected[d - 1] / (expected[d - 1] - expected[d])
    w = ppca.fit(jnp.asarray(X), d)
    sigma = expected[d:].mean() ** 0.5
    best = log_p(U[:, :d] * (expected[:d] - sigma**2) ** 0.5, b, sigma, X)
    assert best - log_p(w.W, w.b, float(w.sigma[0]), X) < 1e-6


@pytest.mark.parametrize(
    "X",
    [
        data(DECAYING, shift=1e4),
        data(np.where(np.arange(D) < d, DECAYING, 1e-12)),
        data(np.where(np.arange(D) < 1, 1e6, DECAYING)),
        data(np.ones(D)),
        data(DECAYING * 1e-30),
        data(DECAYING * 1e30),
        data(DECAYING, n=2 * D),
        data(DECAYING).astype("float64"),
        data(DECAYING)[:, :20],
        np.zeros((N, D), "float32"),
    ],
    ids=[
        "far from the origin",
        "tiny noise",
        "one large eigenvalue",
        "no gap",
        "squares too small",
        "squares too large",
        "few rows",
        "float64",
        "d not small beside D",
        "constant",
    ],
)
def test_where_float32_or_the_products_are_not_enough_S_itself_is_decomposed(small_data_qualify, monkeypatch, X):
    assert engine.leading(X, d) is None
    by_S = (*tuple(map(jnp.zeros, [X.shape[1], X.shape[1], (X.shape[1], d)])), jnp.asarray(0), jnp.zeros(()))
    monkeypatch.setattr(eigen, "decomposed", lambda X: by_S)
    assert eigen.enough(X, d) is by_S


def test_an_eigenvector_that_the_sample_does_not_contain_is_not_missed(small_data_qualify):
    X = data(DECAYING)
    X[:, 5] = 0.0
    X = np.concatenate([X, -X])
    unseen = np.setdiff1d(np.arange(len(X)), np.random.default_rng(0).integers(0, len(X), 10 * D))[:2]
    X[unseen] = X[(unseen + N) % len(X)] = 0.0
    X[unseen, 5] = 500.0, -500.0  # with the mean 0, no other direction leads to this one
    _, expected, U = decomposed(X)
    assert np.abs(U[5, 0]) == pytest.approx(1.0)
    found = engine.leading(X, d)
    # Small residuals alone would allow λ_2, …, λ_5 as an answer.
    assert found is None or found.eigenvalues == pytest.approx(expected[:d], rel=2e-6)


def test_another_number_of_rows_compiles_nothing_anew(small_data_qualify, caplog):
    X = data(DECAYING)
    more = np.concatenate([X, X[:77]])
    assert engine.leading(more, d) is not None
    eigen.enough(X, d)
    with jax.log_compiles():
        eigen.enough(more, d)
        assert "Compiling" not in caplog.text
        jax.jit(lambda x: x + 1)(jnp.zeros(3))
        assert "Compiling" in caplog.text


def test_tracers_and_files_and_data_of_an_accelerator_are_left_to_S(small_data_qualify, monkeypatch, tmp_path):
    X = data(DECAYING)
    np.save(tmp_path / "X.npy", X)
    assert engine.leading(np.load(tmp_path / "X.npy", mmap_mode="r"), d) is None
    assert jax.eval_shape(lambda X: ppca.fit(X, d), jnp.asarray(X)).W.shape == (D, d)
    monkeypatch.setattr(engine.door, "on_host", lambda _: False)
    assert engine.leading(jnp.asarray(X), d) is None
