"""Chains end where the posterior is, by closed form and by quadrature; Monte Carlo EM ends where EM does."""

from __future__ import annotations

import warnings
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import datasets, decoders, em, mcmc, model, optimise, ppca, quadrature
from cmog_lib.engine.chains import adapt
from cmog_lib.engine.mode import precision, scale_at
from cmog_lib.posteriors import FullGaussian

KEY = jax.random.key(0)
N = 12  # data, wherever it does not matter how many: what one test has compiled serves the others
SAMPLERS = {"Metropolis": mcmc.metropolis, "HMC": mcmc.hmc}
samplers = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


sample_by = pytest.mark.parametrize(
    "sampler", [*SAMPLERS.values(), pytest.param(mcmc.nuts, marks=pytest.mark.weekly)], ids=[*SAMPLERS, "NUTS"]
)


def linear(dtype, d=2, D=5):
    key_W, key_b = jax.random.split(jax.random.key(1))
    W, b = jax.random.normal(key_W, (D, d), dtype), jax.random.normal(key_b, (D,), dtype)
    return decoders.Linear(W, b, jnp.asarray(-0.5, dtype))


def network(dtype):
    w = decoders.MLP(1, 2, width=8, key=jax.random.key(3))
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, w)


@cache
def bent(dtype):
    """An MLP at d = 1 whose posteriors are skewed and some of them have two humps."""
    X = datasets.curve(200, key=KEY).X.astype(dtype)
    w = decoders.start_at(network(dtype), X)
    return em.fit(w, X, quadrature.grid(1, 60), steps=8, max_steps=10, progress=False).w


class Folded(eqx.Module):
    """x = t² and a little noise: t and −t explain a datum alike, and there is a desert between them."""

    latent_dim: int = 1
    data_dim: int = 1

    def __call__(self, t):
        return t**2, jnp.full_like(t, 0.1)


def data_of(w, n, seed=2):
    return model.sample(w, n, key=jax.random.key(seed))[1]


# Where chains begin.


def test_laplace_is_exact_for_a_straight_decoder(dtype):
    w = linear(dtype)
    X = data_of(w, N)
    q, p = mcmc.laplace(w, X, key=KEY), jax.vmap(ppca.posterior, in_axes=(None, 0))(w, X)
    rounding = 2e-5 if dtype == "float32" else 1e-12
    assert jnp.abs(q.m - p.mean).max() < rounding and jnp.abs(q.covariance - p.covariance).max() < rounding
    assert (jnp.triu(q.L, 1) == 0).all() and (jnp.diagonal(q.L, axis1=1, axis2=2) > 0).all()


@pytest.mark.weekly
def test_the_scale_is_a_triangular_root_of_the_inverse_precision(dtype):
    w, t = bent(dtype), jnp.array([[0.2], [-1.0]], dtype)
    L = scale_at(w, t)
    P = jax.vmap(precision, in_axes=(None, 0))(w, t)
    rounding = 1e-4 if dtype == "float32" else 1e-11
    assert jnp.abs(P @ L @ jnp.swapaxes(L, 1, 2) - 1).max() < rounding


@pytest.mark.weekly
def test_laplace_climbs_to_a_mode(dtype):
    w = bent(dtype)
    X = data_of(w, 20)
    q = mcmc.laplace(w, X, key=KEY)
    steepness = jax.vmap(jax.grad(lambda t, x: model.log_p_xt(w, x, t)))(q.m, X) * q.L[:, :, 0]
    assert jnp.abs(steepness).max() < (2e-2 if dtype == "float32" else 1e-4), "in units of the posterior's width"
    line = jnp.linspace(-4, 4, 4001, dtype=X.dtype)[:, None]
    highest = model.log_p_x_given_t_table(w, X, line) + jax.vmap(model.log_p_t)(line)[None]
    reached = jax.vmap(lambda x, t: model.log_p_xt(w, x, t))(X, q.m)
    # Of several humps it may climb another one; where there is one, it is that.
    assert jnp.median(highest.max(axis=1) - reached) < 1e-3


