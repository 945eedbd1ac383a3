"""The door of every public function: what a caller gives is checked once, and a warning names the caller's line."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bad_inputs import PUBLIC

from cmog_lib import bound, decoders, em, mcmc, model, ppca, quadrature, variational
from cmog_lib.engine.door import arrays, door
from cmog_lib.posteriors import Gaussian

KEY = jax.random.key(0)
W = decoders.Linear(jnp.ones((3, 1)), jnp.zeros(3), jnp.float32(0))
X = np.random.default_rng(0).normal(size=(5, 3)).astype("f")
NODES = quadrature.grid(1, 40)
LOOPS = {
    "em.fit": lambda: em.fit(W, X, NODES, steps=3, progress=False),
    "mcmc.fit": lambda: mcmc.fit(W, X, steps=3, M=2, key=KEY, audit=NODES, progress=False),
    "variational.fit": lambda: variational.fit(W, X, steps=3, key=KEY, e_steps=2, audit=NODES, progress=False),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # so few steps are worth some
@pytest.mark.parametrize("name", ["em.fit", "mcmc.fit", pytest.param("variational.fit", marks=pytest.mark.weekly)])
def test_data_are_checked_once_however_many_steps_a_loop_takes(entry_errors, monkeypatch, name):
    seen, check = [], arrays.array

    def counted(name: str, *args: Any, **options: Any) -> Any:
        seen.append(name)
        return check(name, *args, **options)

    monkeypatch.setattr(arrays, "array", counted)
    LOOPS[name]()
    assert seen.count("X") == 1


def test_after_an_error_the_door_is_shut_again(entry_errors):
    class Broken:
        latent_dim, data_dim, calls = 1, 3, 0

        def __call__(self, t: Any) -> Any:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("broken")
            return jnp.zeros(3), jnp.ones(3)

    with pytest.raises(RuntimeError, match="broken"):
        model.log_p_x_given_t(Broken(), X[0], jnp.zeros(1))
    for _ in range(2):
        with pytest.raises(ValueError, match="t must be"):
            model.log_p_t(3)


def test_a_missing_argument_is_named_as_python_does(entry_errors):
    with pytest.raises(TypeError, match=r"log_p_x\(\) missing 1 required positional argument: 'nodes'"):
        quadrature.log_p_x(W, X)


def test_what_is_shown_of_a_public_function_is_the_function_itself():
    shown = [thing for thing in PUBLIC.values() if inspect.isfunction(thing)]
    for function in shown:
        own = inspect.unwrap(function)
        assert inspect.signature(function) == inspect.signature(own) and function.__doc__ == own.__doc__
        assert f"def {own.__name__}(" in inspect.getsource(own)
    assert len(shown) > 50


def test_a_function_that_is_called_by_another_is_given_what_was_checked():
    told: list[Any] = []

    @door("w:decoder X")
    def inner(w: Any, X: Any) -> None:
        told.append(type(X))

    @door("w:decoder X")
    def outer(w: Any, X: Any) -> None:
        inner(w, X)
        inner(w, None)  # nobody looks

    outer(W, X.tolist())
    assert told == [type(jnp.zeros(1)), type(None)]


@pytest.mark.parametrize(
    "warned",
    [
        lambda: ppca.fit_all(X * np.array([1, 1, 1e-13], "f")),
        lambda: bound.on_nodes(Gaussian(jnp.zeros(1), jnp.full(1, -6.0)), quadrature.grid(1, 9)),
        lambda: mcmc.hmc(W, X, jnp.zeros((2, 5, 1)), M=60, warm_up=0, step=1e-9, key=KEY),
    ],
    ids=["fit_all", "on_nodes", "hmc"],
)
def test_a_warning_names_the_line_of_the_callers_code(warned):
    with pytest.warns(RuntimeWarning) as found:
        warned()
    assert {warning.filename for warning in found} == {__file__}
