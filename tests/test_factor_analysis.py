"""Factor analysis, held to scikit-learn, to EM and to its own profile likelihood."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from cmog_lib import ppca
from cmog_lib.ppca.factor_analysis import profile

D, d, N = 8, 2, 300
log_p_x = jax.jit(jax.vmap(ppca.log_p_x, in_axes=(None, 0)))


def data(dtype: jnp.dtype, seed: int = 0) -> jax.Array:
    random = np.random.default_rng(seed)
    noise = random.uniform(0.3, 2.0, size=D) * random.normal(size=(N, D))
    return jnp.asarray(random.normal(size=(N, d)) @ random.normal(size=(d, D)) + noise + random.normal(size=D), dtype)


def test_fit_reaches_scikit_learns_likelihood(dtype):
    from sklearn.decomposition import FactorAnalysis

    X = data(dtype)
    w = ppca.fit_factor_analysis(X, d)
    theirs = FactorAnalysis(d, svd_method="lapack", tol=1e-10, max_iter=10_000).fit(np.asarray(X, "float64"))
    assert w.log_sigma.shape == (D,) and w.W.dtype == dtype
    # Both end at the same maximum, up to what a gain below their tolerances leaves.
    np.testing.assert_allclose(log_p_x(w, X).mean(), theirs.score(np.asarray(X, "float64")), rtol=1e-6)
    np.testing.assert_allclose(w.sigma**2, theirs.noise_variance_, rtol=1e-3)


def test_fit_reaches_scikit_learns_likelihood_on_the_digits(dtype):
    from sklearn.datasets import load_digits
    from sklearn.decomposition import FactorAnalysis

    images = load_digits().data
    images = images[:, images.std(axis=0) > 0]
    with threadpool_limits(1):
        theirs = FactorAnalysis(10).fit(images).score(images)
    X = jnp.asarray(images, dtype)
    assert log_p_x(ppca.fit_factor_analysis(X, 10), X).mean() > theirs - 1e-3


def test_gradient_of_the_likelihood_vanishes_at_the_fit(dtype):
    X = data(dtype)
    gradient = jax.grad(lambda w: log_p_x(w, X).mean())(ppca.fit_factor_analysis(X, d))
    for part in jax.tree.leaves(gradient):
        assert jnp.abs(part).max() < (1e-4 if dtype == jnp.float32 else 1e-5)


def test_em_climbs_to_the_fit_and_never_past_it(dtype):
    X = data(dtype)
    best = ppca.fit_factor_analysis(X, d)
    value = log_p_x(best, X).mean()
    start = ppca.fit(X, d)
    w = type(start)(start.W, start.b, jnp.broadcast_to(start.log_sigma, (D,)))
    trace = [float(log_p_x(w, X).mean())]
    for _ in range(400):
        w = ppca.em_step(w, X)
        trace.append(float(log_p_x(w, X).mean()))
    slack = 100 * float(jnp.finfo(dtype).eps)
    assert np.diff(trace).min() > -slack
    assert trace[0] < value - 0.01 and max(trace) < value + slack
    np.testing.assert_allclose(trace[-1], value, atol=1e-4)


def test_profile_is_the_likelihood_at_the_best_W(dtype):
    X = data(dtype)
    w = ppca.fit_factor_analysis(X, d)
    centred = X - X.mean(axis=0)[None]
    value = profile(w.log_sigma, centred.T @ centred / N, d)
    np.testing.assert_allclose(value, log_p_x(w, X).mean(), rtol=3e-5 if dtype == jnp.float32 else 1e-9)


def test_units_do_not_matter(dtype):
    X = data(dtype)
    unit = jnp.asarray([1e-3, 1e-2, 0.1, 1, 10, 100, 1e3, 1e4], dtype)
    here, there = ppca.fit_factor_analysis(X, d), ppca.fit_factor_analysis(X * unit[None], d)
    np.testing.assert_allclose(there.sigma, here.sigma * unit, rtol=1e-3)
    covariances = [ppca.marginal(w)[1] for w in (here, there)]
    np.testing.assert_allclose(covariances[1] / unit[:, None] / unit[None, :], covariances[0], rtol=1e-3, atol=1e-4)


def test_sigma_stops_at_the_floor_in_a_heywood_case(dtype):
    random = np.random.default_rng(1)
    t = random.normal(size=N)
    # The first coordinate is the factor itself: the likelihood grows for ever as its σ goes to 0.
    X = jnp.asarray(np.column_stack([t, *(t + random.normal(size=N) for _ in range(4))]), dtype)
    for floor in (1e-1, 1e-2):
        share = ppca.fit_factor_analysis(X, 1, floor=floor).sigma / X.std(axis=0)
        np.testing.assert_allclose(share[0], floor, rtol=1e-3)
        assert share[1:].min() > 0.5


def test_coordinates_on_the_floor_are_found_as_the_docstring_says(dtype):
    X = data(dtype)
    X = X.at[:, 3].set(X[:, 1] + X[:, 2])
    floor = 1e-2
    w = ppca.fit_factor_analysis(X, d, floor=floor)
    collapsed = jnp.flatnonzero(w.sigma < 1.01 * floor * X.std(axis=0))
    # Latents for two of three coordinates that depend on each other reproduce the third too: two of them, or all three.
    assert len(collapsed) >= 1 and set(np.asarray(collapsed).tolist()) <= {1, 2, 3}
    assert "`jnp.flatnonzero(w.sigma < 1.01 * floor * X.std(axis=0))`" in ppca.fit_factor_analysis.__doc__
    assert not len(jnp.flatnonzero(ppca.fit_factor_analysis(data(dtype), d).sigma < 1e-3 * 1.01 * X.std(axis=0)))


def test_one_sigma_for_all_is_never_better(dtype):
    X = data(dtype)
    assert log_p_x(ppca.fit_factor_analysis(X, d), X).mean() > log_p_x(ppca.fit(X, d), X).mean()


def test_constant_columns_are_named(dtype):
    X = data(dtype).at[:, jnp.asarray([2, 5])].set(0.1)
    with pytest.raises(ValueError, match=r"^X must not have constant columns.*got 2 of them: 2, 5"):
        ppca.fit_factor_analysis(X, d)


def test_fewer_data_than_dimensions(dtype):
    X = data(dtype)[:6]
    w = ppca.fit_factor_analysis(X, 1)
    assert log_p_x(w, X).mean() > log_p_x(ppca.fit(X, 1), X).mean()
    with pytest.raises(ValueError, match=r"^latent_dim must.*rank 5.*possible here: 1 to 4, got 5"):
        ppca.fit_factor_analysis(X, 5)


@pytest.mark.parametrize("settings", [{"floor": 0}, {"floor": 1.0}, {"tolerance": -1}, {"max_steps": 0}])
def test_bad_settings_are_named(entry_errors, settings):
    with pytest.raises(ValueError, match=f"^{next(iter(settings))} must"):
        ppca.fit_factor_analysis(data(jnp.dtype("float32")), d, **settings)
