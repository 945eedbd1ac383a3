"""One step along a gradient, for w of any class: its floating-point arrays move, and the rest stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from cmog_lib.engine.optimise.faults import given_back, parameters_of


def value_and_gradient(objective: Callable[..., Array], w: Any, *rest: Any) -> tuple[Array, Any]:
    """objective(w, *rest) and its gradient in the floating-point arrays of w, compiled once for each objective."""
    return _value_and_gradient(objective, *parameters_of(w), rest)


def moved(w: Any, rate: Any, gradient: Any) -> Any:
    """w + rate · gradient, of the classes of w."""
    parameters, fixed = parameters_of(w)
    moved = jax.tree.map(lambda parameter, slope: parameter + rate * slope, parameters, gradient)
    return given_back(eqx.combine(fixed, moved))


@eqx.filter_jit
def _value_and_gradient(objective: Callable[..., Array], parameters: Any, fixed: Any, rest: Any) -> tuple[Array, Any]:
    return jax.value_and_grad(lambda parameters: objective(eqx.combine(parameters, fixed), *rest))(parameters)