class Torn(eqx.Module):
    """A straight decoder whose μ is NaN where |t_1| > 2.5, as where a square root has left its domain."""

    W: jax.Array
    latent_dim: int = eqx.field(static=True, default=2)
    data_dim: int = eqx.field(static=True, default=3)

    def __call__(self, t):
        return jnp.where(jnp.abs(t[0]) > 2.5, jnp.nan, 1.0) * (self.W @ t), jnp.full(3, 0.4, t.dtype)


class Ring(eqx.Module):
    """μ_1 = |t|, whose slope at t = 0 is NaN, though log p is finite there."""

    latent_dim: int = 2
    data_dim: int = 3

    def __call__(self, t):
        return jnp.stack([jnp.linalg.norm(t), t[0], t[1]]), jnp.full(3, 0.4, t.dtype)


def test_a_start_where_the_decoder_is_nan_counts_as_the_least_likely(dtype):
    w = Torn(jnp.asarray([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.0]], dtype))
    whole = decoders.Linear(w.W, jnp.zeros(3, dtype), jnp.log(jnp.asarray(0.4, dtype)))
    t = jax.random.uniform(KEY, (6, 2), dtype, -1, 1)
    X = t @ w.W.T
    p = jax.vmap(ppca.posterior, in_axes=(None, 0))(whole, X)
    for seed in range(10):  # of 64 draws from the prior most keys have one beyond 2.5
        q = mcmc.laplace(w, X, key=jax.random.key(seed))
        assert jnp.abs(q.m - p.mean).max() < (2e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (Torn(jnp.full((3, 2), jnp.nan)), r"w must return finite mu, got mu\[0\] = nan at t = \[-?\d"),
        (
            decoders.Linear(jnp.ones((3, 2)), jnp.full(3, 1e25), jnp.zeros(())),
            r"w must make log p\(x,t\|w\) finite some",
        ),
    ],
)
def test_a_decoder_without_a_finite_place_is_named_with_a_latent(entry_errors, w, message):
    with pytest.raises(ValueError, match=message):
        mcmc.laplace(w, jnp.ones((2, 3)), key=KEY)


# One step of one chain.

metropolis_step, hmc_step = eqx.filter_jit(mcmc.metropolis_step), eqx.filter_jit(mcmc.hmc_step)


@pytest.mark.weekly
def test_the_energy_error_of_a_trajectory_falls_with_the_square_of_its_step():
    with jax.enable_x64(True):
        w = bent(jnp.dtype("float64"))
        x = data_of(w, 1)[0]
        state = mcmc.state_at(w, x, jnp.array([0.3]))

        def lost(step, leapfrogs):
            """How far acceptance is from 1, for trajectories of one length."""
            options = {"step": step, "scale": 0.3 * jnp.eye(1), "leapfrogs": leapfrogs}
            moves = jax.vmap(lambda key: mcmc.hmc_step(w, x, state, **options, key=key))(jax.random.split(KEY, 500))
            return float(1 - moves.acceptance.mean())

        assert lost(0.05, 16) > 1e-6
        assert 3 < lost(0.1, 8) / lost(0.05, 16) < 5


def test_a_step_that_is_rejected_stays_where_it_was(dtype):
    w = linear(dtype)
    x, t = data_of(w, 1)[0], jnp.zeros(2, dtype)
    state = mcmc.state_at(w, x, t)
    far = metropolis_step(w, x, state, step=jnp.asarray(1e4, dtype), scale=jnp.eye(2, dtype=dtype), key=KEY)
    wild = hmc_step(w, x, state, step=jnp.asarray(1e4, dtype), scale=jnp.eye(2, dtype=dtype), leapfrogs=3, key=KEY)
    for move in (far, wild):
        assert eqx.tree_equal(move.state, state) and move.acceptance == 0
    assert wild.divergent and not far.divergent, "a trajectory can fly off, a proposal is only bad"
    assert far.path.shape == (1, 2) and wild.path.shape == (3, 2), "every place that the decoder was asked for"


