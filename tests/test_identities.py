"""The heart of the tests: independent roads to the same number."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from cmog_lib import model, ppca, quadrature
from cmog_lib.decoders import Linear
from cmog_lib.posteriors import Gaussian

in_both = settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
cells = {1: 500, 2: 100, 3: 100}


class Wave(eqx.Module):
    """A curve, or a surface, with σ that depends on t: nothing about it has a closed form."""

    a: jax.Array
    latent_dim: int
    data_dim: int = 3

    def __call__(self, t):
        mu = jnp.stack([t[0], jnp.sin(self.a * t[0]), jnp.sum(t**2) / 3])
        return mu, 0.4 + 0.3 * jax.nn.sigmoid(jnp.sum(t) + jnp.arange(3))


def wave(dtype, d: int) -> Wave:
    return Wave(jnp.asarray(1.5, dtype), d)


def linear(dtype, d: int, *, sigma: float = 0.6, vector: bool = False, seed: int = 0, D: int = 5) -> Linear:
    random = np.random.default_rng(seed)
    W, b = random.normal(size=(D, d)), random.normal(size=D)
    log_sigma = np.log(sigma) + 0.3 * random.normal(size=D if vector else ())
    return Linear(jnp.asarray(W, dtype), jnp.asarray(b, dtype), jnp.asarray(log_sigma, dtype))


@eqx.filter_jit
def draw(w, seed):
    return model.sample(w, 6, key=jax.random.key(seed))[1]


def nats(dtype, scale: float = 1.0) -> float:
    """What rounding may cost a number of some tens of nats."""
    return scale * (2e-4 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("vector", [False, True], ids=["PPCA", "factor analysis"])
def test_log_p_x_by_grid_closed_form_scipy_and_exact_are_one_number(dtype, d, vector):
    w = linear(dtype, d, vector=vector, seed=d)
    X = draw(w, d)
    # σ by NumPy: in float32 the library's is rounded, as `exact` must not be.
    W, s = np.asarray(w.W, float), np.exp(np.asarray(w.log_sigma, float)) * np.ones(5)
    scipy = multivariate_normal(np.asarray(w.b, float), W @ W.T + np.diag(s**2)).logpdf(np.asarray(X, float))
    assert np.abs(quadrature.log_p_x(w, X, quadrature.grid(d, cells[d])) - scipy).max() < nats(dtype)
    assert np.abs(jax.vmap(lambda x: ppca.log_p_x(w, x))(X) - scipy).max() < nats(dtype)
    answer = quadrature.exact(w, X, tolerance=1e-8)
    # SciPy's own eigenvalues round at 1e-11.
    assert (np.abs(answer.log_p_x - scipy) <= answer.error + 1e-10).all()


@pytest.mark.parametrize("d", [1, 2])
def test_posterior_moments_by_grid_closed_form_and_exact_agree(dtype, d):
    w = linear(dtype, d, vector=True)
    X = draw(w, 0)
    on_grid = quadrature.posterior(w, X, quadrature.grid(d, cells[d]))
    closed = jax.vmap(lambda x: ppca.posterior(w, x))(X)
    assert jnp.abs(on_grid.mean - closed.mean).max() < nats(dtype)
    assert jnp.abs(on_grid.covariance - closed.covariance).max() < nats(dtype)
    q = quadrature.exact(w, X).posterior(2)
    # To the error of `exact`, 1e-4 of the mass.
    assert jnp.abs(q.mean - closed.mean[2]).max() < 1e-3 and jnp.abs(q.covariance - closed.covariance[2]).max() < 1e-3


@pytest.mark.parametrize("d", [1, 2])
def test_gauss_hermite_is_the_grid_where_the_likelihood_is_smooth(dtype, d):
    w = wave(dtype, d)
    X = draw(w, 1)
    by_grid = quadrature.log_p_x(w, X, quadrature.grid(d, cells[d]))
    by_hermite = quadrature.log_p_x(w, X, quadrature.gauss_hermite(d, 100))
    # 100 nodes are some 0.2 apart, half the narrowest posterior.
    assert jnp.abs(by_grid - by_hermite).max() < 1e-3


def test_log_p_x_of_a_curve_is_scipys_integral(dtype):
    w = wave(dtype, 1)
    X = draw(w, 2)

    def density(t: float, x: np.ndarray) -> float:
        mu = np.array([t, np.sin(1.5 * t), t**2 / 3])
        sigma = 0.4 + 0.3 / (1 + np.exp(-t - np.arange(3)))
        return norm.pdf(x, mu, sigma).prod() * norm.pdf(t)

    expected = np.array(
        [
            np.log(quad(density, -9, 9, args=(x,), points=[x[0]], limit=200, epsrel=1e-11)[0])
            for x in np.asarray(X, float)
        ]
    )
    assert np.abs(quadrature.log_p_x(w, X, quadrature.grid(1, 500)) - expected).max() < nats(dtype)
    answer = quadrature.exact(w, X, tolerance=1e-6)
    # The decoder's 1.5 is 1.5 in both precisions, and so the two roads see one model.
    assert (np.abs(answer.log_p_x - expected) <= answer.error + 1e-9).all()


@pytest.mark.parametrize("d", [1, 2, 3])
def test_exact_is_a_fine_grid_on_a_bent_decoder_within_its_error(d):
    with jax.enable_x64(True):
        w = wave(jnp.dtype("float64"), d)
        X = draw(w, 3)
        fine = quadrature.log_p_x(w, X, quadrature.grid(d, {1: 4000, 2: 400, 3: 120}[d], half_width=8.0))
        answer = quadrature.exact(w, X)
    assert (answer.error <= 1e-4).all()
    assert (np.abs(answer.log_p_x - np.asarray(fine)) <= answer.error + 1e-8).all()


def test_simple_monte_carlo_is_unbiased_for_p_x(dtype):
    w = wave(dtype, 2)
    X, M = draw(w, 4), 50_000
    nodes = quadrature.monte_carlo(2, M=M, key=jax.random.key(5))
    p = np.exp(np.asarray(quadrature.log_p_x(w, X, nodes), float))
    terms = np.exp(np.asarray(model.log_p_x_given_t_table(w, X, nodes.t), float))
    truth = np.exp(quadrature.exact(w, X).log_p_x)
    # Four standard errors of a mean of M terms, and 1e-4 for the error of the truth.
    assert (np.abs(p - truth) < 4 * terms.std(axis=1) / np.sqrt(M) + 1e-4 * truth).all()


@in_both
@given(a=st.floats(0.1, 3.0), x=st.tuples(*[st.floats(-3, 3)] * 3))
def test_posterior_weights_sum_to_one_and_are_joint_over_marginal(dtype, a, x):
    w, X, nodes = Wave(jnp.asarray(a, dtype), 1), jnp.asarray([x], dtype), quadrature.grid(1, 300)
    q = quadrature.posterior(w, X, nodes)
    assert jnp.allclose(jnp.sum(q.weight), 1, rtol=1e-5)
    # p(t|x,w) p(x|w) = p(x|t,w) p(t), node by node.
    joint = model.log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None]
    difference = q.log_weight + quadrature.log_p_x(w, X, nodes)[:, None] - joint
    assert jnp.max(jnp.abs(difference) / (1 + jnp.abs(joint))) < nats(dtype, 0.1)


def test_log_p_xt_is_the_marginal_plus_the_posterior(dtype):
    # log p(x,t|w) = log p(x|w) + log p(t|x,w), at any t: three closed forms that share no line.
    w = linear(dtype, 2, vector=True)
    for x in draw(w, 6):
        t = jnp.asarray([0.4, -1.1], dtype)
        other_way = ppca.log_p_x(w, x) + ppca.posterior(w, x).log_q(t)
        assert jnp.abs(model.log_p_xt(w, x, t) - other_way) < nats(dtype) * (1 + jnp.abs(other_way))


@pytest.mark.parametrize("d", [1, 2])
def test_bound_plus_kl_is_log_marginal(dtype, d):
    # L(w,q) = E_q log p(x,t|w) + H(q) by sampling, KL(q‖p(t|x,w)) on the exact posterior's own Gaussian form.
    w = linear(dtype, d)
    x = draw(w, 7)[0]
    true = ppca.posterior(w, x)
    q = Gaussian(true.mean + 0.1, jnp.log(jnp.sqrt(jnp.diagonal(true.covariance))) + 0.2)
    P, shift = np.linalg.inv(np.asarray(true.covariance, float)), np.asarray(q.m - true.m, float)
    kl = 0.5 * (np.trace(P @ np.diag(np.asarray(q.s, float) ** 2)) + shift @ P @ shift - d)
    kl += np.sum(np.log(np.diagonal(np.asarray(true.L, float)))) - np.sum(np.asarray(q.log_s, float))
    M = 20_000
    t = q.sample(M=M, key=jax.random.key(8))
    draws = np.asarray(jax.vmap(lambda t: model.log_p_xt(w, x, t))(t), float)
    L = draws.mean() + float(q.entropy)
    assert kl > 0.01
    assert abs(L + kl - float(ppca.log_p_x(w, x))) < 4 * draws.std() / np.sqrt(M) + nats(dtype)


def test_exact_posterior_makes_all_importance_weights_equal(dtype):
    w = linear(dtype, 2)
    x = draw(w, 9)[0]
    q = ppca.posterior(w, x)
    t = q.sample(M=50, key=jax.random.key(10))
    weight = jax.vmap(lambda t: model.log_p_xt(w, x, t) - q.log_q(t))(t)
    assert jnp.abs(weight - ppca.log_p_x(w, x)).max() < nats(dtype, 3)


def test_the_likelihood_does_not_move_when_t_is_rotated(dtype):
    # p(t) is round, so w(t) and w(Rt) are one model: in closed form, and on cells that do not rotate.
    w, angle = linear(dtype, 2), 0.7
    R = jnp.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype)
    turned = Linear(w.W @ R, w.b, w.log_sigma)
    X = draw(w, 11)
    one, other = quadrature.exact(w, X), quadrature.exact(turned, X)
    # W R is rounded to the session's precision.
    assert (np.abs(one.log_p_x - other.log_p_x) <= one.error + other.error + nats(dtype)).all()


def test_slope_of_log_p_x_is_the_posterior_mean_of_the_joints_slope(dtype):
    # ∇_w log p(x|w) = E_{p(t|x,w)} ∇_w log p(x,t|w): Fisher's identity, and why EM works.
    w, nodes = wave(dtype, 1), quadrature.grid(1, 300)
    x = draw(w, 12)[0]
    direct = eqx.filter_grad(lambda w: quadrature.log_p_x(w, x[None], nodes)[0])(w).a
    q = quadrature.posterior(w, x[None], nodes)

    def slope(t):
        return jax.grad(lambda a: model.log_p_xt(Wave(a, 1), x, t))(w.a)

    assert jnp.abs(direct - q.expect(slope)[0]) < nats(dtype) * (1 + jnp.abs(direct))
