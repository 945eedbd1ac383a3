"""Exact maximum likelihood: the shifted grid has no bias, the climb ends where closed form says, faults are named."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import datasets, decoders, likelihood, model, optimise, ppca, quadrature

KEY = jax.random.key(0)


def line(dtype, n=200):
    w = decoders.Linear(jnp.asarray([[1.5], [-0.5], [0.8]], dtype), jnp.ones(3, dtype), jnp.asarray(-0.7, dtype))
    return model.sample(w, n, key=KEY)[1].astype(dtype)


def small(dtype, **options):
    return decoders.MLP(1, 3, width=8, key=KEY, **options)


@pytest.mark.parametrize("d", [1, 2])
def test_shifted_grid_is_right_on_average_where_the_grid_is_wrong(dtype, d):
    # A narrow bump between the nodes of a coarse grid, of which the prior's share in it is the integral.
    place, s = jnp.full(d, 0.27, dtype), 0.1

    def integral(nodes):
        bump = jnp.exp(-0.5 * jnp.sum(((nodes.t - place[None]) / s) ** 2, axis=1)) / (s * np.sqrt(2 * np.pi)) ** d
        return jnp.sum(jnp.exp(nodes.log_weight) * bump)

    truth = np.prod(np.exp(-0.5 * 0.27**2 / (1 + s**2)) / np.sqrt(2 * np.pi * (1 + s**2)) * np.ones(d))
    keys = jax.random.split(KEY, 4000)
    values = jax.lax.map(lambda key: integral(likelihood.shifted_grid(d, 8, key=key)), keys)
    assert abs(integral(quadrature.grid(d, 8, 4.0)) - truth) > 0.1 * truth
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))


def test_shifted_grid_moves_by_less_than_half_a_cell(dtype):
    still, moved = quadrature.grid(2, 6, 3.0), likelihood.shifted_grid(2, 6, 3.0, key=KEY)
    shift = moved.t - still.t
    assert (jnp.abs(shift) < 0.5).all() and jnp.allclose(shift, shift[:1], atol=1e-6) and (shift[0] != 0).all()
    log_p_t = jax.vmap(model.log_p_t)(moved.t)
    assert jnp.allclose(moved.log_weight, log_p_t, atol=1e-5)  # cells of area 1


def test_fit_of_a_line_ends_at_the_closed_form(dtype):
    X = line(dtype)
    start = decoders.Linear(jnp.asarray([[0.1], [0.2], [0.3]], dtype), jnp.zeros(3, dtype), jnp.zeros((), dtype))
    found = likelihood.fit(start, X, steps=600, n=64, batch_size=200, key=KEY, learning_rate=1e-2, progress=False)
    best = ppca.fit(X, 1)
    nats = [float(jax.vmap(ppca.log_p_x, in_axes=(None, 0))(w, X).mean()) for w in (found.w, best)]
    # All data in every batch, and 64 cells resolve the posterior: Adam's last wobble is all that is left.
    assert nats[1] - 1e-3 < nats[0] < nats[1] + 1e-5
    assert abs(found.trace[-1] - nats[1]) < 1e-3


def test_fit_lifts_held_out_data_by_nats():
    train, held_out = datasets.split(datasets.curve(400, key=KEY), 100, key=KEY)
    w = decoders.start_at(decoders.MLP(1, 2, width=16, key=KEY), train.X)
    found = likelihood.fit(w, train.X, steps=300, n=64, batch_size=64, key=KEY, learning_rate=1e-2, progress=False)
    nodes = quadrature.grid(1, 400)
    before, after = (quadrature.log_p_x(v, held_out.X, nodes).mean() for v in (w, found.w))
    assert after > before + 0.3
    assert found.trace.shape == (300,) and found.w.sigma_min == w.sigma_min


def test_the_same_key_gives_the_same_decoder():
    dtype = jnp.dtype("float32")
    X = line(dtype, 50)

    def run(key):
        return likelihood.fit(small(dtype), X, steps=3, n=8, batch_size=10, key=key, progress=False)

    assert eqx.tree_equal(run(KEY), run(KEY))
    assert not np.array_equal(run(KEY).trace, run(jax.random.key(1)).trace)


def test_the_bar_shows_nats_and_the_time_left(dtype, capsys):
    likelihood.fit(small(dtype), line(dtype, 20), steps=20, n=8, chunk=10, key=KEY)
    shown = capsys.readouterr().err
    assert "value=-" in shown and "<" in shown and "20/20" in shown


def test_a_grid_too_coarse_for_sigma_is_reported(dtype):
    X = line(dtype, 20)
    w = decoders.start_at(small(dtype, sigma_min=1e-4), X)
    w = eqx.tree_at(lambda w: w.c, w, jnp.full(3, -6.0, dtype))
    with pytest.warns(RuntimeWarning, match=r"with n=32 instead of n=16 cells .* Take a larger n, or"):
        likelihood.fit(w, X, steps=1, n=16, key=KEY, progress=False)


def test_a_learning_rate_beyond_reason_stops_with_the_step(dtype):
    rate = 1e30 if dtype == "float32" else 1e200
    with pytest.raises(optimise.NotFinite, match=r"step \d+: ") as caught:
        likelihood.fit(small(dtype), line(dtype, 20), steps=50, n=8, key=KEY, learning_rate=rate, progress=False)
    good = jax.tree.leaves(eqx.filter(caught.value.ascent.w, eqx.is_array))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in good)


class Broken(eqx.Module):
    """σ = |t_1| in its first coordinate; μ has a hole below t_1 = −2."""

    scale: jax.Array
    latent_dim: int = eqx.field(static=True, default=1)
    data_dim: int = eqx.field(static=True, default=3)

    def __call__(self, t):
        mu = jnp.where(t[0] < -2, jnp.nan, 1.0) * jnp.ones(3, t.dtype)
        return self.scale * mu, jnp.ones(3, t.dtype)


class Flat(Broken):
    def __call__(self, t):
        return self.scale * jnp.ones(3, t.dtype), jnp.ones(3, t.dtype).at[1].set(jnp.maximum(t[0], 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": Broken(jnp.ones(()))}, r"w must return finite mu, got mu\[0\] = nan at t = \[-3.5\] \(2 of 8 latents"),
        ({"w": Flat(jnp.ones(()))}, r"w must return finite and positive sigma, got sigma\[1\] = 0.0 at t = \[-3.5\]"),
        ({"X": jnp.ones((5, 4))}, r"X must be .* \[N, 3\], got float32\[5, 4\]"),
        ({"X": jnp.ones((5, 3)).at[2, 1].set(jnp.nan)}, r"X must be finite, got nan at X\[2, 1\]"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"n": 1}, "n must be an integer of at least 2"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"half_width": -1.0}, "half_width must be a positive finite number"),
        ({"key": 0}, "key must be a typed key"),
        ({"w": decoders.MLP(4, 3, width=4, key=KEY), "n": 32}, r"32\^4 = 1.05e\+06 nodes, .* GiB"),
        ({"w": decoders.MLP(9, 3, width=4, key=KEY)}, "latent_dim at most 3"),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_name(entry_errors, change, message):
    arguments = {"w": small(jnp.dtype("float32")), "X": jnp.ones((5, 3)), "steps": 1, "n": 8, "key": KEY} | change
    with pytest.raises(ValueError, match=message):
        likelihood.fit(**arguments, progress=False)
