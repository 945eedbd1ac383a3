"""A class that a student writes in a notebook is a model like any other, in compiled functions too."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import model, quadrature
from cmog_lib.decoders import Linear, as_module

W, b, S = np.array([[1.0], [-0.5], [2.0]]), np.array([0.1, 0.2, 0.3]), 0.4


class Plain:
    latent_dim, data_dim = 1, 3

    def __init__(self, dtype):
        self.W, self.b, self.s = jnp.asarray(W, dtype), jnp.asarray(b, dtype), S

    def __call__(self, t):
        return self.W @ t + self.b, self.s * jnp.ones(3)


@dataclasses.dataclass
class Data:  # with == and therefore without a hash
    W: jax.Array
    b: jax.Array
    latent_dim: int = 1
    data_dim: int = 3

    def __call__(self, t):
        return self.W @ t + self.b, S * jnp.ones(3)


@dataclasses.dataclass(frozen=True)
class Frozen:
    W: jax.Array
    b: jax.Array
    latent_dim: int = 1
    data_dim: int = 3

    def __call__(self, t):
        return self.W @ t + self.b, S * jnp.ones(3)


class InNumPy:
    """NumPy computes with the attributes, which no jitted function could trace."""

    latent_dim, data_dim = 1, 3

    def __init__(self):
        self.log_s = np.log(np.full(3, S))

    def __call__(self, t):
        return jnp.asarray(W) @ t + jnp.asarray(b), jnp.asarray(np.exp(self.log_s))


class Slots:
    __slots__ = ("W",)
    latent_dim, data_dim = 1, 3

    def __call__(self, t):
        return self.W @ t + jnp.asarray(b, self.W.dtype), S * jnp.ones(3)


class Module(eqx.Module):
    W: jax.Array
    latent_dim: int = 1
    data_dim: int = 3

    def __call__(self, t):
        return self.W @ t + jnp.asarray(b, self.W.dtype), S * jnp.ones(3)


def function(t):
    return jnp.asarray(W) @ t + jnp.asarray(b), S * jnp.ones(3)


function.latent_dim, function.data_dim = 1, 3


def slots(dtype) -> Slots:
    w = Slots()
    w.W = jnp.asarray(W, dtype)
    return w


KINDS = {
    "plain": Plain,
    "dataclass": lambda dtype: Data(jnp.asarray(W, dtype), jnp.asarray(b, dtype)),
    "frozen dataclass": lambda dtype: Frozen(jnp.asarray(W, dtype), jnp.asarray(b, dtype)),
    "numpy": lambda dtype: InNumPy(),
    "slots": slots,
    "module": lambda dtype: Module(jnp.asarray(W, dtype)),
    "function": lambda dtype: function,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_class_is_the_same_model(dtype, kind):
    w, X = KINDS[kind](dtype), jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), dtype)
    linear = Linear(jnp.asarray(W, dtype), jnp.asarray(b, dtype), jnp.asarray(np.log(S), dtype))
    atol = 1e-4 if dtype == "float32" else 1e-9
    assert jnp.allclose(model.log_p_xt(w, X[0], jnp.ones(1)), model.log_p_xt(linear, X[0], jnp.ones(1)), atol=atol)
    nodes = quadrature.grid(1, 300)
    assert jnp.allclose(quadrature.log_p_x(w, X, nodes), quadrature.log_p_x(linear, X, nodes), atol=atol)
    # The decoder's own numbers are rounded in float32, and so is its truth.
    assert np.allclose(quadrature.exact(w, X).log_p_x, quadrature.exact(linear, X).log_p_x, atol=max(atol, 2e-4))


def test_a_changed_attribute_changes_the_answer(dtype):
    w, X, nodes = Plain(dtype), jnp.ones((2, 3), dtype), quadrature.grid(1, 100)
    before = quadrature.log_p_x(w, X, nodes)
    w.W = 2 * w.W
    assert jnp.abs(quadrature.log_p_x(w, X, nodes) - before).min() > 0.01
    w.W, w.s = w.W / 2, 2 * S
    assert jnp.abs(quadrature.log_p_x(w, X, nodes) - before).min() > 0.01


def test_a_class_is_compiled_once_for_all_its_arrays():
    traced = []

    @eqx.filter_jit
    def mean(w, t):
        traced.append(w)
        return w(t)[0]

    for factor in (1.0, 2.0, 3.0):
        w = Plain("float32")
        w.W = factor * w.W
        assert jnp.allclose(mean(as_module(w), jnp.ones(1)), w(jnp.ones(1))[0])
    assert len(traced) == 1


def test_a_module_is_left_as_it_is(dtype):
    w = Module(jnp.asarray(W, dtype))
    assert as_module(w) is w
