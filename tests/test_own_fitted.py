"""What training makes of a class that a student wrote: an object of that class, with the numbers of any other class."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import amortised, decoders, em, likelihood, mcmc, model, optimise, posteriors, quadrature, variational

KEY = jax.random.key(0)
QUIET = {"key": KEY, "progress": False}
N, D, d = 12, 3, 2


class Net:
    def __init__(self, W, b):
        self.W, self.b = W, b

    def __call__(self, x):
        return self.W @ x + self.b


class Mine:
    """A decoder whose arrays are in a part of it."""

    latent_dim, data_dim, s = d, D, 0.5

    def __init__(self, dtype):
        self.net, self.name = (
            Net(jnp.asarray([[1.0, 0.2], [-0.5, 1.0], [0.3, 0.4]], dtype), jnp.zeros(D, dtype)),
            "mine",
        )

    def __call__(self, t):
        return jnp.tanh(self.net(t)), jnp.full(D, self.s)


class Coder:
    """An encoder whose arrays are in a part of it."""

    latent_dim, data_dim = d, D

    def __init__(self, dtype):
        self.net, self.log_s = Net(jnp.zeros((d, D), dtype), jnp.zeros(d, dtype)), [jnp.zeros(d, dtype)]

    def __call__(self, x):
        return posteriors.Gaussian(self.net(x), self.log_s[0])


class Same(eqx.Module):
    """The same decoder for Equinox."""

    W: jax.Array
    b: jax.Array
    latent_dim: int = eqx.field(static=True, default=d)
    data_dim: int = eqx.field(static=True, default=D)

    def __call__(self, t):
        return jnp.tanh(self.W @ t + self.b), jnp.full(D, 0.5)


class SameCoder(eqx.Module):
    """The same encoder for Equinox."""

    V: jax.Array
    b: jax.Array
    log_s: jax.Array
    latent_dim: int = eqx.field(static=True, default=d)
    data_dim: int = eqx.field(static=True, default=D)

    def __call__(self, x):
        return posteriors.Gaussian(self.V @ x + self.b, self.log_s)


def same(dtype) -> Same:
    return Same(Mine(dtype).net.W, Mine(dtype).net.b)


def same_coder(dtype) -> SameCoder:
    return SameCoder(jnp.zeros((d, D), dtype), jnp.zeros(d, dtype), jnp.zeros(d, dtype))


def data(dtype):
    return model.sample(same(dtype), N, key=KEY)[1]


FITS = {
    "likelihood.fit": lambda w, X: likelihood.fit(w, X, steps=3, n=8, **QUIET).w,
    "em.fit": lambda w, X: em.fit(w, X, quadrature.grid(d, 16, 3.0), steps=1, max_steps=2, progress=False).w,
    "em.m_step_on_draws": lambda w, X: em.m_step_on_draws(w, jnp.ones((1, N, d), X.dtype), X, max_steps=2),
    "mcmc.fit": lambda w, X: (
        mcmc.fit(w, X, steps=1, M=2, warm_up=1, max_steps=2, audit=quadrature.grid(d, 8), **QUIET).w
    ),
    "mcmc.fit by Adam": lambda w, X: (
        mcmc.fit(w, X, steps=2, M=2, warm_up=1, max_steps=2, learning_rate=0.1, audit=quadrature.grid(d, 8), **QUIET).w
    ),
    "variational.fit": lambda w, X: (
        variational.fit(w, X, steps=1, e_steps=1, m_steps=2, audit=quadrature.grid(d, 8), **QUIET).w
    ),
    "vae_step": lambda w, X: amortised.vae_step(w, same_coder(X.dtype), X, learning_rate=0.1, key=KEY)[0],
    "optimise.ascend": lambda w, X: optimise.ascend(height, decoders.as_module(w), X, steps=2, **QUIET).w,
}


def height(w, X, key):
    return jnp.mean(jax.vmap(lambda x: model.log_p_x_given_t(w, x, jnp.ones(d, X.dtype)))(X))


@pytest.mark.parametrize("name", FITS)
def test_the_readers_own_class_comes_back_with_the_same_numbers_as_an_equinox_module(dtype, name):
    w, X = Mine(dtype), data(dtype)
    found, other = FITS[name](w, X), FITS[name](same(dtype), X)
    assert type(found) is Mine and type(found.net) is Net and found.name == "mine" and type(other) is Same
    # The same operations in the same order, but for what XLA makes of them.
    rtol = 1e-3 if dtype == "float32" else 1e-9
    assert jnp.allclose(found.net.W, other.W, rtol=rtol) and jnp.allclose(found.net.b, other.b, rtol=rtol, atol=rtol)
    assert (found.net.b != w.net.b).all() and (w.net.b == 0).all(), "it moved, and where it began did not"


@pytest.mark.parametrize("hold_w", [False, True])
def test_an_encoder_of_a_plain_class_is_trained(dtype, hold_w):
    X, options = data(dtype), {"steps": 4, "learning_rate": 0.1, "hold_w": hold_w, **QUIET}
    w = Mine(dtype)
    found = amortised.fit(w, Coder(dtype), X, **options)
    other = amortised.fit(same(dtype), same_coder(dtype), X, **options)
    assert type(found.w) is Mine and type(found.encoder) is Coder and (found.w is w) == hold_w
    rtol = 1e-3 if dtype == "float32" else 1e-9
    assert jnp.allclose(found.encoder.net.W, other.encoder.V, rtol=rtol, atol=rtol)
    assert jnp.allclose(found.encoder.log_s[0], other.encoder.log_s, rtol=rtol)
    assert np.allclose(found.trace, other.trace, rtol=rtol) and (found.encoder.net.W != 0).all()


def test_a_changed_encoder_gives_another_answer(dtype):
    encoder, X = Coder(dtype), data(dtype)
    assert (amortised.encoded(encoder, X).m == 0).all()
    encoder.net.W = jnp.ones((d, D), dtype)
    assert jnp.allclose(amortised.encoded(encoder, X).m, X.sum(axis=1)[:, None], atol=1e-5)
    encoder.log_s[0] = jnp.ones(d, dtype)
    assert (amortised.encoded(encoder, X).log_s == 1).all()


def test_every_dimension_of_plain_classes_is_that_of_equinox_modules(dtype):
    X, options = data(dtype), {"steps": 3, "learning_rate": 0.1, **QUIET}
    found = amortised.fit_every_dimension(Mine(dtype), Coder(dtype), X, (1, 2), **options)
    other = amortised.fit_every_dimension(same(dtype), same_coder(dtype), X, (1, 2), **options)
    rtol = 1e-3 if dtype == "float32" else 1e-9
    assert np.allclose(found.trace, other.trace, rtol=rtol)
    (w, encoder), (other_w, other_encoder) = found.model(1), other.model(1)
    assert type(w.w) is Mine and type(encoder.encoder) is Coder and w.latent_dim == 1
    assert jnp.allclose(w.w.net.W, other_w.w.W, rtol=rtol, atol=rtol)
    nodes = quadrature.grid(1, 20)
    assert jnp.allclose(quadrature.log_p_x(w, X, nodes), quadrature.log_p_x(other_w, X, nodes), rtol=rtol)
    assert jnp.allclose(amortised.encoded(encoder, X).m, amortised.encoded(other_encoder, X).m, rtol=rtol, atol=rtol)


def test_a_run_that_fails_hands_back_the_readers_own_class(dtype):
    def defined_below_a_quarter(w, X, key):
        mu, _ = w(jnp.zeros(d, X.dtype))
        return mu[0] + jnp.log(jnp.sign(0.25 - mu[0]))

    with pytest.raises(optimise.NotFinite) as failed:
        w = decoders.as_module(Mine(dtype))
        optimise.ascend(defined_below_a_quarter, w, data(dtype), steps=9, learning_rate=0.1, **QUIET)
    # Adam's steps are as long as the learning rate: the third arrives where the value is NaN.
    assert type(failed.value.ascent.w) is Mine and failed.value.step == 3
    assert jnp.isclose(failed.value.ascent.w.net.b[0], 0.3, atol=1e-3)


def test_a_run_goes_on_from_its_checkpoint_with_the_readers_own_class(dtype, tmp_path):
    X, options = data(dtype), {"M": 2, "warm_up": 1, "max_steps": 2, "audit": quadrature.grid(d, 8), **QUIET}
    whole = mcmc.fit(Mine(dtype), X, steps=2, checkpoint=tmp_path / "run", **options)
    again = mcmc.fit(Mine(dtype), X, steps=2, checkpoint=tmp_path / "run", **options)
    assert [type(w) for w in again.path] == [Mine] * 3
    assert all((w.net.W == other.net.W).all() for w, other in zip(whole.path, again.path, strict=True))


def test_parts_that_begin_as_one_array_are_moved_one_by_one(dtype):
    class Twice(Mine):
        def __init__(self, dtype):
            self.b = self.log_s = jnp.zeros(D, dtype)

        def __call__(self, t):
            return self.b * t[0], jnp.exp(self.log_s)

    found = likelihood.fit(Twice(dtype), data(dtype), steps=3, n=8, **QUIET).w
    assert (found.b != found.log_s).all()


def test_a_global_array_is_read_and_not_moved(dtype):
    scale = jnp.full(D, 2.0, dtype)

    class Scaled(Mine):
        def __call__(self, t):
            return scale * self.net(t), jnp.full(D, self.s)

    class Folded(eqx.Module):
        W: jax.Array
        b: jax.Array
        latent_dim: int = eqx.field(static=True, default=d)
        data_dim: int = eqx.field(static=True, default=D)

        def __call__(self, t):
            return 2 * (self.W @ t + self.b), jnp.full(D, 0.5)

    X = data(dtype)
    found = likelihood.fit(Scaled(dtype), X, steps=3, n=8, **QUIET).w
    other = likelihood.fit(Folded(*jax.tree.leaves(same(dtype))), X, steps=3, n=8, **QUIET).w
    assert jnp.allclose(found.net.W, other.W, rtol=1e-3) and (scale == 2).all()


@pytest.mark.parametrize("how", ["NumPy", "Python", "a lambda"])
def test_an_array_that_training_cannot_move_is_refused_by_name(entry_errors, how):
    class Odd(Mine):
        def __init__(self):
            super().__init__("float32")
            self.log_s = jnp.zeros(D)
            self.sigma = lambda: jnp.exp(self.log_s)

        def __call__(self, t):
            sigma = {
                "NumPy": lambda: jnp.asarray(np.exp(self.log_s)),
                "Python": lambda: jnp.full(D, np.exp(self.log_s.tolist()[0])),
                "a lambda": self.sigma,
            }
            return self.net(t), sigma[how]()

    w, X, nodes = Odd(), data("float32"), quadrature.grid(d, 8)
    before = quadrature.log_p_x(w, X, nodes)
    w.log_s = jnp.full(D, 0.5)
    assert (quadrature.log_p_x(w, X, nodes) != before).all(), "it is seen all the same"
    with pytest.raises(ValueError, match=r"w must read its arrays through jax.numpy.*Odd.log_s"):
        likelihood.fit(w, X, steps=1, n=8, **QUIET)