def test_a_hamiltonian_step_refuses_a_state_without_a_gradient_as_a_metropolis_step_leaves_it(entry_errors):
    w, x = linear(jnp.dtype("float32")), jnp.ones(5)
    options = {"step": 1e-3, "scale": jnp.eye(2), "key": jax.random.key(0)}
    state = mcmc.metropolis_step(w, x, mcmc.state_at(w, x, jnp.zeros(2)), **options).state  # so short is accepted
    with pytest.raises(ValueError, match=r"state.gradient must be finite, got inf"):
        mcmc.hmc_step(w, x, state, leapfrogs=2, **options)
    mcmc.hmc_step(w, x, mcmc.state_at(w, x, state.t), leapfrogs=2, **options)


def test_a_step_that_is_accepted_ends_where_its_path_ends(dtype):
    w = linear(dtype)
    x = data_of(w, 1)[0]
    state = mcmc.state_at(w, x, jnp.zeros(2, dtype))
    near = metropolis_step(w, x, state, step=jnp.asarray(1e-3, dtype), scale=jnp.eye(2, dtype=dtype), key=KEY)
    rolled = hmc_step(w, x, state, step=jnp.asarray(1e-2, dtype), scale=jnp.eye(2, dtype=dtype), leapfrogs=3, key=KEY)
    for move in (near, rolled):
        assert (move.state.t == move.path[-1]).all() and (move.state.t != state.t).any() and move.acceptance > 0.9


# All chains.


@sample_by
def test_moments_agree_with_the_closed_form(dtype, sampler):
    w = linear(dtype)
    X = data_of(w, N)
    p = jax.vmap(ppca.posterior, in_axes=(None, 0))(w, X)
    chains = sampler(w, X, p, M=1000, key=KEY)
    variance = np.asarray(jnp.diagonal(p.covariance, axis1=1, axis2=2))
    error = np.sqrt(variance / np.minimum(chains.effective_sample_size, 4000))
    # 24 means: one in a million of such tables has an entry beyond 5.5 standard errors.
    assert (np.abs(chains.mean - p.mean) / error).max() < 5.5
    squares = (np.asarray(chains.t) - np.asarray(p.mean)[None, None]) ** 2 / variance[None, None]
    assert np.abs(squares.mean(axis=(0, 1)) - 1).max() < 0.35 and abs(squares.mean() - 1) < 0.05
    assert chains.r_hat.max() < 1.05 and chains.divergent.sum() == 0


