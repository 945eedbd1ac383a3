"""Everything is worked on in the session's precision, whatever that of the arguments is; and lists are arrays."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bad_inputs import KINDS, PUBLIC, ROWS, arguments

from cmog_lib import decoders, likelihood

OTHER = {"float32": "float64", "float64": "float32"}
DATA = {"x", "x or X", "x observed", "X"}
# Every public function of a decoder and data, but for a model in NumPyro's words, which returns nothing.
OF_DECODERS_AND_DATA = [
    name
    for name, row in ROWS.items()
    if {"w", "linear", "linear or network"} & set(arguments(row).values())
    and DATA & set(arguments(row).values())
    and name != "mcmc.numpyro_model"
]
# One or two of every room, which go through all of its doors; to compile them all takes minutes.
AT_EVERY_PUSH = {"amortised.vae_step", "bound.expected_log_joint", "bound.importance", "bound.kl", "decoders.start_at"}
AT_EVERY_PUSH |= {"em.fit", "likelihood.fit", "mcmc.laplace", "mcmc.leapfrog", "mcmc.metropolis", "model.log_p_xt"}
AT_EVERY_PUSH |= {"ppca.em_step", "ppca.posterior", "quadrature.log_p_x", "variational.cavi_grid", "variational.fit_q"}


def floating(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray)) and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def cast(tree: Any, dtype: Any) -> Any:
    # By NumPy, since JAX makes no float64 in a session of float32.
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype) if floating(leaf) else leaf, tree)


def listed(value: Any) -> Any:
    return value.tolist() if floating(value) and value.ndim else value


def named(name: str) -> Any:
    return pytest.param(name, marks=[] if name in AT_EVERY_PUSH else pytest.mark.weekly)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # such few nodes and steps as here are worth some
@pytest.mark.parametrize("name", [named(name) for name in OF_DECODERS_AND_DATA])
def test_arguments_of_the_other_precision_and_lists_give_the_same_numbers(entry_errors, dtype, name):
    good = {argument: KINDS[kind].good for argument, kind in arguments(ROWS[name]).items()}
    options = {"progress": False} if "progress" in inspect.signature(PUBLIC[name]).parameters else {}
    own = jax.tree.map(lambda leaf: jnp.asarray(leaf) if floating(leaf) else leaf, cast(good, dtype))
    results = [
        jax.tree.leaves(PUBLIC[name](**given, **options))
        for given in (own, cast(good, OTHER[str(dtype)]), {argument: listed(value) for argument, value in own.items()})
    ]
    arrays = [[leaf for leaf in leaves if isinstance(leaf, jax.Array)] for leaves in results]
    assert {str(leaf.dtype) for leaf in filter(floating, arrays[0])} <= {str(dtype)}
    # The numbers were made in float32, so that they are the same in both: what comes out is the same to the last digit.
    for others in arrays[1:]:
        assert [leaf.dtype for leaf in others] == [leaf.dtype for leaf in arrays[0]]
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(others, arrays[0], strict=True))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_precision_may_change_between_making_a_decoder_and_its_use(entry_errors):
    with jax.enable_x64(True):
        w = decoders.MLP(2, 3, width=4, depth=1, key=jax.random.key(0))
        X = jax.random.normal(jax.random.key(1), (4, 3))
    found = likelihood.fit(w, X, steps=2, n=4, key=jax.random.key(0), progress=False)
    assert X.dtype == "float64" and {leaf.dtype for leaf in jax.tree.leaves(found.w)} == {jnp.dtype("float32")}
