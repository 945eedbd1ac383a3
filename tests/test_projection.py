"""What a decoder can tell of a datum is all that its posterior depends on: densities, slopes, chains and weights."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from cmog_lib import bound, decoders, mcmc, model
from cmog_lib.decoders import projected
from cmog_lib.posteriors import FullGaussian

KEY = jax.random.key(0)


class Foreign(eqx.Module):
    """The same μ and σ, of a class that nobody knows."""

    w: eqx.Module

    @property
    def latent_dim(self):
        return self.w.latent_dim

    @property
    def data_dim(self):
        return self.w.data_dim

    def __call__(self, t):
        return self.w(t)


class Bent(decoders.Linear):
    def __call__(self, t):
        return self.W @ t**3 + self.b, self.sigma


def linear(dtype, *, vector=False):
    W, b, log_sigma = (jax.random.normal(jax.random.key(k), shape, dtype) for k, shape in enumerate([(9, 2), 9, 9]))
    return decoders.Linear(W, b, -1 + 0.5 * log_sigma if vector else jnp.asarray(-1.0, dtype))


def network(dtype, width=5, **options):
    w = decoders.MLP(2, 9, width=width, key=KEY, **options)
    w = jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, w)
    return eqx.tree_at(lambda w: (w.b, w.c), w, (jax.random.normal(KEY, 9, dtype), w.c - 1.5))


def apply(dtype):
    return [linear(dtype), linear(dtype, vector=True), network(dtype, constant_sigma=True)]


def problem(w, n=20):
    return model.sample(w, n, key=jax.random.key(3))


def rounding(dtype):
    """Of sums of some tens of nats."""
    return 1e-4 if dtype == "float32" else 1e-12


@pytest.mark.parametrize("number", range(3), ids=["PPCA", "factor analysis", "MLP"])
def test_the_log_joint_and_its_slopes_are_those_of_the_projection_but_for_a_constant(dtype, number):
    w = apply(dtype)[number]
    T, X = problem(w)
    seen, X_seen, constant = projected(w, X)
    assert X_seen.shape == (20, (2, 2, 5)[number]) and X_seen.dtype == constant.dtype == dtype
    joint = jax.vmap(jax.value_and_grad(model.log_p_xt, argnums=2), in_axes=(None, 0, 0))
    # At latents that have nothing to do with the data too.
    for t in (T, T[::-1]):
        (whole, slope), (part, slope_seen) = joint(w, X, t), joint(seen, X_seen, t)
        assert jnp.abs(whole - part - constant).max() < rounding(dtype) * (1 + jnp.abs(whole).max() / 10)
        assert jnp.abs(slope - slope_seen).max() < rounding(dtype) * (1 + jnp.abs(slope).max())


def test_where_there_is_nothing_to_leave_out_all_comes_back_as_it_is(dtype):
    narrow = decoders.Linear(jnp.ones((2, 2), dtype), jnp.zeros(2, dtype), jnp.zeros((), dtype))
    pictures = decoders.CNN(2, (3, 3), width=4, channels=(2,), constant_sigma=True, key=KEY)
    wide, two_networks = network(dtype, width=9, constant_sigma=True), network(dtype)
    straight = linear(dtype)
    bent = Bent(straight.W, straight.b, straight.log_sigma)
    for w in (narrow, pictures, wide, two_networks, bent, Foreign(straight)):
        X = jnp.ones((3, w.data_dim), dtype)
        same, X_same, constant = projected(w, X)
        assert same is w and X_same is X and (constant == 0).all()
    seen, X_seen, _ = projected(straight, jnp.ones((3, 9), dtype))
    assert projected(seen, X_seen)[0] is seen, "once is enough"


def test_a_decoder_without_values_is_left_alone(dtype):
    w, X = linear(dtype), jnp.ones((3, 9), dtype)
    assert eqx.filter_eval_shape(lambda w: projected(w, X)[1], w).shape == (3, 9)
    q = FullGaussian(jnp.zeros((3, 2), dtype), jnp.broadcast_to(jnp.eye(2, dtype=dtype), (3, 2, 2)))

    def mean(w):
        return bound.importance(w, q, X, M=10, key=KEY).mean()

    slope, foreign = eqx.filter_grad(mean)(w), eqx.filter_grad(mean)(Foreign(w)).w
    assert eqx.tree_equal(slope, foreign, rtol=rounding(dtype))


@pytest.mark.weekly
@pytest.mark.parametrize("number", range(3), ids=["PPCA", "factor analysis", "MLP"])
def test_modes_chains_and_weights_are_those_of_a_decoder_that_is_not_projected(dtype, number):
    w = apply(dtype)[number]
    _, X = problem(w, 6)
    with_and_without = (w, Foreign(w))
    mode, other = (mcmc.laplace(w, X, key=KEY) for w in with_and_without)
    # A climb ends where heights cannot be told apart, at the root of rounding; a decision of a chain that fell the
    # other way would be a jump.
    close = 2e-2 if dtype == "float32" else 1e-6
    assert jnp.abs(mode.m - other.m).max() < close and jnp.abs(mode.L - other.L).max() < close
    for draw in (mcmc.metropolis, mcmc.hmc):  # one door for all samplers
        one, same = (draw(w, X, mode, M=5, warm_up=0, chains=2, key=KEY) for w in with_and_without)
        assert jnp.abs(one.t - same.t).max() < close and one.evaluations == same.evaluations
    one, same = (bound.log_weights(w, mode, X, M=30, key=KEY) for w in with_and_without)
    assert jnp.abs(one - same).max() < rounding(dtype) * (1 + jnp.abs(one).max() / 10)


def test_another_w_compiles_nothing_anew():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    first, second = (decoders.MLP(2, 31, width=5, constant_sigma=True, key=jax.random.key(k)) for k in (1, 2))
    X = model.sample(first, 3, key=KEY)[1]
    q = mcmc.laplace(first, X, key=KEY)
    mcmc.hmc(first, X, q, M=3, warm_up=20, key=KEY)
    assert any("backend_compile" in name for name in compiled), "the listener hears"
    compiled.clear()
    mcmc.hmc(second, X, q, M=3, warm_up=20, key=KEY)
    assert not any("backend_compile" in name for name in compiled)