@pytest.mark.weekly
@samplers
def test_moments_agree_with_quadrature_for_a_network(dtype, sampler):
    w = bent(dtype)
    X = data_of(w, 40)
    p = quadrature.posterior(w, X, quadrature.grid(1, 2000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two humps that few chains cross between; those data are left out below
        chains = sampler(w, X, mcmc.laplace(w, X, key=KEY), M=1500, key=KEY)
    mixed = (chains.r_hat < 1.02).all(axis=1)
    assert mixed.sum() >= 25
    sd = np.sqrt(np.asarray(p.covariance)[:, 0, 0])
    error = sd / np.sqrt(np.minimum(chains.effective_sample_size[:, 0], 6000))
    off = np.abs(np.asarray(chains.mean - p.mean)[:, 0]) / error
    # The effective sample size is itself estimated; among forty, one is a little beyond four.
    assert off[mixed].max() < 5.5 and np.median(off[mixed]) < 1.2


@pytest.mark.weekly
@samplers
def test_adaptation_reaches_its_target(sampler):
    w = linear(jnp.float32, d=10, D=12)
    X = data_of(w, 30)
    start = mcmc.laplace(w, X, key=KEY)
    for target in (0.3, 0.6) if sampler is mcmc.metropolis else (0.85, 0.95):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 300 Metropolis steps are few for R̂
            chains = sampler(w, X, start, M=300, key=KEY, warm_up=400, target=target)
        # Single steps are noisy and acceptance falls ever faster with them, so the average errs to the careful side.
        assert -0.1 < float(chains.acceptance.mean()) - target < 0.2
    fixed = sampler(w, X, start, M=10, key=KEY, step=0.25)
    assert (fixed.step == 0.25).all()


def test_a_few_draws_and_their_slopes_tell_a_gaussians_covariance(monkeypatch):
    monkeypatch.setattr(adapt, "PRIOR", 1e-9)
    with jax.enable_x64(True):
        root = jnp.tril(jax.random.normal(KEY, (2, 4, 4))) + 2 * jnp.eye(4)[None]
        P = jnp.linalg.inv(root @ jnp.swapaxes(root, 1, 2))
        seen = adapt.nothing_seen(mcmc.State(jnp.ones((3, 2, 4)), jnp.zeros((3, 2)), jnp.zeros((3, 2, 4))))
        for key in jax.random.split(KEY, 4):  # draws from anywhere: three chains, four draws each
            t = jax.random.normal(key, (3, 2, 4)) + jnp.arange(3.0)[:, None, None]
            seen = adapt.see(seen, mcmc.State(t, jnp.zeros((3, 2)), -jnp.einsum("nij,cnj->cni", P, t - 1)))
        L = adapt.scale_from(seen, jnp.broadcast_to(3 * jnp.eye(4), (2, 4, 4)))
        assert jnp.abs(L @ jnp.swapaxes(L, 1, 2) @ P - jnp.eye(4)[None]).max() < 1e-6 and (jnp.triu(L, 1) == 0).all()


def test_no_trajectory_mirrors_the_last_draw():
    w = linear(jnp.float32)
    X = data_of(w, 100)
    p = jax.vmap(ppca.posterior, in_axes=(None, 0))(w, X)
    for leapfrogs in (2, 5):
        chains = mcmc.hmc(w, X, p, M=200, key=KEY, chains=1, leapfrogs=leapfrogs)
        away = np.linalg.solve(np.asarray(p.L)[None], np.asarray(chains.t[0] - p.m[None])[..., None])
        following = (away[1:] * away[:-1]).mean()
        # Of 40,000 products; a proposal that is refused stays near.
        assert chains.step.max() < 1.01 * np.pi / 2 / leapfrogs and abs(following) < 0.15


def test_a_warm_up_finds_scale_and_step_from_a_start_that_knows_neither(dtype):
    w = decoders.Linear(jnp.diag(jnp.asarray([30.0, 1.0], dtype)), jnp.zeros(2, dtype), jnp.zeros((), dtype))
    X = data_of(w, 8)
    p = jax.vmap(ppca.posterior, in_axes=(None, 0))(w, X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chains = mcmc.hmc(w, X, jnp.zeros((2, 8, 2), dtype), M=300, warm_up=200, key=KEY)
    ratio = jnp.diagonal(chains.scale @ jnp.swapaxes(chains.scale, 1, 2), axis1=1, axis2=2) / jnp.diagonal(
        p.covariance, axis1=1, axis2=2
    )
    # Of a posterior thirty times as narrow as the start says: to a factor of three in its deviation.
    assert float(ratio.min()) > 1 / 9 and float(ratio.max()) < 9
    assert float(chains.acceptance.mean()) > 0.7 and chains.r_hat.max() < 1.1
    kept = mcmc.hmc(w, X, chains, M=5, warm_up=0, key=KEY)
    assert eqx.tree_equal(kept.scale, chains.scale), "without a warm-up nothing is learnt"


def test_the_same_key_gives_the_same_draws_and_chains_go_on():
    w = linear(jnp.float32)
    X = data_of(w, N)
    start = mcmc.laplace(w, X, key=KEY)
    one, same = (mcmc.hmc(w, X, start, M=40, key=KEY, chains=3) for _ in range(2))
    assert eqx.tree_equal(one, same) and one.t.shape == (3, 40, N, 2)
    more = mcmc.hmc(w, X, one, M=7, warm_up=0, key=jax.random.key(1))
    assert more.t.shape == (3, 7, N, 2) and eqx.tree_equal(more.step, one.step)
    short = mcmc.hmc(w, X, one, M=7, warm_up=0, step=1e-3, key=jax.random.key(1))
    # Two leapfrogs of at most 1.2e-3 at momenta below 6, in units of a posterior that is narrower than the prior.
    assert jnp.abs(short.t[:, 0] - one.last).max() < 0.015, "it goes on where the last one stood"


def test_a_run_of_few_draws_is_the_beginning_of_a_longer_one_and_compiled_with_it():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **of: compiled.append(of.get("fun_name")) if "backend_compile" in name else None
    )
    w = linear(jnp.float32, D=6)
    X = data_of(w, 5)
    start = mcmc.laplace(w, X, key=KEY)
    longest, *fewer = (mcmc.hmc(w, X, start, M=M, warm_up=10, key=KEY, chains=1) for M in (22, 1, 9))
    assert [name for name in compiled if "sweep" in str(name)] == ["jit(_sweep)"]
    for few, M in zip(fewer, (1, 9), strict=True):
        assert few.t.shape == (1, M, 5, 2) and jnp.array_equal(few.t, longest.t[:, :M])
        assert jnp.array_equal(few.step, longest.step) and jnp.all((few.acceptance > 0.1) & (few.acceptance <= 1))


def test_the_effective_sample_size_is_that_of_an_autoregression_and_nothing_for_chains_that_stand():
    rho, (C, M) = 0.8, (4, 5000)
    noise = np.random.default_rng(0).normal(size=(C, M, 2))
    noise[:, 0] /= np.sqrt(1 - rho**2)
    for s in range(1, M):
        noise[:, s, 0] += rho * noise[:, s - 1, 0]
        noise[:, s, 1] -= rho * noise[:, s - 1, 1]
    positive, negative = mcmc.effective_sample_size(noise)
    # 1 + 2 Σ ρ^k = (1 + ρ)/(1 − ρ) = 9; from 20,000 draws it is told to about a tenth.
    assert abs(positive / (C * M / 9) - 1) < 0.2
    assert negative == C * M * np.log10(C * M), "capped"
    still = np.ones((C, 100, 1)) * np.arange(C)[:, None, None]
    assert mcmc.effective_sample_size(still) < C and mcmc.effective_sample_size(np.ones((C, 100, 1))) == 0


def test_draws_serve_as_a_posterior():
    w = linear(jnp.float32)
    X = data_of(w, N)
    chains = mcmc.hmc(w, X, mcmc.laplace(w, X, key=KEY), M=40, key=KEY, chains=3)
    q = chains.posterior(2)
    assert q.t.shape == (120, 2)
    np.testing.assert_allclose(q.mean, chains.mean[2], atol=1e-5)
    with pytest.raises(ValueError, match="i must be"):
        chains.posterior(N)


def test_every_latent_that_was_decoded_is_counted():
    w = linear(jnp.float32)
    X = data_of(w, N)
    chains = mcmc.hmc(w, X, mcmc.laplace(w, X, key=KEY), M=40, warm_up=30, chains=3, leapfrogs=5, key=KEY)
    assert chains.evaluations == 3 * N * (1 + 5 * 70)


# The referee.


def test_numpyros_density_is_log_p_xt(dtype):
    from numpyro.infer.util import log_density

    w = network(dtype)
    T, X = model.sample(w, 20, key=KEY)
    for t, x in zip(T, X, strict=True):
        theirs, _ = log_density(mcmc.numpyro_model, (w, x), {}, {"t": t})
        ours = float(model.log_p_xt(w, x, t))
        assert abs(float(theirs) - ours) < max(1e-6, 4 * jnp.finfo(X.dtype).eps * abs(ours))


@pytest.mark.weekly
def test_nuts_is_compiled_once_for_all_decoders_of_a_kind():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    first, second = (decoders.MLP(1, 2, width=8, key=jax.random.key(seed)) for seed in (1, 2))
    X = data_of(first, 3)
    chains = mcmc.nuts(first, X, mcmc.laplace(first, X, key=KEY), M=5, warm_up=5, key=KEY)
    chains = mcmc.nuts(first, X, chains, M=5, warm_up=5, key=KEY)
    assert any("backend_compile" in name for name in compiled), "the listener hears"
    compiled.clear()
    mcmc.nuts(second, X, chains, M=5, warm_up=5, key=jax.random.key(1))
    assert not any("backend_compile" in name for name in compiled)


@pytest.mark.weekly
def test_all_three_samplers_know_no_more_of_a_posterior_than_they_were_shown():
    """Chains that begin at one of two modes agree, and are wrong; chains that begin at both say that they disagree."""
    w, X = Folded(), jnp.array([[1.0]])
    truth = quadrature.posterior(w, X, quadrature.grid(1, 2000))
    assert abs(truth.mean[0, 0]) < 1e-6, "as much at −1 as at +1"
    start = FullGaussian(jnp.ones((1, 1)), jnp.full((1, 1, 1), 0.05))
    for draw in (*SAMPLERS.values(), mcmc.nuts):
        agreeing = draw(w, X, start, M=400, key=KEY)
        assert agreeing.r_hat.max() < 1.05 and abs(agreeing.mean[0, 0] - 1) < 0.02
    at_both = jnp.array([1.0, 1.0, -1.0, -1.0])[:, None, None]
    with pytest.warns(RuntimeWarning, match=r"the chains of 1 of 1 data disagree: R̂ above 1.05, at most \d+"):
        mcmc.hmc(w, X, at_both, M=100, step=0.05, key=KEY)


# Monte Carlo EM.


def test_the_m_step_on_draws_of_the_posterior_is_the_m_step(dtype):
    w, X = linear(dtype), data_of(linear(dtype), 40)
    p = jax.vmap(ppca.posterior, in_axes=(None, 0))(w, X)
    w_new = em.m_step_on_draws(w, p.sample(M=4000, key=KEY), X)
    exact = ppca.em_step(w, X)
    # 160,000 draws: standard errors of a few thousandths.
    assert jnp.abs(w_new.W - exact.W).max() < 0.02 and jnp.abs(w_new.b - exact.b).max() < 0.02
    assert jnp.abs(w_new.log_sigma - exact.log_sigma) < 0.01


def test_mc_em_ends_at_the_closed_form_maximum(dtype):
    X = data_of(linear(dtype, d=1, D=3), 150)
    start = decoders.Linear(jnp.ones((3, 1), dtype), X.mean(axis=0), jnp.zeros((), dtype))
    run = mcmc.fit(start, X, steps=40, M=30, key=KEY, progress=False)
    best = float(jax.vmap(ppca.log_p_x, in_axes=(None, 0))(ppca.fit(X, 1), X).mean())
    assert best - 0.01 < run.log_p_x[-1] < best + 1e-3
    assert run.log_p_x[0] < best - 0.3 and len(run.path) == 41
    audit = float(jax.vmap(ppca.log_p_x, in_axes=(None, 0))(run.w, X).mean())
    assert abs(run.log_p_x[-1] - audit) < 1e-3


@pytest.mark.weekly
@pytest.mark.parametrize("keep", [True, False])
def test_mc_em_climbs_with_a_network_and_can_go_on(keep):
    X = datasets.curve(100, key=KEY).X.astype(jnp.float32)
    w = decoders.start_at(decoders.MLP(1, 2, width=8, key=jax.random.key(3)), X)
    options = {"steps": 5, "M": 10, "keep": keep, "max_steps": 5, "progress": False}
    run = mcmc.fit(w, X, key=KEY, **options)
    assert run.log_p_x[-1] > run.log_p_x[0] + 0.1
    more = mcmc.fit(run.w, X, run.q, key=jax.random.key(1), **options)
    # It goes on from there; five iterations from the maximum, the noise of ten draws may take a hundredth of a nat.
    assert more.log_p_x[0] == run.log_p_x[-1] and more.log_p_x[-1] > run.log_p_x[-1] - 0.02
    assert np.diff(more.evaluations).min() > 0


def test_an_interrupted_run_returns_what_it_has(monkeypatch):
    X = data_of(linear(jnp.float32), N)
    calls = []

    def stopping(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return em.m_step_on_draws(*args, **options)

    monkeypatch.setattr("cmog_lib.mcmc.em.m_step_on_draws", stopping)
    run = mcmc.fit(linear(jnp.float32), X, steps=9, M=3, key=KEY, progress=False)
    assert run.interrupted and len(run.path) == 3 and len(run.log_p_x) == 3 and run.q is not None


def by_adam(**options):
    """Arguments of Monte Carlo EM with a network, whose M-steps are four steps of Adam."""
    X = datasets.curve(60, key=KEY).X
    w = decoders.start_at(network(X.dtype), X)
    return (w, X), {"M": 3, "warm_up": 2, "leapfrogs": 3, "max_steps": 4, "learning_rate": 1e-2} | options


def test_an_iteration_that_is_compiled_as_one_is_the_steps_one_after_another(dtype, monkeypatch):
    (w, X), options = by_adam()
    w_new, chains = mcmc.mc_em_step(w, X, key=KEY, **options)
    one, two = jax.random.split(KEY)
    apart = mcmc.mc_em_step(*(w_new, X, chains), key=one, **options)
    apart = mcmc.mc_em_step(apart[0], X, apart[1], key=two, **options)
    monkeypatch.setattr(mcmc.em, "mc_em_step", None)
    run = mcmc.fit(w_new, X, chains, steps=2, key=KEY, progress=False, **options)
    # A step of Adam has the length of the learning rate, 0.01: rounding changes it by a small part, a decision of a
    # chain that fell the other way would change it by more.
    close = 1e-3 if dtype == "float32" else 1e-8
    for one, other in zip(jax.tree.leaves((run.w, run.q)), jax.tree.leaves(apart), strict=True):
        assert jnp.abs(one - other).max() < close
    assert run.evaluations[-1] == 2 * apart[1].evaluations


def test_a_step_of_adam_climbs_the_same_hill_as_the_m_step(dtype):
    (w, X), _ = by_adam()
    T = jax.random.normal(KEY, (3, 60, 1))
    before, best, after = (
        float(em.log_p_of_draws(w, (X, T)))
        for w in (
            w,
            em.m_step_on_draws(w, T, X, max_steps=400),
            em.m_step_on_draws(w, T, X, max_steps=50, learning_rate=1e-2),
        )
    )
    assert before + 0.2 * (best - before) < after < best + 1e-6


def test_what_is_not_finite_in_an_iteration_that_is_compiled_as_one_is_named():
    (w, X), options = by_adam(key=KEY)
    w, chains = mcmc.mc_em_step(w, X, **options)
    with pytest.raises(optimise.NotFinite, match=r"the learning rate \(1e\+30\) is too large"):
        mcmc.fit(w, X, chains, steps=1, progress=False, **options | {"learning_rate": 1e30})
    lost = eqx.tree_at(lambda chains: chains.t, chains, chains.t.at[0, -1, 4].set(jnp.inf))
    with pytest.raises(ValueError, match=r"chains\.last must be finite"):
        mcmc.fit(w, X, lost, steps=1, progress=False, **options)


def test_monte_carlo_em_by_adam_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path, monkeypatch):
    (w, X), options = by_adam(key=KEY, steps=4, progress=False)
    whole, calls = mcmc.fit(w, X, **options), []

    def look():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("cmog_lib.engine.alternation.look", look)
    part, rest = (mcmc.fit(w, X, checkpoint=tmp_path / "run.npz", **options) for _ in range(2))
    assert part.interrupted and len(part.path) == 3 and eqx.tree_equal(part.w, whole.path[2])
    assert not rest.interrupted and eqx.tree_equal(rest.path, whole.path) and eqx.tree_equal(rest.q, whole.q)
    assert np.array_equal(rest.log_p_x, whole.log_p_x)


# What is refused, and what is said.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"M": 0}, "M must be"),
        ({"M": 5, "warm_up": -1}, "warm_up must be"),
        ({"M": 5, "step": -0.1}, "step must be"),
        ({"M": 5, "target": 1.0}, "target must be an acceptance between 0 and 1"),
        ({"M": 5, "chains": 0}, "chains must be"),
        ({"M": 5, "key": 3}, "key"),
    ],
)
@samplers
def test_what_cannot_be_is_refused(entry_errors, sampler, options, words):
    w = linear(jnp.float32)
    X = data_of(w, N)
    with pytest.raises(ValueError, match=words):
        sampler(w, X, mcmc.laplace(w, X, key=KEY), **{"key": KEY, **options})


