"""Very small and very large σ, D and N, latents far out, data of no rank: right to a stated error, or refused.

What is right is computed in double precision by SciPy or by hand. Single precision knows 7 digits of x − μ, so where
|x| ≫ σ it can know (x − μ)/σ no better; every tolerance below is a few roundings of the largest term of its sum. A
million data of few dimensions and ten thousand dimensions of few data are what fits into 2 GB here.
"""

from __future__ import annotations

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cmog_lib import bound, datasets, decoders, em, mcmc, model, ppca, quadrature, variational
from cmog_lib.posteriors import FullGaussian, Gaussian

KEY = jax.random.key(0)
SIGMAS = [1e-6, 1e-3, 1.0, 1e3, 1e6]
sigmas = pytest.mark.parametrize("sigma", SIGMAS)
widths = pytest.mark.parametrize("D", [1, 2, 100, 10_000])


def linear(D, d, sigma, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return decoders.Linear(
        jnp.asarray(rng.normal(size=(D, d)), dtype),
        jnp.asarray(rng.normal(size=D), dtype),
        jnp.asarray(np.log(sigma), dtype),
    )


# Compiled once for all sigmas.
log_p_x = eqx.filter_jit(lambda w, X: jax.vmap(ppca.log_p_x, in_axes=(None, 0))(w, X))
posterior = eqx.filter_jit(lambda w, X: jax.vmap(ppca.posterior, in_axes=(None, 0))(w, X))
sample = eqx.filter_jit(lambda w, n: model.sample(w, n, key=KEY))


@eqx.filter_jit
def roads(w, X, T, nodes):
    """The same densities and bounds by every road that is not refined."""
    q = ppca.posterior(w, X[0])
    on_nodes = quadrature.log_p_x(w, X, nodes), quadrature.posterior(w, X, nodes).mean
    bounds = bound.expected_log_joint(w, q, X[0]), bound.lower_bound(w, q, X[0], M=8, key=KEY)
    return model.log_p_x_given_t_table(w, X, T), on_nodes, bounds


def finite(*values):
    return all(np.isfinite(np.asarray(leaf)).all() for value in values for leaf in jax.tree.leaves(value))


def log_p_x_in_double(w, X):
    """log N(x; b, WWᵀ + σ²I) by the d + 1 different eigenvalues of the covariance, which needs no D × D matrix."""
    W, b, sigma = (np.asarray(part, np.float64) for part in (w.W, w.b, np.exp(np.float64(w.log_sigma))))
    U, s, _ = np.linalg.svd(W, full_matrices=False)
    residual = np.asarray(X, np.float64) - b
    inside = residual @ U
    outside = residual - inside @ U.T
    spread = s**2 + sigma**2
    D, d = W.shape
    quadratic = (inside**2 / spread).sum(axis=1) + (outside**2).sum(axis=1) / sigma**2
    log_det = np.log(spread).sum() + (D - min(d, D)) * 2 * np.log(sigma)
    return -0.5 * (quadratic + log_det + D * np.log(2 * np.pi)), np.abs(quadratic) + np.abs(log_det)


def test_the_road_in_double_is_scipys():
    with jax.enable_x64(True):
        w = linear(5, 2, 0.3, jnp.float64)
        X = model.sample(w, 4, key=KEY)[1]
        cov = np.asarray(w.W @ w.W.T + 0.09 * jnp.eye(5))
        np.testing.assert_allclose(log_p_x_in_double(w, X)[0], multivariate_normal(np.asarray(w.b), cov).logpdf(X))


@sigmas
@widths
def test_log_p_x_of_the_straight_decoder_is_right_for_every_sigma_and_width(dtype, sigma, D):
    d = min(2, D)
    w = linear(D, d, sigma, dtype)
    X = sample(w, 5)[1]
    value = np.asarray(log_p_x(w, X), np.float64)
    truth, size = log_p_x_in_double(w, X)
    # The rounding of x itself is eps |x|/σ of a standard deviation, once squared and once times it.
    eps = float(jnp.finfo(dtype).eps)
    lost = eps * (1 + np.abs(np.asarray(X)).max() + np.abs(np.asarray(w.W)).max()) * 8 / sigma
    allowed = 50 * eps * (size + D) + D * (lost**2 + lost)
    assert finite(value) and (np.abs(value - truth) <= allowed).all()
    q = posterior(w, X)
    assert finite(q.mean, q.covariance) and (np.asarray(jnp.diagonal(q.L, axis1=1, axis2=2)) > 0).all()


@sigmas
def test_roads_on_nodes_draws_and_cells_give_numbers_or_say_why_not(dtype, sigma):
    w = linear(3, 1, sigma, dtype)
    T, X = sample(w, 4)
    truth, size = log_p_x_in_double(w, X)
    assert finite(roads(w, X, T, quadrature.grid(1, 64)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        exact = quadrature.exact(w, X, tolerance=1e-3)
    reached = exact.error <= 1e-3
    assert reached.all() or any("did not reach tolerance" in str(each.message) for each in said)
    eps = float(jnp.finfo(dtype).eps)
    lost = eps * 8 * (1 + np.abs(np.asarray(X)).max()) / sigma
    assert (np.abs(exact.log_p_x - truth)[reached] <= 1e-3 + 1e-9 * size[reached] + 3 * (lost**2 + lost)).all()


@pytest.mark.parametrize("far", [10.0, 1e3, 1e6])
def test_latents_and_data_far_in_the_tails_have_their_densities(dtype, far):
    t = jnp.asarray([far, -far], dtype)
    np.testing.assert_allclose(model.log_p_t(t), -(far**2) - np.log(2 * np.pi), rtol=4 * jnp.finfo(dtype).eps)
    w = linear(3, 2, 1.0, dtype)
    mu, _ = w(t)
    value = model.log_p_xt(w, mu, t)
    np.testing.assert_allclose(value, -(far**2) - 2.5 * np.log(2 * np.pi), rtol=8 * jnp.finfo(dtype).eps)
    q = Gaussian(t, jnp.zeros(2, dtype))
    assert finite(q.log_q(-t), q.entropy, bound.kl_to_prior(q), bound.lower_bound(w, q, mu, M=4, key=KEY))
    truth, size = log_p_x_in_double(w, mu[None])
    assert abs(float(ppca.log_p_x(w, mu)) - truth[0]) < 200 * float(jnp.finfo(dtype).eps) * size[0] + 1e-3


def test_squares_too_large_for_single_precision_are_not_nan():
    w = linear(3, 2, 1.0, jnp.float32)
    t = jnp.full(2, 1e25, jnp.float32)
    assert model.log_p_t(t) == -jnp.inf and model.log_p_xt(w, jnp.zeros(3), t) == -jnp.inf


@pytest.mark.parametrize("start", [1e10, 1e25])
def test_chains_that_begin_out_of_reach_are_refused_or_come_back(entry_errors, start):
    w = linear(3, 2, 1.0, jnp.float32)
    X = model.sample(w, 2, key=KEY)[1]
    at = jnp.full((1, 2, 2), start, jnp.float32)
    if start > 1e20:
        with pytest.raises(ValueError, match=r"start must be where log p\(x,t\|w\) is finite"):
            mcmc.hmc(w, X, at, M=5, key=KEY)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chains = mcmc.hmc(w, X, at, M=5, key=KEY)
    assert finite(chains.t, chains.acceptance)


# PPCA of a million data, of ten thousand dimensions, and of data of no rank.


def fit_is_the_maximum(X, d, dtype):
    """That no eigenvalue is missed: W and σ against NumPy's own decomposition of the covariance or its mirror."""
    w = ppca.fit(X, d)
    x = np.asarray(X, np.float64)
    x = x - x.mean(axis=0)
    N, D = x.shape
    eigenvalues = np.linalg.eigvalsh(x @ x.T if N < D else x.T @ x)[::-1] / N
    sigma_squared = (eigenvalues.sum() - eigenvalues[:d].sum()) / (D - d)
    columns = np.sqrt(np.maximum(eigenvalues[:d] - sigma_squared, 0))
    rounding = 30 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.exp(2 * np.float64(w.log_sigma)), sigma_squared, rtol=100 * rounding)
    np.testing.assert_allclose(np.linalg.norm(w.W, axis=0), columns, rtol=rounding, atol=rounding * columns[0])
    return w


def test_a_million_data():
    X = np.random.default_rng(0).normal(size=(1_000_000, 4)).astype(np.float32) * [3, 2, 1, 1]
    X = jnp.asarray(X.astype(np.float32))
    w = fit_is_the_maximum(X, 2, jnp.float32)
    assert abs(float(jnp.linalg.norm(w.W[:, 0])) - np.sqrt(9 - 1)) < 0.02, "three standard errors of it"
    values = log_p_x(w, X)
    spectrum = ppca.fit_all(X)
    np.testing.assert_allclose(np.asarray(values, np.float64).mean(), spectrum.log_likelihood[2], rtol=1e-5)


def test_one_datum_two_data_and_one_dimension_are_refused_with_what_is_possible(entry_errors):
    for shape in ((1, 5), (9, 1)):
        with pytest.raises(
            ValueError, match=r"latent_dim must leave some spread for σ.*no latent dimension is possible"
        ):
            ppca.fit(jnp.asarray(np.random.default_rng(0).normal(size=shape)), 1)


@pytest.mark.parametrize(("N", "D"), [(2, 10_000), (50, 10_000), (50, 49), (50, 50), (50, 51)])
def test_fewer_data_than_dimensions_or_nearly(dtype, N, D):
    scale = np.linspace(2, 0.5, D)
    X = jnp.asarray(np.random.default_rng(1).normal(size=(N, D)) * scale, dtype)
    spectrum = ppca.fit_all(X)
    assert int(spectrum.rank) == min(N - 1, D) and spectrum.eigenvectors.shape == (D, min(N, D))
    if N > 2:
        fit_is_the_maximum(X, 3, dtype)
    else:
        with pytest.raises(ValueError, match="no latent dimension is possible here"):
            ppca.fit(X, 1)


RANKLESS = {
    "a constant column": (lambda X: X.at[:, 2].set(3.7), 5),
    "a column of zeros": (lambda X: X.at[:, 0].set(0), 5),
    "a large constant column": (lambda X: X.at[:, 2].set(1e4), 5),
    "a column twice": (lambda X: X.at[:, 4].set(X[:, 1]), 5),
    "every row thrice": (lambda X: jnp.concatenate([X] * 3), 6),
    "rank two": (lambda X: X[:, :2] @ jnp.asarray(np.random.default_rng(5).normal(size=(2, 6)), X.dtype), 2),
    # Their mean is not exactly that row, and what is left over may look like one dimension.
    "one row again and again": (lambda X: jnp.broadcast_to(X[:1], X.shape), 1),
}


@pytest.mark.parametrize("name", RANKLESS)
def test_data_of_less_than_full_rank_are_fitted_below_it_and_refused_from_it_on(dtype, name):
    spoil, rank = RANKLESS[name]
    X = spoil(jnp.asarray(np.random.default_rng(2).normal(size=(30, 6)), dtype))
    spectrum = ppca.fit_all(X)
    assert int(spectrum.rank) == rank or (name.startswith("one row") and int(spectrum.rank) == 0)
    assert finite(spectrum.eigenvalues, spectrum.eigenvectors, spectrum.b)
    if rank > 1:
        w = spectrum.model(rank - 1)
        assert finite(w, log_p_x(w, X))
    for d in range(rank, 6):
        with pytest.raises(ValueError, match="latent_dim must leave some spread for σ"):
            spectrum.model(d)


# Everything else, at the ends of its range.


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_an_m_step_and_a_warm_start_keep_to_the_units_of_the_data(dtype, scale):
    X = jnp.asarray(datasets.curve(60, key=KEY).X * scale, dtype)
    w = decoders.start_at(decoders.Linear(jnp.ones((2, 1), dtype), jnp.zeros(2, dtype), jnp.zeros((), dtype)), X)
    w = decoders.Linear(jnp.std(X) * w.W, w.b, w.log_sigma)
    nodes = quadrature.grid(1, 100)
    unit = X / scale
    small = decoders.Linear(w.W / scale, w.b / scale, w.log_sigma - np.log(scale).astype(dtype))
    stepped, same = em.em_step(w, X, nodes), em.em_step(small, unit, nodes)
    np.testing.assert_allclose(stepped.W / scale, same.W, rtol=1e-3)
    np.testing.assert_allclose(stepped.log_sigma - np.log(scale), same.log_sigma, atol=1e-3)


def test_a_network_of_ten_thousand_dimensions(dtype):
    w = decoders.MLP(2, 10_000, width=4, depth=1, key=KEY)
    w = jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, w)
    t, X = model.sample(w, 3, key=KEY)
    X = X.astype(dtype)
    table = np.asarray(model.log_p_x_given_t_table(w, X, t.astype(dtype)), np.float64)
    pairs = jax.vmap(jax.vmap(model.log_p_x_given_t, (None, None, 0)), (None, 0, None))
    plain = np.asarray(pairs(w, X, t.astype(dtype)), np.float64)
    np.testing.assert_allclose(table, plain, rtol=2e3 * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("log_s", [-30.0, 30.0])
def test_a_q_as_narrow_or_wide_as_can_be_has_its_bound(dtype, log_s):
    w, m = linear(3, 2, 1.0, dtype), jnp.zeros(2, dtype)
    q, x = Gaussian(m, jnp.full(2, log_s, dtype)), jnp.zeros(3, dtype)
    assert finite(bound.expected_log_joint(w, q, x) + q.entropy, bound.kl_to_prior(q), variational.factorised_gap(w))
    full = FullGaussian(m, jnp.exp(q.log_s[0]) * jnp.eye(2, dtype=dtype))
    np.testing.assert_allclose(full.entropy, q.entropy, rtol=1e-5)
