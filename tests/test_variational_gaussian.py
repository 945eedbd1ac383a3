"""The Gaussian q by gradient ends where closed form, coordinate ascent and quadrature say; and EM on it climbs."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_variational import KEY, Folded, data_of, linear, network

from cmog_lib import bound, datasets, decoders, ppca, quadrature, variational
from cmog_lib.engine import gaussians, mode
from cmog_lib.optimise import NotFinite
from cmog_lib.posteriors import FullGaussian, Gaussian

QUIET = {"key": KEY, "progress": False}
N = 12  # data, wherever it does not matter how many: what one test has compiled serves the others


@pytest.mark.parametrize("full", [False, True], ids=["factorised", "full"])
def test_by_gradient_the_straight_decoders_optimum_is_its_closed_form(dtype, full):
    w = linear(dtype)
    X = data_of(w, 10)
    found = variational.fit_q(w, X, full=full, steps=600, **QUIET)
    p = jax.vmap(ppca.posterior, in_axes=(None, 0))(w, X)
    closed = jax.vmap(lambda x: variational.cavi_linear(w, x).q)(X)
    best = p if full else closed
    # In units of s: what the last steps of 0.01 leave: more noise where q cannot become the posterior.
    assert (jnp.abs(found.q.m - best.m) / closed.s).max() < 0.03
    assert jnp.abs(found.q.covariance / best.covariance - 1)[:, [0, 1], [0, 1]].max() < (0.1 if full else 0.2)
    exact = jax.vmap(lambda q, x: bound.expected_log_joint(w, q, x) + q.entropy)
    lost = exact(best, X) - exact(found.q, X)
    assert (lost > -1e-4).all() and lost.max() < 5e-3
    assert (jnp.abs(found.bound - exact(found.q, X)) < 5 * found.error + 1e-3).all()


@pytest.mark.weekly
def test_free_is_at_least_as_good_as_gaussian_and_full_as_factorised_and_none_is_above_log_p_x(dtype):
    w, nodes = network(dtype), quadrature.grid(2, 160)
    X = data_of(w, N)
    free = variational.cavi_grid(w, X, nodes).bound[:, -1]
    fitted = {full: variational.fit_q(w, X, full=full, **QUIET) for full in (False, True)}
    exact = jax.vmap(lambda q, x: bound.expected_log_joint(w, q, x, n=48) + q.entropy)
    gaussian, full = exact(fitted[False].q, X), exact(fitted[True].q, X)
    truth = jnp.asarray(quadrature.exact(w, X).log_p_x, dtype)
    # 1e-3: what a Gauss–Hermite rule of 48 nodes and the grid of 160² may err by.
    assert (free >= gaussian - 1e-3).all() and (truth >= free - 1e-3).all() and (truth >= full - 1e-3).all()
    # Both families cost something here, and the Gaussian's price comes on top.
    assert jnp.mean(truth - free) > 0.01 and jnp.mean(free - gaussian) > 1e-3 and jnp.mean(full - gaussian) > 1e-3
    assert (full >= gaussian - 0.02).all(), "each from the same starts, to the noise of their last steps"


@pytest.mark.weekly
def test_of_two_humps_a_gaussian_covers_one_and_the_start_decides_which(dtype):
    w, X = Folded(jnp.asarray(-1.5, dtype)), jnp.asarray([[1.5, 0.0], [1.2, 0.5]], dtype)
    found = variational.fit_q(w, X, starts=8, **QUIET)
    once = [variational.fit_q(w, X, starts=1, **QUIET | {"key": jax.random.key(seed)}) for seed in range(8)]
    places = jnp.stack([each.q.m[0, 0] for each in once])
    assert (jnp.abs(places) > 0.8).all() and (places > 0).any() and (places < 0).any()
    gap = quadrature.log_p_x(w, X, quadrature.grid(2, 200)) - found.bound
    assert jnp.abs(gap - np.log(2)).max() < 0.06, "log 2 for the other hump, and a little for the shape"


@pytest.mark.weekly
def test_what_was_found_can_be_gone_on_from(dtype):
    w = network(dtype)
    X = data_of(w, N)
    short = variational.fit_q(w, X, steps=5, starts=1, **QUIET)
    more = variational.fit_q(w, X, short.q, steps=100, **QUIET)
    assert len(short.trace) == 5 and len(more.trace) == 100
    assert more.bound.mean() > short.bound.mean() + 0.01
    steps_and_bounds = 5 * 2 * N + 256 * N + 32 * N
    climbs = short.evaluations - 4096 - steps_and_bounds
    assert climbs % 10 == 0 and N * 10 <= climbs <= N * 300, "ten latents a step, at most thirty steps a datum"
    assert more.evaluations == steps_and_bounds + 95 * 2 * N
    full = variational.fit_q(w, X, FullGaussian(short.q.m, jnp.sqrt(short.q.covariance)), steps=5, **QUIET)
    assert isinstance(full.q, FullGaussian)


def test_another_decoder_of_the_same_shape_compiles_nothing_anew(monkeypatch):
    w = network(jnp.float32)
    X = data_of(w, N)
    log_ratios, traces = variational.gaussian.log_ratios, []

    def counted(*args):
        traces.append(None)
        return log_ratios(*args)

    monkeypatch.setattr(variational.gaussian, "log_ratios", counted)
    variational.fit_q(w, X, steps=10, **QUIET)
    once = len(traces)
    other = jax.tree.map(lambda leaf: 1.1 * leaf if eqx.is_inexact_array(leaf) else leaf, w)
    variational.fit_q(other, X + 0.1, steps=30, **QUIET)
    assert len(traces) == once > 0


def test_an_interrupt_returns_what_there_is(monkeypatch):
    w = network(jnp.float32)
    X, calls = data_of(w, N), []

    def interrupted(*args, **options):
        found = gaussians.ascend.__wrapped__(*args, **options)
        calls.append(1)
        return eqx.tree_at(lambda found: found.interrupted, found, len(calls) == 2)

    interrupted.__wrapped__ = gaussians.ascend
    monkeypatch.setattr(gaussians, "ascend", interrupted)
    found = variational.fit_q(w, X, steps=10, **QUIET)
    assert found.interrupted and len(found.trace) == 7 and found.q.m.shape == (N, 2)


@pytest.mark.parametrize("full", [False, True], ids=["factorised", "full"])
@pytest.mark.parametrize("sigma", [1e-3, 1e-6])
def test_a_posterior_however_narrow_is_found(sigma, full):
    with jax.enable_x64(True):
        W = jnp.asarray([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.0]])
        w = decoders.Linear(W, jnp.zeros(3), jnp.log(jnp.asarray(sigma)))
        X = jnp.asarray([[-1.5, 0.8], [0.3, 2.0]]) @ W.T
        found = variational.fit_q(w, X, full=full, starts=2, **QUIET)
        gap = jax.vmap(ppca.log_p_x, in_axes=(None, 0))(w, X) - found.bound
        # What the last steps of 0.01 leave, in units of s, whatever s is.
        assert jnp.abs(gap - (0 if full else variational.factorised_gap(w))).max() < 0.02


def test_a_bound_that_still_rises_is_reported(dtype):
    w = linear(dtype)
    far = Gaussian(jnp.full((N, 2), 9.0, dtype), jnp.full((N, 2), -3.0, dtype))
    with pytest.warns(RuntimeWarning, match=r"not converged in 20 steps: .* would still rise by about .* for X\[\d+\]"):
        variational.fit_q(w, data_of(w, N), far, steps=20, **QUIET)


class Torn(eqx.Module):
    """A straight decoder whose μ is NaN where |t_1| > 2.5."""

    W: jax.Array
    sigma: jax.Array
    latent_dim: int = eqx.field(static=True, default=2)
    data_dim: int = eqx.field(static=True, default=3)

    def __call__(self, t):
        hole = jnp.where(jnp.abs(t[0]) > 2.5, jnp.nan, 1.0)
        return hole * (self.W @ t), jnp.broadcast_to(self.sigma, (3,))


class Ridge(eqx.Module):
    """A decoder of the sum of its latents: P(t) is singular to the precision of float32."""

    latent_dim: int = eqx.field(static=True, default=2)
    data_dim: int = eqx.field(static=True, default=3)

    def __call__(self, t):
        return jnp.full(3, 7.3, t.dtype) * t.sum(), jnp.full(3, 1e-4, t.dtype)


def test_the_search_for_a_product_starts_where_the_precision_matrix_is_singular_in_float32():
    X = jnp.full((4, 3), 0.5, jnp.float32)
    q, _ = mode.near_draws(Ridge(), X, 2, False, KEY)
    assert bool(jnp.isfinite(q.m).all()) and bool(jnp.isfinite(q.log_s).all())


def test_a_start_at_nan_is_never_chosen_and_a_draw_at_nan_is_named(dtype):
    W, t = jnp.asarray([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.0]], dtype), jnp.asarray([[1.5, -1.0], [-1.0, 0.5]], dtype)
    # A tenth: no draw of q ever gets as far as 2.5 then.
    found = variational.fit_q(Torn(W, jnp.asarray(0.1, dtype)), t @ W.T, starts=2, steps=30, **QUIET)
    assert jnp.abs(found.q.m - t).max() < 0.05 and jnp.isfinite(found.bound).all()
    with pytest.raises(NotFinite, match=r"step \d+: .*; w must return finite mu, got mu\[0\] = nan at t = \[-?\d"):
        variational.fit_q(Torn(W, jnp.asarray(1.0, dtype)), 2 * t @ W.T, starts=2, **QUIET)


class Cliff(eqx.Module):
    """σ grows without end towards t = 1, where far data pull, and is no number beyond."""

    scale: jax.Array
    latent_dim: int = eqx.field(static=True, default=1)
    data_dim: int = eqx.field(static=True, default=1)

    def __call__(self, t):
        return 3 * t, 1 / jnp.sqrt(self.scale - t)


def test_a_bound_that_is_no_number_is_reported_with_the_step_and_the_last_good_q():
    start = Gaussian(jnp.zeros((1, 1)), jnp.full((1, 1), -2.0))
    with pytest.raises(NotFinite, match=r"in stage 2 of 3, step \d+: ") as caught:
        variational.fit_q(Cliff(jnp.ones(())), jnp.full((1, 1), 30.0), start, **QUIET)
    q = caught.value.ascent.w
    assert isinstance(q, Gaussian) and jnp.isfinite(q.m).all() and q.m.shape == (1, 1, 1) and q.m[0, 0, 0] > 0
    assert np.isfinite(caught.value.ascent.trace).all() and caught.value.step == len(caught.value.ascent.trace)


# Variational EM.


def curve(dtype):
    X = datasets.curve(100, key=KEY).X.astype(dtype)
    w = decoders.MLP(1, 2, width=8, depth=1, key=jax.random.key(3))
    return decoders.start_at(jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, w), X), X


@pytest.mark.weekly
def test_variational_em_of_a_line_ends_at_the_closed_form_maximum(dtype):
    X = data_of(linear(dtype, d=1, D=3), 150)
    w = decoders.Linear(jnp.ones((3, 1), dtype), X.mean(axis=0), jnp.zeros((), dtype))
    run = variational.fit(w, X, steps=12, **QUIET)
    best = float(jax.vmap(ppca.log_p_x, in_axes=(None, 0))(ppca.fit(X, 1), X).mean())
    # With one latent the posterior is in the family: what is lost is the M-step's noise.
    assert best - 0.01 < run.log_p_x[-1] < best + 1e-3 and run.log_p_x[0] < best - 0.3
    assert abs(run.bound[-2] - run.log_p_x[-2]) < 2e-3, "after the E-step it touches"


def test_variational_em_lifts_the_bound_stays_below_log_p_x_and_can_go_on(dtype):
    w, X = curve(dtype)
    options = {"steps": 3, "m_steps": 80, "learning_rate": 1e-2, **QUIET}
    run = variational.fit(w, X, **options)
    assert len(run.path) == len(run.log_p_x) == len(run.evaluations) == 4 and len(run.bound) == 6
    # Bounds by 64 draws a datum with the same noise, rises from half-step to half-step: 0.02 for that noise.
    assert (np.diff(run.bound) > -0.02).all() and run.bound[-1] > run.bound[0] + 0.05
    assert (run.bound[::2] < run.log_p_x[:-1] + 0.02).all() and (run.bound[1::2] < run.log_p_x[1:] + 0.02).all()
    assert eqx.tree_equal(run.path[-1], run.w) and np.diff(run.evaluations).min() > 0
    more = variational.fit(run.w, X, run.q, **options)
    assert more.log_p_x[0] == run.log_p_x[-1] and more.bound[-1] > run.bound[-1]
    assert more.evaluations[1] < run.evaluations[1], "it does not look for a start again"


@pytest.mark.weekly
def test_one_step_is_the_loops_first(dtype):
    w, X = curve(dtype)
    w_new, q = variational.em_step(w, X, key=KEY, full=True)
    assert isinstance(q, FullGaussian) and q.m.shape == (100, 1)
    nodes = quadrature.grid(1, 400)
    assert quadrature.log_p_x(w_new, X, nodes).mean() > quadrature.log_p_x(w, X, nodes).mean()
    again, q = variational.em_step(w_new, X, q, key=KEY)
    assert isinstance(q, FullGaussian), "what it went on from, it stays"
    assert quadrature.log_p_x(again, X, nodes).mean() > quadrature.log_p_x(w_new, X, nodes).mean()


def test_an_interrupted_run_returns_what_it_has(monkeypatch):
    w, X = curve(jnp.float32)
    ascend, calls = variational.em.ascend_on_batches, []

    def stopping(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return ascend(*args, **options)

    monkeypatch.setattr(variational.em, "ascend_on_batches", stopping)
    run = variational.fit(w, X, steps=9, e_steps=5, m_steps=2, **QUIET)
    assert run.interrupted and len(run.path) == len(run.log_p_x) == len(run.evaluations) == 3 and len(run.bound) == 4
    assert run.q.m.shape == (100, 1)


@pytest.mark.parametrize("wrong", ["w", "X", "NaN", "start", "kind", "key", "steps", "starts", "M", "odd", "draws"])
def test_what_does_not_fit_is_refused_by_name(entry_errors, wrong):
    w, X = network(jnp.float32), jnp.zeros((3, 4))
    three, fit_q = Gaussian(jnp.zeros((2, 2)), jnp.zeros((2, 2))), variational.fit_q
    calls = {
        "w": (lambda: fit_q(None, X, key=KEY), "w must be a decoder"),
        "X": (lambda: fit_q(w, X[:, :2], key=KEY), r"X must be .* \[N, 4\], got float32\[3, 2\]"),
        "NaN": (lambda: fit_q(w, X.at[1, 2].set(jnp.nan), key=KEY), r"got nan at X\[1, 2\]"),
        "start": (lambda: fit_q(w, X, three, key=KEY), r"start.mean must be .* \[3, 2\], got float32\[2, 2\]"),
        "kind": (lambda: fit_q(w, X, X, key=KEY), "start must be a Gaussian or a FullGaussian, got ArrayImpl"),
        "key": (lambda: fit_q(w, X, key=3), "key must be a typed key"),
        "steps": (lambda: fit_q(w, X, key=KEY, steps=0), "steps must be an integer of at least 1, got 0"),
        "starts": (lambda: fit_q(w, X, key=KEY, starts=0), "starts must be an integer of at least 1, got 0"),
        "M": (lambda: fit_q(w, X, key=KEY, M=0), "M must be an integer of at least 2, got 0"),
        "odd": (lambda: fit_q(w, X, key=KEY, M=3), "M must be even, for pairs of draws"),
        "draws": (lambda: fit_q(w, X, key=KEY, draws=0), "draws must be an integer of at least 1, got 0"),
    }
    call, message = calls[wrong]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["steps", "M", "e_steps", "m_steps", "learning_rate", "key"])
def test_what_the_loop_cannot_do_is_refused_by_name(entry_errors, name):
    w, X = network(jnp.float32), jnp.zeros((3, 4))
    options = {"steps": 1, "e_steps": 2, "key": KEY, "progress": False, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be"):
        variational.fit(w, X, **options)
    if name != "steps":
        with pytest.raises(ValueError, match=f"{name} must be"):
            variational.em_step(w, X, **{k: v for k, v in options.items() if k not in ("steps", "progress")})


def test_a_second_fit_of_the_same_shapes_compiles_nothing(dtype):
    w, X = network(dtype), data_of(network(dtype), 13)  # no other test here has 13 data: the first fit must compile
    turned_round = X[::-1]
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        variational.fit_q(w, X, steps=3, **QUIET)
        first = len(compiled)
        variational.fit_q(w, turned_round, steps=3, **QUIET)
    finally:
        jax.monitoring.clear_event_listeners()
    assert first > 0 and len(compiled) == first