@pytest.mark.parametrize(("options", "words"), [({"M": 0}, "M must be"), ({"max_depth": 11}, "max_depth must be")])
def test_what_the_referee_cannot_do_is_refused(entry_errors, options, words):
    w = linear(jnp.float32)
    X = data_of(w, N)
    with pytest.raises(ValueError, match=words):
        mcmc.nuts(w, X, mcmc.laplace(w, X, key=KEY), **{"M": 5, "key": KEY, **options})


def test_a_start_that_is_not_finite_is_named(entry_errors):
    w = linear(jnp.float32)
    X = data_of(w, N)
    start = jnp.zeros((2, N, 2)).at[1, 2, 0].set(1e30)
    with pytest.raises(ValueError, match=r"finite, got -inf for chain 1 of X\[2\]"):
        mcmc.hmc(w, X, start, M=5, key=KEY)
    with pytest.raises(ValueError, match="start must be"):
        mcmc.hmc(w, X, start[:, :3], M=5, key=KEY)


def test_a_start_without_a_slope_is_refused_where_slopes_are_asked_for(entry_errors):
    X, start = jnp.ones((2, 3)), jnp.ones((4, 2, 2)).at[1, 0].set(0)
    for sampler in (mcmc.hmc, mcmc.nuts):
        where = r"got \[nan, nan\] for chain 1 of X\[0\], at t = \[0.0, 0.0\]"
        with pytest.raises(ValueError, match=rf"start must be where ∇log p\(x,t\|w\) is finite, {where}"):
            sampler(Ring(), X, start, M=5, key=KEY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few draws R̂ may be large
        assert mcmc.metropolis(Ring(), X, start, M=60, key=KEY).acceptance.min() > 0.05


def test_chains_that_stand_still_in_one_coordinate_are_reported():
    # σ is a tenth of the spacing of float32 numbers around t_2, so that no step can change that.
    w = decoders.Linear(jnp.eye(2), jnp.zeros(2), jnp.log(jnp.asarray([1.0, 1e-8])))
    with pytest.warns(
        RuntimeWarning, match=r"no chain of X\[0\] moved in the coordinate t\[1\], and R̂ is NaN there \(1 of"
    ):
        mcmc.hmc(
            w, jnp.ones((1, 2)), FullGaussian(jnp.ones((1, 2)), jnp.diag(jnp.asarray([0.7, 1e-8]))[None]), M=50, key=KEY
        )


@pytest.mark.weekly
def test_chains_that_never_moved_are_reported():
    w = linear(jnp.float32)
    X = data_of(w, N)
    at_modes = mcmc.laplace(w, X, key=KEY)
    with pytest.warns(RuntimeWarning, match=rf"{4 * N} of {4 * N} chains hardly ever moved.*smaller step"):
        mcmc.metropolis(w, X, mcmc.laplace(w, X, key=KEY), M=50, step=1e4, key=KEY)
    with pytest.warns(RuntimeWarning, match=r"100% of the trajectories flew off.*smaller step"):
        mcmc.hmc(w, X, mcmc.laplace(w, X, key=KEY), M=50, step=1e4, key=KEY)
    wild = eqx.tree_at(
        lambda chains: chains.step, mcmc.hmc(w, X, at_modes, M=3, key=KEY, chains=1), jnp.full((1, N), 5.0)
    )
    with pytest.warns(RuntimeWarning, match=rf"of {N} chains hardly ever moved|flew off"):
        mcmc.fit(w, X, wild, steps=1, M=3, warm_up=0, key=KEY, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mcmc.metropolis(w, X, mcmc.laplace(w, X, key=KEY), M=400, key=KEY)
