"""Decoders that are networks: their formulas, their shapes, where they start, and the floor under σ."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import decoders, model, optimise
from cmog_lib.engine.convolutions import grow_and_convolve
from cmog_lib.engine.weights import linear_layer, uniform

KEY = jax.random.key(0)


def networks(**options):
    return [
        decoders.MLP(2, 12, width=8, key=KEY, **options),
        decoders.CNN(2, (3, 4), width=8, channels=(4, 3), key=KEY, **options),
    ]


@eqx.filter_jit
def decode(w, T):
    return jax.vmap(w)(T)


def grown_and_convolved(a: np.ndarray, kernel: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixel by pixel, as one would say it: every pixel four times, zeros around, nine neighbours times the kernel."""
    big = np.pad(np.repeat(np.repeat(a, 2, axis=0), 2, axis=1)[: shape[0], : shape[1]], ((1, 1), (1, 1), (0, 0)))
    out = np.zeros((*shape, kernel.shape[-1]))
    for y, x in np.ndindex(*shape):
        out[y, x] = np.einsum("ijc,ijce->e", big[y : y + 3, x : x + 3], kernel)
    return out


@pytest.mark.parametrize("sizes", [(2, 128), (128, 64), (5, 1000)])
def test_a_layer_begins_with_the_numbers_that_equinox_draws(dtype, sizes):
    ours, theirs = linear_layer(*sizes, KEY), eqx.nn.Linear(*sizes, key=KEY)
    assert eqx.tree_equal(ours, theirs) and ours.weight.dtype == dtype


@pytest.mark.parametrize("shape", [(3, 3, 4, 2), (1,), (65, 64)])
def test_numbers_are_those_that_jax_draws_for_the_shape(dtype, shape):
    drawn = uniform(KEY, shape, 0.3)
    assert np.array_equal(drawn, jax.random.uniform(KEY, shape, minval=-0.3, maxval=0.3)) and drawn.dtype == dtype
    inside = jax.jit(lambda key: uniform(key, shape, 0.3))(KEY)
    assert np.allclose(inside, drawn, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 8), (5, 7), (5, 8)])
def test_growing_and_convolving_is_what_it_says(dtype, shape):
    rng = np.random.default_rng(0)
    a, kernel = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 3, 2, 5))
    out = grow_and_convolve(jnp.asarray(a, dtype), jnp.asarray(kernel, dtype), shape)
    # Eighteen terms of size one.
    assert np.abs(out - grown_and_convolved(a, kernel, shape)).max() < (1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("image_shape", [(8, 8), (28, 28), (1, 1), (5, 9)])
def test_cnn_paints_any_image_shape(dtype, image_shape):
    w = decoders.CNN(2, image_shape, width=8, channels=(4, 3), key=KEY)
    D = image_shape[0] * image_shape[1]

    @eqx.filter_jit
    def values_and_slope(w, t):
        return *w(t), jax.jacfwd(lambda t: w(t)[0])(t)

    mu, sigma, slope = values_and_slope(w, jnp.asarray([0.3, -1.0], dtype))
    assert w.data_dim == D and mu.shape == sigma.shape == (D,) and mu.dtype == sigma.dtype == dtype
    # Every pixel is reached by the latent point: nothing was cut off too much.
    assert (jnp.abs(slope).max(axis=1) > 0).all()


@pytest.mark.parametrize("number", [0, 1], ids=["MLP", "CNN"])
def test_mu_and_sigma_are_two_networks(dtype, number):
    w = networks()[number]
    t = jnp.asarray([0.5, -0.7], dtype)
    for moved, still in ((0, 1), (1, 0)):
        network = ("nn1", "nn2")[moved]
        other = eqx.tree_at(
            lambda w, name=network: getattr(w, name), w, jax.tree.map(lambda a: 2 * a, getattr(w, network))
        )
        after, before = decode(other, t[None]), decode(w, t[None])
        assert (after[moved] != before[moved]).all() and (after[still] == before[still]).all()


@pytest.mark.parametrize("number", [0, 1], ids=["MLP", "CNN"])
def test_sigma_never_falls_below_its_floor(dtype, number):
    w = networks(sigma_min=0.25)[number]
    # However far the network is pushed: softplus underflows to 0, and the floor is left.
    w = eqx.tree_at(lambda w: w.c, w, jnp.full_like(w.c, -1e6))
    assert (decode(w, jnp.ones((1, 2), dtype))[1] == 0.25).all()


def test_training_does_not_move_the_floor(dtype):
    def height(w, X, key):
        return jnp.mean(jax.vmap(lambda x: model.log_p_x_given_t(w, x, jnp.zeros(2, dtype)))(X))

    w = networks(sigma_min=0.25)[0]
    climbed = optimise.ascend(height, w, jnp.zeros((2, 12), dtype), steps=20, key=KEY, progress=False)
    assert climbed.w.sigma_min == w.sigma_min
    assert (climbed.w.c != w.c).all()


@pytest.mark.parametrize("number", [0, 1], ids=["MLP", "CNN"])
def test_what_is_compiled_for_a_start_serves_what_training_returns(dtype, number):
    w, traced = networks()[number], []

    @eqx.filter_jit
    def c(w):
        traced.append(w)
        return w.c

    c(w)
    c(optimise.maximise(lambda w: -jnp.sum((w.c - 1) ** 2), w, max_steps=2).w)
    assert len(traced) == 1


@pytest.mark.parametrize("number", [0, 1], ids=["MLP", "CNN"])
def test_a_constant_sigma_is_one_learned_number(dtype, number):
    w = networks(constant_sigma=True)[number]
    sigma = decode(w, jax.random.normal(KEY, (5, 2), dtype))[1]
    assert w.c.shape == () and (sigma == sigma[0, 0]).all()
    slope = eqx.filter_grad(lambda w: jnp.sum(w(jnp.ones(2, dtype))[1]))(w)
    assert slope.c > 0 and jax.tree.leaves(eqx.filter(slope.nn2, eqx.is_array)) == []


@pytest.mark.parametrize("constant_sigma", [False, True])
def test_a_network_that_starts_at_the_data_is_about_their_mean_and_deviation(dtype, constant_sigma):
    X = 3.0 + 2.0 * jax.random.normal(KEY, (500, 12), dtype)
    s = float(jnp.sqrt(jnp.mean((X - X.mean(axis=0)[None]) ** 2)))
    for w in networks(constant_sigma=constant_sigma):
        mu, sigma = decode(decoders.start_at(w, X), jax.random.normal(KEY, (200, 2), dtype))
        # A fresh network's output is some tenths, whatever the data's unit.
        assert jnp.abs(mu - 3).max() < 1 and jnp.abs(sigma / s - 1).max() < 0.3
        without_networks = jax.tree.map(jnp.zeros_like, (w.nn1, w.nn2))
        w = eqx.tree_at(lambda w: (w.nn1, w.nn2), decoders.start_at(w, X), without_networks)
        mu, sigma = (part[0] for part in decode(w, jnp.zeros((1, 2), dtype)))
        assert jnp.allclose(mu, X.mean(axis=0), rtol=1e-6) and jnp.allclose(sigma, s, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.02, 300.0, 1e6])
