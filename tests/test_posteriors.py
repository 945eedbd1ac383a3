"""The three forms of q: against SciPy, against their own samples, alone and in batches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy.stats import multivariate_normal

from cmog_lib import bound, decoders, ppca
from cmog_lib.posteriors import FullGaussian, Gaussian, Weighted

M = 100_000


def gaussian(dtype, *batch: int) -> Gaussian:
    random = np.random.default_rng(0)
    return Gaussian(
        jnp.asarray(random.normal(size=(*batch, 3)), dtype), jnp.asarray(random.normal(size=(*batch, 3)), dtype)
    )


def full(dtype, *batch: int) -> FullGaussian:
    random = np.random.default_rng(1)
    L = np.tril(random.normal(size=(*batch, 3, 3)), -1) + np.eye(3) * random.uniform(0.2, 2, size=(*batch, 3, 1))
    return FullGaussian(jnp.asarray(random.normal(size=(*batch, 3)), dtype), jnp.asarray(L, dtype))


@pytest.mark.parametrize("build", [gaussian, full])
def test_log_q_and_entropy_are_scipys(dtype, build):
    q, t = build(dtype), jnp.asarray([0.2, -0.5, 1.0], dtype)
    scipy = multivariate_normal(np.asarray(q.mean, float), np.asarray(q.covariance, float))
    rtol = 1e-4 if dtype == "float32" else 1e-10
    assert np.isclose(q.log_q(t), scipy.logpdf(np.asarray(t, float)), rtol=rtol)
    assert np.isclose(q.entropy, scipy.entropy(), rtol=rtol)


@pytest.mark.parametrize("log_s", [-100.0, 100.0])
def test_an_s_that_single_precision_does_not_have_is_refused_there_only(entry_errors, log_s):
    with pytest.raises(ValueError, match=r"log_s must be from -43.67 to 44.36, .* in float32, got -?100"):
        Gaussian(jnp.zeros(2, "float32"), jnp.full(2, log_s, "float32"))
    with jax.enable_x64(True):
        assert np.isclose(Gaussian(jnp.zeros(2), jnp.full(2, log_s)).s, np.exp(log_s)).all()


@pytest.mark.parametrize("build", [gaussian, full])
@pytest.mark.parametrize("batch", [(), (4,)])
def test_samples_have_the_mean_and_covariance_of_q(dtype, build, batch):
    q = build(dtype, *batch)
    t = np.asarray(q.sample(M=M, key=jax.random.key(2)), float)
    assert t.shape == (M, *batch, 3)
    C, deviation = np.asarray(q.covariance, float), t - np.asarray(q.mean, float)
    scale = np.einsum("...ii->...i", C)
    # Five standard errors, since there are 48 numbers to hold to it.
    assert (np.abs(deviation.mean(axis=0)) < 5 * np.sqrt(scale / M)).all()
    error = np.sqrt((scale[..., :, None] * scale[..., None, :] + C**2) / M)
    assert (np.abs(np.einsum("m...i,m...j->...ij", deviation, deviation) / M - C) < 5 * error).all()


def test_a_batch_is_its_members(dtype):
    for build in (gaussian, full):
        q = build(dtype, 4)
        for i in range(4):
            alone = jax.tree.map(lambda part, i=i: part[i], q)
            assert jnp.allclose(q.covariance[i], alone.covariance) and jnp.allclose(q.entropy[i], alone.entropy)


def test_a_factorised_gaussian_is_a_full_one_with_diagonal_l(dtype):
    q, t = gaussian(dtype), jnp.asarray([0.2, -0.5, 1.0], dtype)
    same = FullGaussian(q.m, jnp.diag(q.s))
    assert jnp.allclose(q.log_q(t), same.log_q(t), rtol=1e-5) and jnp.allclose(q.entropy, same.entropy, rtol=1e-5)


def test_weighted_moments_are_the_weighted_sums(dtype):
    random = np.random.default_rng(3)
    t, weight = random.normal(size=(50, 2)), random.dirichlet(np.ones(50), size=3)
    q = Weighted(jnp.asarray(t, dtype), jnp.asarray(np.log(weight), dtype))
    assert q.weight.shape == (3, 50) and jnp.allclose(q.weight.sum(axis=1), 1, rtol=1e-5)
    rtol = 1e-4 if dtype == "float32" else 1e-10
    assert np.allclose(q.mean, weight @ t, rtol=rtol, atol=rtol)
    for i in range(3):
        assert np.allclose(q.covariance[i], np.cov(t.T, aweights=weight[i], ddof=0), rtol=rtol, atol=rtol)
    assert np.allclose(
        q.expect(lambda t: jnp.outer(t, t)), np.einsum("ns,si,sj->nij", weight, t, t), rtol=rtol, atol=rtol
    )
    alone = Weighted(q.t, q.log_weight[0])
    assert jnp.allclose(alone.mean, q.mean[0]) and jnp.allclose(alone.covariance, q.covariance[0])


def test_weighted_covariance_survives_a_narrow_posterior_far_from_zero(dtype):
    # Two points 0.01 apart at 100: E tt^T - mm^T would lose it in float32, where 100² is known to 1e-3.
    q = Weighted(jnp.asarray([[100.0], [100.0078125]], dtype), jnp.log(jnp.asarray([0.5, 0.5], dtype)))
    assert jnp.allclose(q.covariance, 0.00390625**2, rtol=1e-5)


def test_weights_that_do_not_sum_to_one_are_normalised(dtype):
    w = decoders.Linear(jnp.asarray([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.0]], dtype), jnp.zeros(3, dtype), np.log(0.4))
    x, key = jnp.asarray([0.1, -0.1, 0.6], dtype), jax.random.key(1)
    q = ppca.posterior(w, x)
    # At the true posterior all importance weights are p(x|w): the mean is that of the draws.
    t, log_weight = q.sample(M=400, key=key), bound.log_weights(w, q, x, M=400, key=key)
    rtol = 1e-4 if dtype == "float32" else 1e-9
    assert jnp.allclose(Weighted(t, log_weight).mean, t.mean(axis=0), rtol=rtol, atol=rtol)
    # Weights of e^(-5000) are too small for any number, but not relative to each other; also where none are known yet.
    batch = jnp.stack([log_weight, jnp.linspace(-5000, -4990, 400, dtype=dtype)])
    for made in (Weighted(t, batch), jax.jit(Weighted)(t, batch), jax.vmap(lambda row: Weighted(t, row))(batch)):
        assert jnp.allclose(made.weight.sum(axis=1), 1, rtol=1e-5)
        assert jnp.allclose(made.weight[1, -1] / made.weight[1, 0], np.exp(10), rtol=1e-2)


def test_weights_that_sum_to_one_stay_as_they_are(dtype):
    log_weight = jnp.log(jnp.asarray([0.5, 0.25, 0.25], dtype))
    assert (Weighted(jnp.ones((3, 1), dtype), log_weight).log_weight == log_weight).all()


def test_lists_are_arrays(dtype, entry_errors):
    assert Gaussian([0.0, 1.0], [0.0, 0.0]).m.dtype == dtype and Gaussian([[0.0, 1.0]], [[0.0, 0.0]]).m.shape == (1, 2)
    assert (FullGaussian([0.0, 0.0], [[1.0, 0.0], [0.5, 2.0]]).L[1] == jnp.asarray([0.5, 2.0])).all()
    assert jnp.allclose(Weighted([[0.0], [2.0]], [0.0, 0.0]).mean, 1.0)


def test_the_upper_cholesky_factor_is_refused_and_the_lower_one_is_not(entry_errors):
    C = np.array([[1.0, 0.8], [0.8, 1.0]])
    with pytest.raises(ValueError, match=r"L must be lower triangular .* got entries of up to 0.8 above the diagonal"):
        FullGaussian(np.zeros(2), scipy.linalg.cholesky(C))
    with pytest.raises(ValueError, match=r"L must be lower triangular .* got -1 on the diagonal; take jnp.linalg"):
        FullGaussian(np.zeros((2, 2)), np.stack([np.eye(2), -np.eye(2)]))
    q = FullGaussian(np.zeros(2), scipy.linalg.cholesky(C, lower=True))
    assert np.isclose(q.log_q(jnp.ones(2)), multivariate_normal(np.zeros(2), C).logpdf(np.ones(2)))


@pytest.mark.parametrize("build", [gaussian, full])
def test_the_density_of_a_batch_is_asked_for_one_by_one(entry_errors, build):
    q, t = build("float32", 3), jnp.ones((3, 3))
    with pytest.raises(ValueError, match=r"q must be one posterior, got a batch of shape \[3\]; take jax.vmap"):
        q.log_q(t)
    assert jax.vmap(lambda q, t: q.log_q(t))(q, t).shape == (3,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q: q.sample(M=0, key=jax.random.key(0)), "M must be an integer of at least 1, got 0"),
        (lambda q: q.sample(M=-1, key=jax.random.key(0)), "M must be an integer of at least 1, got -1"),
        (lambda q: q.sample(M=3, key=jax.random.PRNGKey(0)), "key must be a typed key"),
        (lambda q: q.log_q(jnp.zeros(2)), r"t must be .* \[3\], got float32\[2\]"),
        (lambda q: q.log_q(jnp.zeros(3, int)), r"t must be .*got int32\[3\]"),
        (lambda q: q.log_q(jnp.full(3, jnp.nan)), r"t must be finite, got nan at t\[0\]"),
    ],
)
@pytest.mark.parametrize("build", [gaussian, full])
def test_bad_input_is_refused_by_name(entry_errors, build, call, message):
    with pytest.raises(ValueError, match=message):
        call(build(jnp.dtype("float32")))
