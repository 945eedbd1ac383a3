"""Missing cells: held to SciPy with those coordinates dropped, and to the closed form where nothing is missing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cmog_lib import model, optimise, ppca
from cmog_lib.decoders import Linear
from cmog_lib.ppca import missing

D, d, N = 6, 2, 150
log_p_x = jax.jit(jax.vmap(ppca.log_p_x_observed, in_axes=(None, 0)))


def decoder(dtype: jnp.dtype, *, vector: bool = False, seed: int = 0) -> Linear:
    random = np.random.default_rng(seed)
    log_sigma = np.log(0.4) + 0.3 * random.normal(size=D if vector else ())
    W, b = random.normal(size=(D, d)), random.normal(size=D)
    return Linear(jnp.asarray(W, dtype), jnp.asarray(b, dtype), jnp.asarray(log_sigma, dtype))


def data(dtype: jnp.dtype, *, share: float = 0.2, seed: int = 1) -> jax.Array:
    """Data of the first decoder with a share of the cells missing, and no row or column wholly."""
    _, X = model.sample(decoder(dtype), N, key=jax.random.key(seed))
    random = np.random.default_rng(seed)
    hidden = random.random(X.shape) < share
    hidden[hidden.all(axis=1), 0] = False
    return jnp.where(jnp.asarray(hidden), jnp.nan, X).astype(dtype)


def close(dtype: jnp.dtype, *, loose: float = 1.0) -> dict[str, float]:
    """Some hundred roundings of the dtype, times `loose`."""
    bound = 300 * float(jnp.finfo(dtype).eps) * loose
    return {"rtol": bound, "atol": bound}


@pytest.mark.parametrize("vector", [False, True])
def test_observed_likelihood_and_posterior_are_those_of_the_dropped_marginal(dtype, vector):
    w = decoder(dtype, vector=vector)
    W, b, sigma = (np.asarray(part, "float64") for part in (w.W, w.b, w.sigma))
    for x in data(dtype, share=0.5)[:30]:
        seen = ~np.isnan(x)
        C = W[seen] @ W[seen].T + np.diag(sigma[seen] ** 2)
        x64 = np.asarray(x, "float64")[seen]
        expected = multivariate_normal(b[seen], C).logpdf(x64)
        np.testing.assert_allclose(ppca.log_p_x_observed(w, x), expected, **close(dtype))
        gain = W[seen].T @ np.linalg.inv(C)
        q = ppca.posterior_observed(w, x)
        np.testing.assert_allclose(q.mean, gain @ (x64 - b[seen]), **close(dtype))
        np.testing.assert_allclose(q.covariance, np.eye(d) - gain @ W[seen], **close(dtype))


def test_nothing_missing_is_the_complete_case_and_all_missing_the_prior(dtype):
    w, x = decoder(dtype, vector=True), data(dtype, share=0)[0]
    assert ppca.log_p_x_observed(w, x) == ppca.log_p_x(w, x)
    assert np.array_equal(ppca.posterior_observed(w, x).m, ppca.posterior(w, x).m)
    nothing = jnp.full_like(x, jnp.nan)
    q = ppca.posterior_observed(w, nothing)
    assert ppca.log_p_x_observed(w, nothing) == 0
    # Its factor has been turned by a rotation, which is orthogonal up to rounding.
    assert np.array_equal(q.mean, np.zeros(d)) and np.allclose(q.covariance, np.eye(d), 0, 8 * jnp.finfo(dtype).eps)


def test_gradient_beside_a_missing_cell_is_that_of_the_dropped_marginal(dtype):
    w, x = decoder(dtype, vector=True), data(dtype, share=0)[0]
    hidden = jnp.asarray([1, 4])
    seen = jnp.asarray([0, 2, 3, 5])
    of_w, of_x = jax.grad(ppca.log_p_x_observed, argnums=(0, 1))(w, x.at[hidden].set(jnp.nan))
    dropped = Linear(w.W[seen], w.b[seen], w.log_sigma[seen])
    expected_w, expected_x = jax.grad(ppca.log_p_x, argnums=(0, 1))(dropped, x[seen])
    for mine, expected in zip(jax.tree.leaves((of_w, of_x)), jax.tree.leaves((expected_w, expected_x)), strict=True):
        np.testing.assert_allclose(mine[seen], expected, **close(dtype, loose=10))
        assert np.array_equal(mine[hidden], np.zeros_like(mine[hidden]))


def test_nothing_missing_fits_the_closed_form(dtype):
    X = data(dtype, share=0)
    for mine, closed in zip(*(jax.tree.leaves(fit(X, d)) for fit in (ppca.fit_missing, ppca.fit)), strict=True):
        np.testing.assert_allclose(mine, closed, **close(dtype, loose=10))


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_gradient_of_the_observed_likelihood_vanishes_at_the_fit(share):
    with jax.enable_x64(True):
        X = data(jnp.dtype("float64"), share=share)
        w = ppca.fit_missing(X, d, tolerance=1e-14)
        for part in jax.tree.leaves(jax.grad(lambda w: log_p_x(w, X).mean())(w)):
            # A gain of 1e-14 nats in the last step leaves a gradient of about its square root.
            assert jnp.abs(part).max() < 1e-6


def test_fit_is_where_gradient_ascent_ends(dtype):
    X = data(dtype, share=0.4)

    def objective(w: Linear, X: jax.Array) -> jax.Array:
        return log_p_x(w, X).mean()

    other = optimise.maximise(objective, decoder(dtype, seed=5), X, tolerance=1e-12)
    mine = log_p_x(ppca.fit_missing(X, d), X).mean()
    np.testing.assert_allclose(mine, other.value, atol=1e-5 if dtype == jnp.float32 else 2e-6)


def test_fit_is_better_than_the_closed_form_on_imputed_data(dtype):
    X = data(dtype, share=0.4)
    imputed = jnp.where(jnp.isnan(X), jnp.nanmean(X, axis=0)[None], X)
    assert log_p_x(ppca.fit_missing(X, d), X).mean() - log_p_x(ppca.fit(imputed, d), X).mean() > 0.1


def two_questionnaires(dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Answers to six questions that depend on one latent: half of the people answer three, the others the rest."""
    random = np.random.default_rng(2)
    X = random.normal(size=(400, 1)) + 0.3 * random.normal(size=(400, 6))
    asked = (np.arange(400)[:, None] < 200) == (np.arange(6)[None] < 3)
    return jnp.asarray(X, dtype), jnp.asarray(asked)


