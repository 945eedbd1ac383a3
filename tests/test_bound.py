"""The bound's parts against draws and against the identity that ties them to log p(x|w)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import bound, decoders, model, ppca
from cmog_lib.posteriors import FullGaussian, Gaussian


def problem(dtype):
    rng = np.random.default_rng(0)
    w = decoders.Linear(
        jnp.asarray(rng.normal(size=(5, 2)), dtype), jnp.asarray(rng.normal(size=5), dtype), jnp.asarray(-0.5, dtype)
    )
    q = FullGaussian(jnp.asarray([0.3, -0.8], dtype), jnp.asarray([[0.5, 0.0], [0.2, 0.3]], dtype))
    return w, q, jnp.asarray(rng.normal(size=5), dtype)


def test_expected_log_joint_is_the_average_over_draws(dtype):
    w, q, x = problem(dtype)
    values = jax.vmap(lambda t: model.log_p_xt(w, x, t))(q.sample(20_000, key=jax.random.key(0)))
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
    log_q = jax.vmap(full.log_q)(full.sample(20_000, key=jax.random.key(1)))
    assert abs(full.entropy + log_q.mean()) < 4 * log_q.std() / np.sqrt(len(log_q))


def test_other_decoders_are_refused(dtype):
    class Bent(eqx.Module):
        latent_dim: int = eqx.field(static=True, default=2)
        data_dim: int = eqx.field(static=True, default=5)

        def __call__(self, t):
            return jnp.tile(jnp.sin(t), 3)[:5], jnp.ones(5, t.dtype)

    _, q, x = problem(dtype)
    with pytest.raises(ValueError, match=r"w must be a Linear decoder.*got Bent"):
        bound.expected_log_joint(Bent(), q, x)
