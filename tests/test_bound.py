"""The bound's parts against draws and against the identity that ties them to log p(x|w)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import bound, decoders, model, ppca, quadrature
from cmog_lib.engine import table
from cmog_lib.posteriors import FullGaussian, Gaussian, Weighted


def problem(dtype):
    rng = np.random.default_rng(0)
    w = decoders.Linear(
        jnp.asarray(rng.normal(size=(5, 2)), dtype), jnp.asarray(rng.normal(size=5), dtype), jnp.asarray(-0.5, dtype)
    )
    q = FullGaussian(jnp.asarray([0.3, -0.8], dtype), jnp.asarray([[0.5, 0.0], [0.2, 0.3]], dtype))
    return w, q, jnp.asarray(rng.normal(size=5), dtype)


def test_expected_log_joint_is_the_average_over_draws(dtype):
    w, q, x = problem(dtype)
    values = jax.vmap(lambda t: model.log_p_xt(w, x, t))(q.sample(M=20_000, key=jax.random.key(0)))
    standard_error = values.std() / np.sqrt(len(values))
    assert abs(bound.expected_log_joint(w, q, x) - values.mean()) < 4 * standard_error


def test_bound_plus_kl_is_log_marginal(dtype):
    w, q, x = problem(dtype)
    p = ppca.posterior(w, x)
    ratio = jnp.linalg.solve(p.covariance, q.covariance)
    shift = p.m - q.m
    log_det = jnp.linalg.slogdet(ratio)[1]
    kl = 0.5 * (jnp.trace(ratio) + shift @ jnp.linalg.solve(p.covariance, shift) - 2 - log_det)
    lower_bound = bound.expected_log_joint(w, q, x) + q.entropy
    assert kl > 0.1
    # Rounding only: the terms are of the size of log p(x|w), a few tens of nats.
    assert abs(lower_bound + kl - ppca.log_p_x(w, x)) < (1e-4 if dtype == "float32" else 1e-12)


def test_bound_touches_at_the_posterior(dtype):
    w, _, x = problem(dtype)
    q = ppca.posterior(w, x)
    touching = bound.expected_log_joint(w, q, x) + q.entropy
    assert abs(touching - ppca.log_p_x(w, x)) < (1e-4 if dtype == "float32" else 1e-12)


def test_entropy_is_minus_the_average_of_log_q(dtype):
    m, log_s = jnp.asarray([0.3, -0.8], dtype), jnp.asarray([-1.0, 0.4], dtype)
    factorised, full = Gaussian(m, log_s), FullGaussian(m, jnp.diag(jnp.exp(log_s)))
    assert jnp.allclose(factorised.entropy, full.entropy, rtol=1e-5)
    log_q = jax.vmap(full.log_q)(full.sample(M=20_000, key=jax.random.key(1)))
    assert abs(full.entropy + log_q.mean()) < 4 * log_q.std() / np.sqrt(len(log_q))


class Bent(eqx.Module):
    """A network small enough to integrate to the last digit."""

    A: jax.Array
    latent_dim: int = eqx.field(static=True, default=2)
    data_dim: int = eqx.field(static=True, default=5)

    def __call__(self, t):
        return self.A @ jnp.sin(1.5 * t), 0.4 + 0.2 * jax.nn.sigmoid(self.A @ t)


def bent(dtype):
    linear, full, x = problem(dtype)
    factorised = Gaussian(full.m, jnp.asarray([-1.0, -1.4], dtype))
    return Bent(linear.W), [factorised, full], x


def test_bound_of_a_network_is_the_average_over_draws(dtype):
    w, qs, x = bent(dtype)
    for q in qs:
        key = jax.random.key(2)
        values = jax.vmap(lambda t: model.log_p_xt(w, x, t) - q.log_q(t))(q.sample(M=20_000, key=key))  # noqa: B023
        standard_error = values.std() / np.sqrt(len(values))
        assert abs(bound.expected_log_joint(w, q, x) + q.entropy - values.mean()) < 4 * standard_error
        # The same draws, summed in another order.
        assert jnp.allclose(bound.lower_bound(w, q, x, M=20_000, key=key), values.mean(), rtol=1e-5)


def test_gauss_hermite_agrees_with_the_closed_form(dtype):
    linear, q, x = problem(dtype)

    class SameButUnknown(eqx.Module):
        w: decoders.Linear
        latent_dim: int = eqx.field(static=True, default=2)
        data_dim: int = eqx.field(static=True, default=5)

        def __call__(self, t):
            return self.w(t)

    # A quadratic is integrated without error: rounding only.
    tolerance = 1e-3 if dtype == "float32" else 1e-11
    for gaussian in (q, Gaussian(q.m, jnp.log(jnp.asarray([0.5, 0.3], dtype)))):
        by_nodes = bound.expected_log_joint(SameButUnknown(linear), gaussian, x, n=8)
        assert abs(by_nodes - bound.expected_log_joint(linear, gaussian, x)) < tolerance


def test_latents_that_are_decoded_some_at_a_time_have_the_same_expectation(dtype, monkeypatch):
    w, qs, x = bent(dtype)

    def value_and_slope() -> tuple:
        return jax.value_and_grad(lambda m: bound.expected_log_joint(w, Gaussian(m, qs[0].log_s), x, n=9))(qs[0].m)

    whole = value_and_slope()
    monkeypatch.setattr(table, "DECODED", 7 * w.data_dim)
    for mine, expected in zip(value_and_slope(), whole, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5 if dtype == "float32" else 1e-12)


def test_bound_plus_kl_is_log_marginal_for_a_network_and_any_q(dtype):
    w, qs, x = bent(dtype)
    nodes = quadrature.grid(2, 160)
    log_p_x = quadrature.log_p_x(w, x[None], nodes)[0]
    for q in [*qs, bound.on_nodes(qs[0], nodes), posterior_of(w, x, nodes)]:
        total = bound.lower_bound_on_nodes(w, q, x, nodes) + bound.kl(w, q, x, nodes)
        assert abs(total - log_p_x) < (1e-3 if dtype == "float32" else 1e-9)


def test_three_roads_add_up(dtype):
    """The bound by Gauss–Hermite where q is, KL on a grid, log p(x|w) by cells refined where the mass is."""
    w, qs, x = bent(dtype)
    truth = quadrature.exact(w, x[None], tolerance=1e-10)
    for q in qs:
        lower_bound = bound.expected_log_joint(w, q, x, n=64) + q.entropy
        gap = bound.kl(w, q, x, quadrature.grid(2, 240, 8.0))  # beyond 6 the prior still has 4e-9
        assert gap > 0.1
        assert abs(lower_bound + gap - truth.log_p_x[0]) < (1e-3 if dtype == "float32" else 1e-9)


def posterior_of(w, x, nodes):
    q = quadrature.posterior(w, x[None], nodes)
    return Weighted(q.t, q.log_weight[0])


def test_kl_is_zero_at_the_posterior_and_only_there(dtype):
    w, qs, x = bent(dtype)
    nodes = quadrature.grid(2, 160)
    q = posterior_of(w, x, nodes)
    assert abs(bound.kl(w, q, x, nodes)) < (1e-4 if dtype == "float32" else 1e-12)
    assert jnp.allclose(bound.lower_bound_on_nodes(w, q, x, nodes), quadrature.log_p_x(w, x[None], nodes)[0], rtol=1e-5)
    assert all(bound.kl(w, other, x, nodes) > 0.1 for other in qs)


def test_expected_log_joint_of_a_weighted_q_is_its_sum(dtype):
    w, _, x = bent(dtype)
    q = posterior_of(w, x, quadrature.grid(2, 20))
    one_by_one = sum(float(weight * model.log_p_xt(w, x, t)) for weight, t in zip(q.weight, q.t, strict=True))
    assert abs(bound.expected_log_joint(w, q, x) - one_by_one) < (1e-3 if dtype == "float32" else 1e-10)


def test_a_q_too_narrow_for_the_grid_is_reported(dtype):
    w, _, x = bent(dtype)
    narrow = Gaussian(jnp.zeros(2, dtype), jnp.full(2, -5.0, dtype))
    with pytest.warns(RuntimeWarning, match=r"q adds up to .* on these nodes, not to 1"):
        bound.kl(w, narrow, x, quadrature.grid(2, 24))


@pytest.mark.parametrize("wrong", ["w", "x", "q", "other nodes", "n", "M"])
def test_what_does_not_fit_is_refused_by_name(entry_errors, wrong):
    w, (q, _), x = bent(jnp.dtype("float32"))
    nodes = quadrature.grid(2, 8)
    calls = {
        "w": (lambda: bound.lower_bound(None, q, x, M=2, key=jax.random.key(0)), "w must be a decoder"),
        "x": (lambda: bound.kl(w, q, x[:3], nodes), r"x must be .* \[5\], got float32\[3\]"),
        "q": (
            lambda: bound.kl(w, posterior_of(w, x, nodes), x, quadrature.grid(2, 9)),
            r"q.log_weight must be .*\[81\]",
        ),
        "other nodes": (
            lambda: bound.lower_bound_on_nodes(w, posterior_of(w, x, nodes), x, quadrature.grid(2, 8, 5.0)),
            r"q.t must be nodes.t, of shape \[64, 2\], got others",
        ),
        "n": (lambda: bound.expected_log_joint(w, q, x, n=2000), "take fewer, or draws: lower_bound"),
        "M": (lambda: bound.lower_bound(w, q, x, M=0, key=jax.random.key(0)), "M must be an integer of at least 1"),
    }
    call, message = calls[wrong]
    with pytest.raises(ValueError, match=message):
        call()
