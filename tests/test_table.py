"""The table of networks: equal to the plain form, and never too large for the memory."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import decoders, em, model, quadrature
from cmog_lib.engine import table

KEY = jax.random.key(0)


@eqx.filter_jit
def both_forms(w, X, T):
    plain = jax.vmap(lambda x: jax.vmap(lambda t: model.log_p_x_given_t(w, x, t))(T))(X)
    return model.log_p_x_given_t_table(w, X, T), plain


@pytest.mark.parametrize("kind", ["MLP", "CNN"])
def test_table_of_a_network_is_the_plain_form(dtype, kind):
    X = jax.random.uniform(KEY, (20, 64), dtype)
    w = {
        "MLP": lambda: decoders.MLP(2, 64, width=16, key=KEY),
        "CNN": lambda: decoders.CNN(2, (8, 8), width=8, channels=(8, 4), key=KEY),
    }[kind]()
    T = jax.random.normal(KEY, (30, 2), dtype)
    table, plain = both_forms(decoders.start_at(w, X), X, T)
    # What the issue of lectures 3 and 4 asks for, with data centred and σ about theirs.
    assert jnp.abs(table - plain).max() < (1e-4 if dtype == "float32" else 1e-9)


def test_table_keeps_nine_digits_in_double_precision_where_sigma_is_at_its_floor():
    with jax.enable_x64(True):
        X = jax.random.uniform(KEY, (20, 64))
        w = decoders.start_at(decoders.MLP(2, 64, width=16, key=KEY), X)
        w = eqx.tree_at(lambda w: w.c, w, jnp.full(64, -9.0))
        table, plain = both_forms(w, X, jax.random.normal(KEY, (30, 2)))
        # Terms of 60,000 nats cancel: sixteen digits leave 1e-10.
        assert jnp.abs(plain).max() > 1e4 and jnp.abs(table - plain).max() < 1e-9


@pytest.mark.parametrize(("N", "D", "n"), [(60_000, 784, 128), (200, 64, 512)])
def test_many_data_on_many_nodes_need_less_than_two_gigabytes(N, D, n):
    """What the compiler sets aside, known without running it; the table as a whole would be 3.9 GB for the first."""
    w = decoders.MLP(2, D, key=KEY)
    X, nodes = jax.ShapeDtypeStruct((N, D), jnp.float32), quadrature.grid(2, n)
    compiled = jax.jit(lambda w, X, nodes: table.by_blocks(w, X, nodes)).lower(w, X, nodes)
    memory = compiled.compile().memory_analysis()
    assert memory.argument_size_in_bytes >= 4 * N * D
    assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < 2e9


class Broken(eqx.Module):
    """A decoder whose σ is not a number from t_1 = 1 on, in its third coordinate."""

    sigma: jax.Array
    latent_dim: int = eqx.field(static=True, default=1)
    data_dim: int = eqx.field(static=True, default=4)

    def __call__(self, t):
        return jnp.zeros(4, t.dtype), jnp.ones(4, t.dtype).at[2].set(jnp.where(t[0] > 1, jnp.nan, self.sigma))


@pytest.mark.parametrize("function", [quadrature.log_p_x, quadrature.posterior, em.e_step])
def test_a_decoder_that_gives_no_number_is_named_with_the_place(entry_errors, function):
    place = r"w must return finite and positive sigma, got sigma\[2\] = nan at t = \[1.5\] \(5 of 12 latents tried\)"
    with pytest.raises(ValueError, match=place):
        function(Broken(jnp.ones(())), jnp.ones((3, 4)), quadrature.grid(1, 12))
    # Inside jit there are no values to look at, and JAX's own rules hold.
    inside = eqx.filter_jit(lambda w: function(w, jnp.ones((3, 4)), quadrature.grid(1, 12)))(Broken(jnp.ones(())))
    assert np.isnan(np.asarray(jax.tree.leaves(inside)[-1])).all()
