"""jax_debug_nans, the first thing to try at a NaN, stops at nothing that is fine without it."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import bound, decoders, likelihood, mcmc, optimise, ppca, quadrature
from cmog_lib.posteriors import Gaussian

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def debug_nans() -> Iterator[None]:
    with jax.debug_nans(True):
        yield


def test_it_does_stop_at_a_nan():
    with pytest.raises(FloatingPointError, match="nan"):
        jnp.log(-jnp.ones(2))


def test_a_training_whose_steps_are_no_multiple_of_the_chunk(dtype):
    w = decoders.MLP(1, 3, width=4, depth=1, key=KEY)
    found = likelihood.fit(w, jnp.ones((5, 3), dtype), steps=5, n=8, chunk=3, key=KEY, progress=False)
    assert found.trace.shape == (5,) and np.isfinite(found.trace).all()


def test_a_gradient_that_fails_is_named_by_jax_before_the_library_does():
    with pytest.raises(FloatingPointError, match="nan"):
        optimise.ascend(lambda w, data, key: jnp.sum(jnp.log(w)), -jnp.ones(2), None, steps=3, key=KEY, progress=False)


def test_missing_cells(dtype):
    random = np.random.default_rng(0)
    X = random.normal(size=(40, 4)).astype(dtype)
    X[random.random(X.shape) < 0.2] = np.nan
    X = X[~np.isnan(X).all(axis=1)]
    w = ppca.fit_missing(X, 1)
    assert jnp.isfinite(ppca.log_p_x_observed(w, X[0])) and jnp.isfinite(ppca.posterior_observed(w, X[0]).m).all()


def test_latent_dimensions_without_a_model(dtype):
    X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), dtype)
    table = np.asarray(ppca.fit_all(X).log_p_x(X))  # of rank 3
    assert np.isfinite(table[:3]).all() and np.isnan(table[3:]).all()


def test_nodes_that_are_switched_off(dtype):
    w = decoders.Linear(jnp.ones((3, 1), dtype), jnp.zeros(3, dtype), jnp.zeros((), dtype))
    nodes, x = quadrature.grid(1, 20), jnp.ones(3, dtype)
    nodes = quadrature.Nodes(nodes.t, nodes.log_weight.at[:5].set(-jnp.inf))
    q = quadrature.posterior(w, x[None], nodes)
    q = Gaussian(q.mean[0], jnp.zeros(1, dtype)), jax.tree.map(lambda a: a[0] if a.shape[0] == 1 else a, q)
    for each in q[1:]:
        parts = bound.lower_bound_on_nodes(w, each, x, nodes), bound.kl(w, each, x, nodes)
        assert jnp.isfinite(jnp.stack(parts)).all()


def test_a_metropolis_step(dtype):
    w = decoders.Linear(jnp.ones((3, 2), dtype), jnp.zeros(3, dtype), jnp.zeros((), dtype))
    x, options = jnp.ones(3, dtype), {"step": 0.5, "scale": jnp.eye(2, dtype=dtype), "key": KEY}
    moved = mcmc.metropolis_step(w, x, mcmc.state_at(w, x, jnp.zeros(2, dtype)), **options).state
    for key in jax.random.split(KEY, 5):  # one of these is accepted
        moved = mcmc.metropolis_step(w, x, moved, **options | {"key": key}).state
    assert jnp.isfinite(moved.log_p) and (moved.t != 0).all()
