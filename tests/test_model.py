"""p(t), p(x|t,w), p(x,t|w): against SciPy, the table against the plain form, samples against their moments."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from cmog_lib import model
from cmog_lib.decoders import Linear, as_module

in_both = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Curve:
    """A decoder whose mean bends and whose σ depends on t, written as a student would."""

    latent_dim, data_dim = 2, 4

    def __call__(self, t):
        mu = jnp.stack([t[0], jnp.sin(2 * t[0]), t[1] ** 2, t[0] * t[1]])
        return mu, 0.2 + 0.3 * jax.nn.sigmoid(mu + t[1])


def linear(dtype, D: int, d: int, sigma: float, seed: int = 0) -> Linear:
    random = np.random.default_rng(seed)
    W, b = random.normal(size=(D, d)), random.normal(size=D)
    return Linear(jnp.asarray(W, dtype), jnp.asarray(b, dtype), jnp.asarray(np.log(sigma), dtype))


def test_log_p_t_is_scipys_standard_normal(dtype):
    t = jnp.asarray([0.3, -1.2, 4.0], dtype)
    assert np.isclose(model.log_p_t(t), norm.logpdf(np.asarray(t, float)).sum(), rtol=1e-6)


def test_joint_is_prior_plus_likelihood_by_scipy(dtype):
    w, t, x = Curve(), jnp.asarray([0.7, -0.4], dtype), jnp.asarray([0.5, 1.0, 0.0, -0.2], dtype)
    mu, sigma = (np.asarray(part, float) for part in w(t))
    likelihood = norm.logpdf(np.asarray(x, float), mu, sigma).sum()
    assert np.isclose(model.log_p_x_given_t(w, x, t), likelihood, rtol=1e-5)
    assert np.isclose(model.log_p_xt(w, x, t), likelihood + norm.logpdf(np.asarray(t, float)).sum(), rtol=1e-5)


@eqx.filter_jit
def both_forms(w, X, T):
    plain = jax.vmap(lambda x: jax.vmap(lambda t: model.log_p_x_given_t(w, x, t))(T))(X)
    return model.log_p_x_given_t_table(w, X, T), plain


@in_both
@given(
    shape=st.sampled_from([(1, 1, 1, 1), (4, 5, 7, 3), (3, 1, 20, 2)]),  # few, since each is compiled
    sigma=st.floats(0.3, 3.0),
    seed=st.integers(0, 10**6),
)
def test_table_is_the_plain_form_on_every_pair(dtype, shape, sigma, seed):
    N, S, D, d = shape
    random = np.random.default_rng(seed)
    X, T = (jnp.asarray(random.normal(size=size), dtype) for size in ((N, D), (S, d)))
    table, plain = both_forms(linear(dtype, D, d, sigma, seed), X, T)
    # Σ(x−μ)²/σ², up to thousands of nats here, is multiplied out: a few roundings of the size of its terms.
    bound = 1e-9 if dtype == "float64" else 1e-4 + 2e-6 * float(jnp.max(jnp.abs(plain)))
    assert jnp.max(jnp.abs(table - plain)) < bound


def test_table_of_a_bent_decoder_is_the_plain_form(dtype):
    w, random = Curve(), np.random.default_rng(0)
    X, T = (jnp.asarray(random.normal(size=size), dtype) for size in ((6, 4), (7, 2)))
    table, plain = both_forms(as_module(w), X, T)
    bound = 1e-9 if dtype == "float64" else 1e-4
    assert jnp.max(jnp.abs(table - plain) / (1 + jnp.abs(plain))) < bound


def test_table_does_not_lose_small_differences_of_large_data(dtype):
    # Data around 1000 with deviations of 1: without centring, float32 would keep no digit of the difference.
    random = np.random.default_rng(0)
    w = Linear(jnp.ones((5, 1), dtype), jnp.full(5, 1000.0, dtype), jnp.zeros((), dtype))
    X, T = jnp.asarray(1000 + random.normal(size=(8, 5)), dtype), jnp.asarray(random.normal(size=(6, 1)), dtype)
    table, plain = both_forms(w, X, T)
    # x itself is known to 6e-5 in float32, and the likelihood's slope in it is about one.
    bound = 1e-9 if dtype == "float64" else 5e-3
    assert jnp.max(jnp.abs(table - plain)) < bound


def test_samples_have_the_marginals_moments(dtype):
    n, w = 40_000, linear(dtype, 3, 2, 0.5)
    t, x = model.sample(w, n, key=jax.random.key(0))
    assert t.shape == (n, 2) and x.shape == (n, 3) and x.dtype == dtype
    W = np.asarray(w.W, float)
    marginal = W @ W.T + 0.25 * np.eye(3)
    x = np.asarray(x, float) - np.asarray(w.b, float)
    # Four standard errors: of a mean √(C_ii/n), of a covariance √((C_ii C_jj + C_ij²)/n).
    assert (np.abs(x.mean(axis=0)) < 4 * np.sqrt(np.diag(marginal) / n)).all()
    error = np.sqrt((np.outer(np.diag(marginal), np.diag(marginal)) + marginal**2) / n)
    assert (np.abs(x.T @ x / n - marginal) < 4 * error).all()


def test_sampled_x_scatters_around_the_mean_of_its_own_t(dtype):
    n, w = 20_000, Curve()
    t, x = model.sample(w, n, key=jax.random.key(1))
    mu, sigma = jax.vmap(w)(t)
    standard = np.asarray((x - mu) / sigma, float)
    assert (np.abs(standard.mean(axis=0)) < 4 / np.sqrt(n)).all()
    assert (np.abs((standard**2).mean(axis=0) - 1) < 4 * np.sqrt(2 / n)).all()


class Flat:
    latent_dim, data_dim = 1, 2

    def __init__(self, call, **parts):
        self.call = call
        vars(self).update(parts)

    def __call__(self, t):
        return self.call(t)


t1, x2, one = jnp.zeros(1), jnp.zeros(2), jnp.ones


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: model.log_p_t(jnp.zeros((2, 2))), r"t must be .* \[d\], got float32\[2, 2\]"),
        (lambda w: model.log_p_t(jnp.zeros(0)), r"t must be .*, got float32\[0\]"),
        (lambda w: model.log_p_t(jnp.zeros(2, int)), r"got int32\[2\]; convert it with"),
        (lambda w: model.log_p_t(jnp.zeros(2, complex)), r"t must be a floating-point .*, got complex64\[2\]"),
        (lambda w: model.log_p_t(jnp.array([0.0, jnp.nan])), r"t must be finite, got nan at t\[1\]"),
        (lambda w: model.log_p_x_given_t(w, jnp.zeros(3), jnp.zeros(2)), r"x must be .* \[5\], got float32\[3\]"),
        (lambda w: model.log_p_xt(w, jnp.zeros(5), jnp.zeros(3)), r"t must be .* \[2\], got float32\[3\]"),
        (lambda w: model.log_p_xt(w, jnp.full(5, jnp.inf), jnp.zeros(2)), r"x must be finite, got inf at x\[0\]"),
        (lambda w: model.log_p_x_given_t_table(w, jnp.zeros(5), jnp.zeros((1, 2))), r"X must be .* \[N, 5\]"),
        (lambda w: model.log_p_x_given_t_table(w, jnp.zeros((0, 5)), jnp.zeros((1, 2))), r"got float32\[0, 5\]"),
        (lambda w: model.log_p_x_given_t_table(w, jnp.zeros((1, 5)), jnp.zeros((1, 3))), r"T must be .* \[S, 2\]"),
        (lambda w: model.sample(w, 0, key=jax.random.key(0)), "n must be an integer of at least 1, got 0"),
        (lambda w: model.sample(w, -3, key=jax.random.key(0)), "n must be an integer of at least 1, got -3"),
        (lambda w: model.sample(w, 2.0, key=jax.random.key(0)), "n must be an integer of at least 1, got 2.0"),
        (lambda w: model.sample(w, 2, key=jax.random.PRNGKey(0)), r"key must be a typed key.* got uint32\[2\]"),
        (lambda w: model.sample(w, 2, key=jax.random.split(jax.random.key(0))), "key must be one key"),
        (lambda w: model.sample(w.W, 2, key=jax.random.key(0)), "w must be a decoder .* without latent_dim"),
        (lambda w: model.log_p_xt(Flat(lambda t: one(2)), x2, t1), r"w\(t\) must return mu and sigma.*got array"),
        (lambda w: model.log_p_xt(Flat(lambda t: (one(2), one(()))), x2, t1), r"\[2\].*got tuple of float32\[2\], f"),
        (lambda w: model.log_p_xt(Flat(lambda t: (one(3), one(3))), x2, t1), r"\[2\].*got tuple of float32\[3\], f"),
        (lambda w: model.log_p_xt(Flat(lambda t: (one(2, int), one(2))), x2, t1), r"floating-point.*int32\[2\]"),
        (lambda w: model.log_p_xt(Flat(lambda t: (one((2, 3)) @ t, one(2))), x2, t1), "it raised TypeError"),
        (lambda w: model.log_p_xt(Flat(None, latent_dim=0), x2, t1), "w.latent_dim must be .* at least 1, got 0"),
        (lambda w: model.log_p_xt(Flat(None, data_dim=2.5), x2, t1), "w.data_dim must be an integer"),
    ],
)
def test_bad_input_is_refused_by_name(entry_errors, call, message):
    with pytest.raises(ValueError, match=message):
        call(linear(jnp.dtype("float32"), 5, 2, 1.0))
