"""A class that a student writes in a notebook is a model like any other, in compiled functions too."""

from __future__ import annotations

import dataclasses
import functools
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import bound, decoders, em, model, posteriors, ppca, quadrature
from cmog_lib.decoders import Linear, as_module
from cmog_lib.engine import modules

W, b, S = np.array([[1.0], [-0.5], [2.0]]), np.array([0.1, 0.2, 0.3]), 0.4
KEY = jax.random.key(0)


class OneToThree:
    """What all the classes below have in common: μ(t) = factor·Wt + b, σ = S·factor."""

    latent_dim, data_dim = 1, 3


class Plain(OneToThree):
    def __init__(self, dtype):
        self.W, self.b, self.s = jnp.asarray(W, dtype), jnp.asarray(b, dtype), S

    def __call__(self, t):
        return self.W @ t + self.b, self.s * jnp.ones(3)

    def change(self):
        self.W, self.s = 2 * self.W, 2 * self.s


@dataclasses.dataclass
class Data(OneToThree):  # with == and therefore without a hash
    W: jax.Array

    def __call__(self, t):
        return self.W @ t + jnp.asarray(b, self.W.dtype), S * jnp.ones(3)


@dataclasses.dataclass(frozen=True)
class Frozen(OneToThree):
    W: jax.Array

    def __call__(self, t):
        return self.W @ t + jnp.asarray(b, self.W.dtype), S * jnp.ones(3)


class InNumPy(OneToThree):
    """NumPy computes with the attributes, which no jitted function could trace."""

    def __init__(self, dtype):
        self.W, self.log_s = jnp.asarray(W, dtype), np.log(np.full(3, S))

    def __call__(self, t):
        return self.W @ t + jnp.asarray(b, self.W.dtype), jnp.asarray(np.exp(self.log_s), self.W.dtype)

    def change(self):
        self.W = 2 * self.W
        self.log_s += np.log(2)  # in place


class Slots(OneToThree):
    __slots__ = ("W", "s")

    def __init__(self, dtype):
        self.W, self.s = jnp.asarray(W, dtype), S

    def __call__(self, t):
        return self.W @ t + jnp.asarray(b, self.W.dtype), self.s * jnp.ones(3)

    def change(self):
        self.W, self.s = 2 * self.W, 2 * self.s


class Module(eqx.Module):
    """An `equinox.Module` that reads a global and an object in a static field."""

    W: jax.Array
    noise: types.SimpleNamespace = eqx.field(static=True)
    latent_dim: int = eqx.field(static=True, default=1)
    data_dim: int = eqx.field(static=True, default=3)

    def __call__(self, t):
        return FACTOR["of W"] * self.W @ t + jnp.asarray(b, self.W.dtype), self.noise.s * jnp.ones(3)

    def change(self):
        FACTOR["of W"], self.noise.s = 2.0, 2 * S


class Global(OneToThree):
    def __init__(self, dtype):
        FACTOR["W"] = jnp.asarray(W, dtype)

    def __call__(self, t):
        return FACTOR["W"] @ t + jnp.asarray(b, t.dtype), FACTOR["s"] * jnp.ones(3)

    def change(self):
        FACTOR["W"], FACTOR["s"] = 2 * FACTOR["W"], 2 * S


class ClassAttributes(OneToThree):
    s = S

    def __init__(self, dtype):
        type(self).W, type(self).s = jnp.asarray(W, dtype), S

    def __call__(self, t):
        return self.W @ t + jnp.asarray(b, t.dtype), self.noise

    @property
    def noise(self):
        return self.s * jnp.ones(3)

    def change(self):
        type(self).W, type(self).s = 2 * self.W, 2 * S


class Layer:
    def __init__(self, W, parent):
        self.W, self.parent = W, parent

    def decode(self, t):
        return self.W @ t


class Parts(OneToThree):
    """Arrays in objects in containers; one object twice, a circle, a bound method, and keys that cannot be sorted."""

    def __init__(self, dtype):
        layer = Layer(jnp.asarray(W, dtype), self)
        self.layers, self.decode = {"first": [layer], 2: (layer, jnp.asarray(b, dtype))}, layer.decode
        self.noise = types.SimpleNamespace(s=S)

    def __call__(self, t):
        (layer, b), s = self.layers[2], self.noise.s
        return 0.5 * (self.decode(t) + layer.parent.layers["first"][0].decode(t)) + b, s * jnp.ones(3)

    def change(self):
        self.layers["first"][0].W, self.noise.s = 2 * self.layers["first"][0].W, 2 * S


class Function:
    """A function in a closure, with attributes."""

    def __new__(cls, dtype):
        arrays = {"W": jnp.asarray(W, dtype), "s": S}

        def decode(arrays, t):
            return arrays["W"] @ t + jnp.asarray(b, t.dtype), arrays["s"] * jnp.ones(3)

        w = functools.partial(decode, arrays)
        w.latent_dim, w.data_dim = 1, 3
        w.change = lambda: arrays.update(W=2 * arrays["W"], s=2 * S)
        return w


class NumPyNumbers(OneToThree):
    """A dimension from NumPy, and a jitted function made anew at every call."""

    latent_dim, data_dim = np.int64(1), np.int32(3)

    def __init__(self, dtype):
        self.arrays = [np.asarray(W, dtype), np.full(3, S, dtype)]

    def __call__(self, t):
        sigma = self.arrays[1] + 0
        return jax.jit(lambda t: self.arrays[0] @ t + jnp.asarray(b, t.dtype))(t), jax.jit(lambda: sigma)()

    def change(self):
        self.arrays = [2 * array for array in self.arrays]