def best_of_gradient_ascents(X: jax.Array, latent_dim: int, seeds: int) -> float:
    """The highest average log p(x_observed|w) that L-BFGS finds from so many random starts."""

    def start(seed: int) -> Linear:
        W = np.random.default_rng(seed).normal(size=(X.shape[1], latent_dim))
        return Linear(jnp.asarray(W, X.dtype), jnp.zeros(X.shape[1], X.dtype), jnp.zeros((), X.dtype))

    return max(optimise.maximise(mean_log_p_x, start(k), X, tolerance=1e-9).value for k in range(seeds))


def mean_log_p_x(w: Linear, X: jax.Array) -> jax.Array:
    return log_p_x(w, X).mean()


@pytest.mark.parametrize("complete_rows", [0, 1])
def test_columns_that_are_seldom_or_never_observed_together_get_their_loadings(dtype, complete_rows):
    answers, asked = two_questionnaires(dtype)
    X = jnp.where(asked | (jnp.arange(400)[:, None] < complete_rows), answers, jnp.nan)
    w = ppca.fit_missing(X, 1)
    # One row that links them tells which sign is more likely, and is worth 0.0035 nats; without any both are equal.
    assert mean_log_p_x(w, X) > best_of_gradient_ascents(X, 1, 6) - 1e-4
    assert jnp.abs(w.W).min() > 0.9
    again = ppca.fit_missing(X, 1)
    assert all(np.array_equal(*parts) for parts in zip(jax.tree.leaves(w), jax.tree.leaves(again), strict=True))


def test_one_cell_a_row_fits_the_variance_of_every_column(dtype):
    random = np.random.default_rng(0)
    column = np.arange(400) % 4
    cells = random.normal(size=400) * np.linspace(1, 1.5, 4)[column]
    X = jnp.asarray(np.where(column[:, None] == np.arange(4), cells[:, None], np.nan), dtype)
    w = ppca.fit_missing(X, 1)
    variance = jnp.nanvar(X, axis=0)
    # Each column by itself is a Gaussian, of which the mean square is the maximum.
    best = -0.5 * jnp.mean(jnp.log(2 * np.pi * variance) + 1)
    assert abs(mean_log_p_x(w, X) - best) < 1e-5
    np.testing.assert_allclose(jnp.diagonal(ppca.marginal(w)[1]), variance, rtol=0.02)


