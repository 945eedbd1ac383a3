"""Every matrix product and convolution of the library is at highest precision, whatever the session's default is.

So float32 is float32 on devices that would take fewer bits. It is read off what JAX is asked for, here on any machine.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from test_bad_inputs import ENCODER, KEY, KINDS, NETWORK, OF, PUBLIC, ROWS, D, arguments, d

from cmog_lib import amortised, decoders

HIGHEST = (jax.lax.Precision.HIGHEST,) * 2
PRODUCTS = {"dot_general": jax.lax.dot_general_p, "conv_general_dilated": jax.lax.conv_general_dilated_p}
# Of these the gradient is not asked for: they search, sample or train in a loop on the host.
ROOMS_OF_LOOPS = ("mcmc.", "optimise.", "datasets.", "sharding.")
# These have no gradient: they look at their values, to choose a size or a number of rounds, or to check them.
LOOK_AT_VALUES = {"amortised.fit_sweep", "amortised.gap_ladder", "decoders.start_at", "em.em_step", "em.m_step"}
LOOK_AT_VALUES |= {"em.m_step_on_draws", "em.mean_bound", "ppca.fit_factor_analysis", "ppca.fit_missing"}
LOOK_AT_VALUES |= {"quadrature.exact", "variational.cavi_grid", "variational.em_step"}
# One reads a file, one moves what it is given, and one is run by NumPyro: its product is the decoder's, tested below.
NOT_CALLED_HERE = {"datasets.mnist", "sharding.gathered", "mcmc.numpyro_model"}

# One or two of every room; to compile them all takes minutes.
AT_EVERY_PUSH = {"amortised.vae_step", "bound.importance", "bound.kl", "em.m_step", "likelihood.fit", "mcmc.leapfrog"}
AT_EVERY_PUSH |= {"model.log_p_x_given_t_table", "ppca.em_step", "ppca.fit", "ppca.posterior", "quadrature.log_p_x"}
AT_EVERY_PUSH |= {"quadrature.exact", "variational.cavi_grid", "variational.cavi_linear", "variational.reparameterised"}


@pytest.fixture
def asked(monkeypatch) -> Iterator[list[tuple[str, Any]]]:
    """The primitive and the precision of every product that is traced; the session's default is a low one."""
    found: list[tuple[str, Any]] = []
    for name, primitive in PRODUCTS.items():

        def bind(*args: Any, name: str = name, bind: Any = primitive.bind, **params: Any) -> Any:
            found.append((name, params["precision"]))
            return bind(*args, **params)

        monkeypatch.setattr(primitive, "bind", bind)
    jax.clear_caches()  # what was traced before would not be traced again
    with jax.default_matmul_precision("bfloat16"):
        yield found


def too_low(asked: list[tuple[str, Any]]) -> set[tuple[str, Any]]:
    return {(name, precision) for name, precision in asked if precision != HIGHEST}


def test_the_recorder_sees_a_product_of_low_precision_and_that_of_its_gradient(asked):
    jax.eval_shape(jax.grad(lambda x: jnp.sum((x @ x) ** 2)), jnp.ones((2, 2)))
    assert len(asked) >= 3 and {precision for _, precision in asked} == {(jax.lax.Precision.DEFAULT,) * 2}
    assert too_low(asked) == set(asked)


def total(result: Any) -> jax.Array:
    """A number that depends on all of a result's floating-point parts."""
    parts = [jnp.sum(leaf) for leaf in jax.tree.leaves(result) if eqx.is_inexact_array(leaf)]
    return sum(parts, jnp.zeros(()))


def named(name: str) -> Any:
    return pytest.param(name, marks=[] if name in AT_EVERY_PUSH else pytest.mark.weekly)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # such few nodes and steps as here are worth some
@pytest.mark.parametrize("name", [named(name) for name in ROWS if name not in NOT_CALLED_HERE])
def test_every_public_function_multiplies_at_highest_precision_and_so_do_its_gradients(name, asked, entry_errors):
    parameters = inspect.signature(PUBLIC[name]).parameters
    given = {argument: KINDS[kind].good for argument, kind in arguments(ROWS[name]).items()}
    given |= {"data": None} if name == "optimise.ascend" else {}
    given |= {"progress": False} if "progress" in parameters else {}
    owner = OF.get(name.rpartition(".")[0])
    call = PUBLIC[name] if owner is None else getattr(owner, name.rpartition(".")[2])
    call(**given)
    numbers, rest = eqx.partition(given, eqx.is_inexact_array)
    if jax.tree.leaves(numbers) and not name.startswith(ROOMS_OF_LOOPS) and not name.endswith(("fit", "fit_q")):
        refused = pytest.raises((jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError))
        with refused if name in LOOK_AT_VALUES else nullcontext():
            jax.eval_shape(jax.grad(lambda numbers: total(call(**eqx.combine(numbers, rest)))), numbers)
    assert too_low(asked) == set()


@pytest.mark.parametrize(
    ("network", "width"),
    [
        (NETWORK, d),
        (decoders.CNN(d, (4, 4), width=4, channels=(2, 2), key=KEY), d),
        (ENCODER, D),
        (amortised.encoders.CNN((4, 4), d, channels=(2, 2), width=4, key=KEY), 16),
    ],
    ids=["MLP", "CNN", "MLP encoder", "CNN encoder"],
)
def test_a_network_that_is_called_by_itself_multiplies_at_highest_precision(asked, network, width):
    numbers, rest = eqx.partition(network, eqx.is_inexact_array)
    jax.eval_shape(jax.grad(lambda numbers: total(eqx.combine(numbers, rest)(jnp.ones(width)))), numbers)
    assert asked and too_low(asked) == set()


def test_the_layers_of_a_readers_own_network_are_at_highest_precision_inside_the_library(asked):
    class Own(eqx.Module):
        layer: eqx.nn.Linear
        latent_dim: int = d
        data_dim: int = D

        def __call__(self, t: Any) -> Any:
            return self.layer(t), jnp.ones(D)

    w, X = Own(eqx.nn.Linear(d, D, key=KEY)), KINDS["X"].good
    numbers, rest = eqx.partition(w, eqx.is_inexact_array)
    nodes = KINDS["nodes"].good
    log_p_x = PUBLIC["quadrature.log_p_x"]
    jax.eval_shape(jax.grad(lambda numbers: log_p_x(eqx.combine(numbers, rest), X, nodes).sum()), numbers)
    assert asked and too_low(asked) == set()
