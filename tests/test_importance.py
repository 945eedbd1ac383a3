"""Importance weights: all equal where q is the posterior, and a bound that rises with the number of draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bound import bent, posterior_of, problem

from cmog_lib import bound, decoders, ppca, quadrature
from cmog_lib.engine import draws
from cmog_lib.posteriors import FullGaussian, Gaussian


def test_the_exact_posterior_makes_all_weights_equal(dtype):
    linear, _, x = problem(dtype)
    X = jnp.stack([x, -x, 3 * x])
    q = jax.vmap(ppca.posterior, in_axes=(None, 0))(linear, X)
    log_p_x = jax.vmap(ppca.log_p_x, in_axes=(None, 0))(linear, X)
    # Rounding of terms of up to a hundred nats.
    rounding = 2e-4 if dtype == "float32" else 1e-11
    weights = bound.log_weights(linear, q, X, M=300, key=jax.random.key(0))
    assert weights.shape == (3, 300) and jnp.abs(weights - log_p_x[:, None]).max() < rounding
    for M in (1, 7, 5000):
        assert jnp.abs(bound.importance(linear, q, X, M=M, key=jax.random.key(M)) - log_p_x).max() < rounding
    one = FullGaussian(q.m[1], q.L[1])
    assert jnp.abs(bound.importance(linear, one, X[1], M=5, key=jax.random.key(0)) - log_p_x[1]) < rounding


def test_the_importance_bound_is_the_logarithm_of_the_mean_weight_and_few_draws_are_the_first_of_many(dtype):
    w, qs, x = bent(dtype)
    for q in qs:
        weights = bound.log_weights(w, q, x, M=700, key=jax.random.key(3))
        few = bound.log_weights(w, q, x, M=30, key=jax.random.key(3))
        assert jnp.abs(few - weights[:30]).max() < (1e-4 if dtype == "float32" else 1e-12), "rounding"
        plain = np.log(np.mean(np.exp(np.asarray(weights[:300], float))))
        assert abs(bound.importance(w, q, x, M=300, key=jax.random.key(3)) - plain) < 1e-4
        error = 4 * weights.std() / np.sqrt(700)
        assert abs(weights.mean() - bound.expected_log_joint(w, q, x, n=64) - q.entropy) < error


@pytest.mark.parametrize("kind", ["factorised", "full"])
def test_the_importance_bound_rises_with_m_in_expectation_up_to_log_p_x(dtype, kind):
    w, (factorised, full), x = bent(dtype)
    q, K = factorised if kind == "factorised" else full, 400
    many, X = jax.tree.map(lambda part: jnp.broadcast_to(part, (K, *part.shape)), (q, x))
    truth = quadrature.exact(w, x[None]).log_p_x[0]
    means, errors = [], []
    for M in (1, 5, 25, 125):  # each from draws of its own
        values = np.asarray(bound.importance(w, many, X, M=M, key=jax.random.key(M)), float)
        means, errors = [*means, values.mean()], [*errors, values.std() / np.sqrt(K)]
    means, errors = np.asarray(means), np.asarray(errors)
    # The first and last differ by far more than their noise, and none is above the truth by more than it.
    assert (np.diff(means) > -4 * np.hypot(errors[1:], errors[:-1])).all()
    assert means[-1] - means[0] > 8 * np.hypot(errors[0], errors[-1])
    assert (means < truth + 4 * errors + 1e-3).all()


def test_memory_does_not_grow_with_the_number_of_draws():
    w = decoders.CNN(2, (8, 8), width=8, channels=(4,), key=jax.random.key(0))
    q, X = Gaussian(jnp.zeros((6, 2)), jnp.zeros((6, 2))), jnp.zeros((6, 64))
    keys = jax.random.split(jax.random.key(0), 6)

    def scratch(M):
        return draws._importance.lower(w, q, X, M, keys).compile().compiled.memory_analysis().temp_size_in_bytes

    # A single number for each draw of one datum, beside the pictures of a block, which are 256 · 4 · 64 numbers.
    assert scratch(50_000) < 1.5 * scratch(500) + 16 * 50_000


def test_a_q_that_misses_the_mass_is_reported(dtype):
    w, (q, _), x = bent(dtype)
    away = Gaussian(q.m, q.log_s + 3)  # a posterior twenty times as wide, of data that know better
    with pytest.warns(RuntimeWarning, match=r"fewer than two of the M=500 draws carry the weight"):
        bound.importance(w, away, 20 * x, M=500, key=jax.random.key(0))


def test_weights_that_are_all_nothing_are_reported():
    # Their squares are beyond single precision.
    w = decoders.Linear(jnp.full((3, 1), 1e6), jnp.zeros(3), jnp.zeros(()))
    q = Gaussian(jnp.full(1, 1e15), jnp.zeros(1))
    with pytest.warns(RuntimeWarning, match=r"fewer than two of the M=500 draws carry the weight \(median 0\)"):
        assert bound.importance(w, q, jnp.ones(3), M=500, key=jax.random.key(0)) == -jnp.inf


def test_a_draw_without_a_density_is_named(entry_errors):
    class Root:
        latent_dim, data_dim = 1, 1

        def __call__(self, t):
            return jnp.sqrt(t), jnp.ones(1)

    q, X = Gaussian(jnp.full((2, 1), 9.0), jnp.asarray([[-2.0], [2.0]])), jnp.ones((2, 1))
    assert jnp.isfinite(bound.importance(Root(), jax.tree.map(lambda a: a[0], q), X[0], M=50, key=jax.random.key(0)))
    for function in (bound.importance, bound.log_weights):
        with pytest.raises(ValueError, match=r"w must return finite mu, got mu\[0\] = nan at t = \[-\d"):
            function(Root(), q, X, M=500, key=jax.random.key(0))
    line, wide = decoders.Linear(*map(jnp.ones, ((1, 1), 1, ()))), FullGaussian(jnp.zeros(1), jnp.full((1, 1), 3e38))
    with pytest.raises(ValueError, match=r"(q must have finite draws .* got s = |w must have a density).* X\[0\]"):
        bound.importance(line, wide, X[0], M=500, key=jax.random.key(0))


@pytest.mark.parametrize("wrong", ["draws", "batch", "kind", "key"])
def test_what_does_not_fit_is_refused_by_name(entry_errors, wrong):
    w, (q, _), x = bent(jnp.dtype("float32"))
    nodes = quadrature.grid(2, 8)
    calls = {
        "draws": (lambda: bound.importance(w, q, x, M=0, key=jax.random.key(0)), "M must be an integer of at least 1"),
        "batch": (
            lambda: bound.importance(w, q, jnp.stack([x, x]), M=5, key=jax.random.key(0)),
            r"q.mean must be .* \[2, 2\], got float32\[2\]",
        ),
        "kind": (
            lambda: bound.log_weights(w, posterior_of(w, x, nodes), x, M=5, key=jax.random.key(0)),
            "q must be a Gaussian or a FullGaussian, from which to draw, got Weighted",
        ),
        "key": (lambda: bound.importance(w, q, x, M=5, key=jax.random.PRNGKey(0)), "key must be a typed key"),
    }
    call, message = calls[wrong]
    with pytest.raises(ValueError, match=message):
        call()