@pytest.mark.parametrize("unit", [1e6, 1e-6])
def test_a_column_in_another_unit_neither_collapses_the_fit_nor_spoils_it(dtype, unit):
    X = data(dtype, share=0.3)
    units = jnp.where(jnp.arange(D) == 0, unit, 1.0).astype(dtype)
    X = X * units[None]
    w = ppca.fit_missing(X, d, tolerance=1e-10)
    # PPCA has one σ, so another unit makes another model; but at a maximum the gradient vanishes in any unit.
    gradient = jax.grad(lambda w: mean_log_p_x(w, X))
    # In single precision x − Wm is known to 0.1 where x is 1e6, a fifth of σ.
    bound = 1e-4 if dtype == jnp.float64 else 0.02
    here, beside = gradient(w), gradient(Linear(w.W, w.b, w.log_sigma + 0.05))
    assert jnp.abs(here.W * units[:, None]).max() < bound and jnp.abs(here.b * units).max() < bound
    assert jnp.abs(here.log_sigma) < bound < 10 * bound < jnp.abs(beside.log_sigma)
    assert 0.2 < jnp.exp(w.log_sigma) < 1


def test_every_step_of_the_fit_is_exact_and_none_falls():
    with jax.enable_x64(True):
        X, w = data(jnp.dtype("float64"), share=0.4), decoder(jnp.dtype("float64"), seed=5)
        trace, said = [], []
        for _ in range(40):
            trace.append(float(log_p_x(w, X).mean()))
            w, before = missing._step(w, jnp.nan_to_num(X), ~jnp.isnan(X))
            said.append(float(before))
        # The batch in matrix products, and the plain form one datum at a time.
        np.testing.assert_allclose(said, trace, rtol=1e-12)
        assert np.diff(trace).min() > -1e-12


def test_fit_moves_with_the_data_far_from_the_origin(dtype):
    X = data(dtype, share=0.3)
    here, there = ppca.fit_missing(X, d), ppca.fit_missing(X + 1000, d)
    # A thousand costs the data three digits.
    np.testing.assert_allclose(there.W, here.W, **close(dtype, loose=1000))
    np.testing.assert_allclose(there.b, here.b + 1000, **close(dtype))


def test_row_or_column_without_any_observed_cell_is_named():
    X = data(jnp.dtype("float32"))
    with pytest.raises(ValueError, match=r"^X must.*none in row 3 \(2 such rows"):
        ppca.fit_missing(X.at[jnp.asarray([3, 8])].set(jnp.nan), d)
    with pytest.raises(ValueError, match=r"^X must.*none in column 4 \(1 such columns"):
        ppca.fit_missing(X.at[:, 4].set(jnp.nan), d)


@pytest.mark.parametrize(
    ("X", "came"),
    [
        (jnp.ones((5, D)).at[1, 2].set(jnp.inf), r"inf at X\[1, 2\] \(1 of 30 values are infinite\)"),
        (jnp.ones(D), r"float32\[6\]"),
        (jnp.ones((0, D)), r"float32\[0, 6\]"),
        (jnp.ones((5, D), int), r"int32\[5, 6\]"),
        (jnp.ones((5, D), complex), "complex64"),
        ([[1.0], [1.0, 2.0]], "list"),
    ],
    ids=["infinity", "rank", "empty", "integer", "complex", "ragged"],
)
def test_bad_data_are_named(entry_errors, X, came):
    with pytest.raises(ValueError, match=f"^X must.*got {came}"):
        ppca.fit_missing(X, d)


def test_likelihood_without_a_maximum_is_refused():
    random = np.random.default_rng(0)
    X = random.normal(size=(5, 6))
    X[random.random(X.shape) < 0.4] = np.nan
    with pytest.raises(ValueError, match=r"^latent_dim must.*reproduce all 15 observed cells"):
        ppca.fit_missing(jnp.asarray(X), 3)


def test_too_few_steps_are_said():
    with pytest.raises(RuntimeError, match=r"at step 3"):
        ppca.fit_missing(data(jnp.dtype("float32"), share=0.4), d, max_steps=3, tolerance=1e-12)


@pytest.mark.parametrize("settings", [{"tolerance": 0}, {"tolerance": float("nan")}, {"max_steps": 0}])
def test_bad_settings_are_named(entry_errors, settings):
    with pytest.raises(ValueError, match=f"^{next(iter(settings))} must"):
        ppca.fit_missing(data(jnp.dtype("float32")), d, **settings)