def test_a_network_starts_at_data_of_any_scale(dtype, scale):
    X = scale * jax.random.normal(KEY, (500, 12), dtype)
    w = decoders.start_at(decoders.MLP(2, 12, width=4, depth=1, constant_sigma=True, key=KEY), X)
    s = jnp.sqrt(jnp.mean((X - X.mean(axis=0)[None]) ** 2))
    # Single precision has no exp(300).
    assert jnp.allclose(w(jnp.zeros(2, dtype))[1], s, rtol=1e-5)


def test_a_linear_decoder_starts_at_the_data_too(dtype):
    X = 3.0 + 2.0 * jax.random.normal(KEY, (50, 3), dtype)
    for log_sigma in (jnp.zeros((), dtype), jnp.zeros(3, dtype)):
        w = decoders.start_at(decoders.Linear(jnp.ones((3, 2), dtype), jnp.zeros(3, dtype), log_sigma), X)
        assert jnp.allclose(w.b, X.mean(axis=0)) and w.log_sigma.shape == log_sigma.shape
        assert jnp.allclose(w.sigma**2, jnp.mean((X - w.b[None]) ** 2), rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: decoders.MLP(0, 3, key=KEY), "latent_dim must be an integer of at least 1, got 0"),
        (lambda: decoders.MLP(1, 3, sigma_min=0.0, key=KEY), "sigma_min must be a positive finite number, got 0.0"),
        (lambda: decoders.MLP(1, 3, depth=0, key=KEY), "depth must be an integer of at least 1"),
        (lambda: decoders.MLP(1, 3, key=0), "key must be a typed key"),
        (lambda: decoders.CNN(1, 64, key=KEY), "image_shape must be a tuple of 2 positive integers, got 64"),
        (lambda: decoders.CNN(1, (8, 0), key=KEY), r"image_shape\[1\] must be an integer of at least 1, got 0"),
        (lambda: decoders.CNN(1, (8, 8), channels=(), key=KEY), "channels must be a tuple of one or more"),
        (lambda: decoders.start_at(networks()[0], jnp.ones((4, 11))), r"X must be .* \[N, 12\], got float32\[4, 11\]"),
        (
            lambda: decoders.start_at(networks()[0], jnp.ones((4, 12))),
            "X must have a standard deviation above sigma_min",
        ),
        (lambda: decoders.start_at(lambda t: t, jnp.ones((4, 12))), "w must be a decoders.Linear, MLP or CNN"),
    ],
)
def test_what_is_no_decoder_is_refused_by_name(entry_errors, build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_same_key_makes_the_same_decoder(dtype):
    for one, same in zip(networks(), networks(), strict=True):
        assert eqx.tree_equal(one, same)
    assert not eqx.tree_equal(decoders.MLP(1, 2, key=KEY), decoders.MLP(1, 2, key=jax.random.key(1)))


def test_a_network_of_other_shapes_is_called_anew_and_refused_by_name(entry_errors):
    w = decoders.MLP(2, 12, width=8, key=KEY)
    assert model.sample(w, 3, key=KEY)[1].shape == (3, 12)
    broken = eqx.tree_at(lambda w: w.b, w, jnp.zeros(11))
    for _ in range(2):
        with pytest.raises(ValueError, match="got none: it raised TypeError"):
            model.sample(broken, 3, key=KEY)
