"""EM on nodes: the bound touches, never falls, and ends where closed form says."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import bound, datasets, decoders, em, model, ppca, quadrature
from cmog_lib.engine.optimise import decoder as regression
from cmog_lib.optimise import maximise
from cmog_lib.posteriors import Weighted

KEY = jax.random.key(0)


def data(dtype):
    return datasets.curve(60, key=KEY).X.astype(dtype)


def decoder(kind, dtype):
    key = jax.random.key(1)
    return {
        "Linear": lambda: decoders.Linear(
            jax.random.normal(key, (2, 1), dtype), jnp.zeros(2, dtype), jnp.zeros((), dtype)
        ),
        "factor analysis": lambda: decoders.Linear(jnp.ones((2, 1), dtype), jnp.zeros(2, dtype), jnp.zeros(2, dtype)),
        "MLP": lambda: decoders.MLP(1, 2, width=6, key=key),
        "CNN": lambda: decoders.CNN(1, (1, 2), width=6, channels=(3,), key=key),
    }[kind]()


KINDS = ["Linear", "factor analysis", "MLP", "CNN"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_bound_never_falls(dtype, kind):
    w, X, nodes = decoder(kind, dtype), data(dtype), quadrature.grid(1, 60)
    run = em.fit(w, X, nodes, steps=6, max_steps=5, progress=False)
    # Rounding of sums of some nats.
    rounding = 2e-5 if dtype == "float32" else 1e-12
    assert (np.diff(run.log_p_x) > -rounding).all() and (np.diff(run.bound) > -rounding).all()
    assert np.abs(run.bound[::2] - run.log_p_x[:-1]).max() < rounding, "after the E-step it touches"
    assert (run.bound[1::2] < run.log_p_x[1:] + rounding).all(), "after the M-step it is below"
    assert run.log_p_x[-1] > run.log_p_x[0] + 0.05
    assert len(run.path) == 7 and eqx.tree_equal(run.path[-1], run.w)


@pytest.mark.parametrize("kind", ["Linear", "MLP"])
def test_every_latent_that_was_decoded_is_counted(dtype, kind, monkeypatch):
    asked = []

    def counting(*args, **options):
        found = maximise(*args, **options)
        asked.append(found.evaluations)
        return found

    monkeypatch.setattr(regression, "maximise", counting)
    run = em.fit(decoder(kind, dtype), data(dtype), quadrature.grid(1, 60), steps=3, max_steps=5, progress=False)
    each = asked if kind == "MLP" else [0, 0, 0]
    assert run.evaluations.tolist() == np.cumsum([0, *(60 * (1 + n) for n in each)]).tolist()
    assert all(n > 5 for n in asked), "five steps ask at least six times"


@pytest.mark.parametrize("kind", ["Linear", "MLP"])
def test_recorded_numbers_are_the_average_over_data_of_the_bound_of_each(dtype, kind):
    w, X, nodes = decoder(kind, dtype), data(dtype), quadrature.grid(1, 60)
    run = em.fit(w, X, nodes, steps=1, max_steps=3, progress=False)
    q = em.e_step(w, X, nodes)

    @jax.vmap
    def bound_of_one(log_weight, x):
        return bound.lower_bound_on_nodes(run.w, Weighted(q.t, log_weight), x, nodes)

    tolerance = 1e-4 if dtype == "float32" else 1e-12
    assert abs(run.bound[1] - bound_of_one(q.log_weight, X).mean()) < tolerance
    assert abs(em.mean_bound(run.w, q, X, nodes) - run.bound[1]) < tolerance
    assert abs(run.log_p_x[1] - quadrature.log_p_x(run.w, X, nodes).mean()) < tolerance


def test_the_mean_bound_is_that_on_the_nodes_of_q(entry_errors):
    w, X = decoder("Linear", jnp.dtype("float32")), data(jnp.dtype("float32"))
    with pytest.raises(ValueError, match=r"q.t must be nodes.t, of shape \[60, 1\], got others of \[60, 1\]"):
        em.mean_bound(w, em.e_step(w, X, quadrature.grid(1, 60)), X, quadrature.grid(1, 60, 5.0))


def test_e_step_of_a_line_is_its_closed_form_posterior(dtype):
    w, X = decoder("Linear", dtype), data(dtype)
    q = em.e_step(w, X, quadrature.grid(1, 400))
    p = jax.vmap(ppca.posterior, in_axes=(None, 0))(w, X)
    assert jnp.allclose(q.mean, p.mean, atol=1e-5) and jnp.allclose(q.covariance, p.covariance, atol=1e-5)


@pytest.mark.parametrize("kind", ["Linear", "factor analysis"])
def test_em_step_of_a_line_is_the_closed_form_em_step(dtype, kind):
    w, X = decoder(kind, dtype), data(dtype)
    by_nodes, closed = em.em_step(w, X, quadrature.grid(1, 400)), ppca.em_step(w, X)
    tolerance = 1e-4 if dtype == "float32" else 1e-7  # the grid leaves out 2e-9 of the prior, times t²
    for part in ("W", "b", "log_sigma"):
        assert jnp.allclose(getattr(by_nodes, part), getattr(closed, part), atol=tolerance), part


def test_em_of_a_line_ends_at_the_maximum_in_closed_form():
    X = data(jnp.dtype("float32"))
    run = em.fit(decoder("Linear", X.dtype), X, quadrature.grid(1, 200), steps=60, progress=False)
    best = jax.vmap(ppca.log_p_x, in_axes=(None, 0))(ppca.fit(X, 1), X).mean()
    assert abs(run.log_p_x[-1] - best) < 1e-4


@pytest.mark.parametrize("kind", ["Linear", "MLP"])
def test_m_step_lifts_the_expected_log_joint(dtype, kind):
    w, X = decoder(kind, dtype), data(dtype)
    q = em.e_step(w, X, quadrature.grid(1, 60))

    def expected(w):
        log_p_xt = model.log_p_x_given_t_table(w, X, q.t) + jax.vmap(model.log_p_t)(q.t)[None]
        return float(jnp.sum(q.weight * log_p_xt) / len(X))

    w_new = em.m_step(w, q, X, max_steps=50)
    assert expected(w_new) > expected(w) + 0.005
    if kind == "MLP":
        return  # uphill is all that is promised
    for seed in range(5):
        noise = jax.random.normal(jax.random.key(seed), (2,), dtype)
        moved = eqx.tree_at(lambda w: (w.b, w.log_sigma), w_new, (w_new.b + 0.1 * noise, w_new.log_sigma + 0.1))
        assert expected(moved) < expected(w_new)


def test_a_grid_too_coarse_for_sigma_is_reported(dtype):
    w = decoders.Linear(jnp.ones((2, 1), dtype), jnp.zeros(2, dtype), jnp.asarray(-6.0, dtype))
    t = quadrature.grid(1, 20).t
    X = jax.vmap(w)(t)[0]  # data that lie on the nodes: EM will never want another σ
    with pytest.warns(RuntimeWarning, match="rest on fewer than two nodes"):
        em.fit(w, X, quadrature.grid(1, 20), steps=1, progress=False)


def test_an_interrupt_returns_what_there_is(monkeypatch):
    w, X, nodes = decoder("Linear", jnp.dtype("float32")), data(jnp.dtype("float32")), quadrature.grid(1, 60)
    m_step, calls = em.highest, []

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return m_step(*args, **options)

    monkeypatch.setattr(em, "highest", interrupted)
    run = em.fit(w, X, nodes, steps=10, progress=False)
    assert run.interrupted and len(run.path) == len(run.log_p_x) == 3 and len(run.bound) == 4
    assert eqx.tree_equal(run.w, em.em_step(em.em_step(w, X, nodes), X, nodes))


@pytest.mark.parametrize("wrong", ["X", "NaN", "q", "w", "steps"])
def test_what_does_not_fit_is_refused_by_name(entry_errors, wrong):
    class Broken(decoders.MLP):
        def __call__(self, t):
            mu, sigma = super().__call__(t)
            return mu, sigma - 5.0

    X, nodes = data(jnp.dtype("float32")), quadrature.grid(1, 8)
    w = decoder("MLP", X.dtype)
    q = em.e_step(w, X, nodes)
    broken = Broken(1, 2, width=4, key=KEY)
    calls = {
        "X": (lambda: em.e_step(w, X[:, :1], nodes), r"X must be .* \[N, 2\], got float32\[60, 1\]"),
        "NaN": (lambda: em.fit(w, X.at[3, 1].set(jnp.nan), nodes, steps=1), r"got nan at X\[3, 1\]"),
        "q": (lambda: em.m_step(w, q, X[:5]), r"q.log_weight must be .* \[5, 8\], got float32\[60, 8\]"),
        "w": (lambda: em.m_step(broken, q, X), r"w must return finite and positive sigma, got sigma\[0\] = -4"),
        "steps": (lambda: em.fit(w, X, nodes, steps=0), "steps must be an integer of at least 1, got 0"),
    }
    call, message = calls[wrong]
    with pytest.raises(ValueError, match=message):
        call()