FACTOR = {}
KINDS = {
    "plain": Plain,
    "dataclass": lambda dtype: Data(jnp.asarray(W, dtype)),
    "frozen dataclass": lambda dtype: Frozen(jnp.asarray(W, dtype)),
    "numpy": InNumPy,
    "slots": Slots,
    "module": lambda dtype: Module(jnp.asarray(W, dtype), types.SimpleNamespace(s=S)),
    "global": Global,
    "class attributes": ClassAttributes,
    "parts": Parts,
    "function": Function,
    "numpy numbers": NumPyNumbers,
}


@pytest.fixture(autouse=True)
def globals_as_they_were():
    FACTOR.clear()
    FACTOR.update({"of W": 1.0, "s": S})


def linear(dtype, factor: float = 1.0) -> Linear:
    return Linear(*(jnp.asarray(part, dtype) for part in (factor * W, b, np.log(factor * S))))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_class_is_the_same_model_also_after_a_change(dtype, kind):
    w, X = KINDS[kind](dtype), jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), dtype)
    nodes, atol = quadrature.grid(1, 300), 1e-4 if dtype == "float32" else 1e-9
    for factor in (1.0, 2.0) if hasattr(w, "change") else (1.0,):
        if factor > 1:
            w.change()
        same = linear(dtype, factor)
        assert jnp.allclose(model.log_p_xt(w, X[0], jnp.ones(1)), model.log_p_xt(same, X[0], jnp.ones(1)), atol=atol)
        assert jnp.allclose(quadrature.log_p_x(w, X, nodes), quadrature.log_p_x(same, X, nodes), atol=atol)
        # The decoder's own numbers are rounded in float32, and so is its truth.
        assert np.allclose(quadrature.exact(w, X).log_p_x, quadrature.exact(same, X).log_p_x, atol=max(atol, 2e-4))


def test_a_decoder_of_the_library_is_left_as_it_is(dtype):
    w = linear(dtype)
    assert as_module(w) is w
    traced = as_module(Plain(dtype))
    assert type(traced) is modules.Plain and as_module(traced) is traced


def test_what_computes_the_same_is_compiled_once():
    """Whatever its arrays are and wherever they come from: a class made anew at each call among them."""
    traced = []

    @eqx.filter_jit
    def mean(w, t):
        traced.append(w)
        return w(t)[0]

    def made_anew(W):
        class Closure(OneToThree):
            def __call__(self, t):
                return W @ t, S * jnp.ones(3)

        return Closure()

    for factor in (1.0, 2.0, 3.0):
        plain = Plain("float32")
        plain.W = factor * plain.W
        for number, w in enumerate((plain, made_anew(factor * jnp.asarray(W, "float32")))):
            assert jnp.allclose(mean(as_module(w), jnp.ones(1)), w(jnp.ones(1))[0])
            assert len(traced) == max(number + 1, 2 * (factor > 1))


def test_a_gradient_passes_through_an_attribute_and_through_a_closure(dtype):
    X, nodes = jnp.ones((2, 3), dtype), quadrature.grid(1, 50)

    def of_attribute(W):
        w = Plain(dtype)
        w.W = W
        return quadrature.log_p_x(w, X, nodes).sum()

    def of_closure(W):
        w = lambda t: (W @ t + jnp.asarray(b, dtype), S * jnp.ones(3))  # noqa: E731
        w.latent_dim, w.data_dim = 1, 3
        return quadrature.log_p_x(w, X, nodes).sum()

    def of_linear(W):
        return quadrature.log_p_x(eqx.tree_at(lambda w: w.W, linear(dtype), W), X, nodes).sum()

    slopes = [jax.grad(f)(jnp.asarray(W, dtype)) for f in (of_attribute, of_closure, of_linear)]
    rtol = 1e-4 if dtype == "float32" else 1e-10
    assert jnp.allclose(slopes[0], slopes[2], rtol=rtol) and jnp.allclose(slopes[1], slopes[2], rtol=rtol)


class Squashed(Linear):
    """Derived from Linear, and not straight."""

    def __call__(self, t):
        return super().__call__(jnp.tanh(t))


def test_a_class_derived_from_linear_decodes_as_it_says(dtype):
    w, x = Squashed(linear(dtype).W, linear(dtype).b, linear(dtype).log_sigma), jnp.asarray([0.1, -0.1, 0.6], dtype)
    q = posteriors.Gaussian(jnp.zeros(1, dtype), jnp.zeros(1, dtype))
    T = q.sample(M=20_000, key=KEY)
    values = jax.vmap(lambda t: model.log_p_xt(w, x, t))(T)
    error = values.std() / np.sqrt(len(T))
    # Four standard errors; as a straight decoder it would be 40 nats away.
    assert jnp.abs(bound.expected_log_joint(w, q, x) - values.mean()) < 4 * error
    nodes, X = quadrature.grid(1, 40), model.sample(w, 20, key=KEY)[1]
    run = em.fit(w, X, nodes, steps=1, max_steps=2, progress=False)
    assert type(run.w) is Squashed and (np.diff(run.log_p_x) > -1e-5).all()
    started = decoders.start_at(w, X)
    assert type(started) is Squashed and jnp.allclose(started.b, X.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("refusing", [ppca.log_p_x, ppca.posterior, ppca.em_step])
def test_a_closed_form_refuses_a_class_derived_from_linear(entry_errors, refusing):
    w = Squashed(jnp.ones((3, 1)), jnp.zeros(3), jnp.zeros(()))
    with pytest.raises(ValueError, match=r"w must be a decoders.Linear, .* got Squashed, a class derived from it"):
        refusing(w, jnp.ones((4, 3)) if refusing is ppca.em_step else jnp.ones(3))
