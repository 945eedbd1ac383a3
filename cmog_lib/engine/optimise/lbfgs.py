"""Deterministic: L-BFGS in double precision, for objectives that are the same at every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from cmog_lib.engine import door
from cmog_lib.engine.door import full_precision
from cmog_lib.engine.optimise.faults import (
    GRADIENT,
    VALUE,
    Ascent,
    NotFinite,
    T,
    given_back,
    observed,
    parameters_of,
    scalar,
)
from cmog_lib.engine.threads import one_blas_thread


class Optimum(eqx.Module, Generic[T]):
    """The result of `maximise`: where it ended.

    Attributes:
        w: the best w.
        value: the objective's value there.
        steps: number of steps taken.
        converged: whether the tolerance was met.
        evaluations: number of evaluations of the objective with its gradient, at least one per step.
    """

    w: T
    value: float
    steps: int
    converged: bool
    evaluations: int = 0


@full_precision
def maximise(
    objective: Callable[..., Float[Array, ""]],
    w: T,
    *args: Any,
    tolerance: float = 1e-9,
    max_steps: int = 1000,
    lower: PyTree | None = None,
    progress: bool = False,
) -> Optimum[T]:
    """max_w objective(w, *args), deterministic, by L-BFGS in float64.

    Args:
        objective: returns a scalar. A function that is defined once, not anew for each call, is compiled once.
        w: any pytree, whose floating-point arrays are moved.
        args: passed to the objective; its arrays arrive as float64.
        tolerance: it has converged when a step gains less than tolerance · max(1, |value|), or when no entry of the
            gradient is larger than tolerance.
        max_steps: the most steps.
        lower: a pytree like w, a lower limit for every entry.
        progress: show a bar of max_steps.

    Returns:
        The optimum, with w in the session's precision.

    Raises:
        NotFinite: if the value or the gradient is not finite.
        ValueError: for a tolerance or step count that is not positive, a w without floating-point arrays, an objective
            that is not a function or returns no scalar, or a `lower` that does not fit w.

    Source: SciPy's L-BFGS-B.
    """
    from scipy.optimize import minimize
    from tqdm.auto import tqdm

    tolerance, max_steps = door.positive("tolerance", tolerance), door.count("max_steps", max_steps)
    door.function("objective", objective)
    parameters, rest = parameters_of(w)
    if lower is not None and (came := _shapes(parameters_of(lower, "lower")[0])) != (wanted := _shapes(parameters)):
        raise ValueError(f"lower must be a pytree like w, with arrays of shapes {wanted}, got {came}")
    with jax.enable_x64(True):
        template, args = _float64(parameters), _float64(args)
        start, unravel = ravel_pytree(template)
        bound = -np.inf if lower is None else np.asarray(ravel_pytree(_float64(parameters_of(lower)[0]))[0])
        last = start = np.maximum(np.asarray(start), bound)
        evaluations = 0

        def restore(flat: np.ndarray) -> PyTree:
            moved = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), unravel(jnp.asarray(flat)), parameters)
            return given_back(eqx.combine(rest, moved))

        def descend(flat: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal last, evaluations
            evaluations += 1
            value, gradient = jax.device_get(_value_and_gradient(objective, flat, template, rest, args))
            if not (np.isfinite(value) and np.isfinite(gradient).all()):
                cause = GRADIENT if np.isfinite(value) else VALUE
                slopes, begun, there = (unravel(jnp.asarray(part)) for part in (gradient, start, flat))
                said = observed(cause, value, slopes, begun, there, evaluations, args, "a step of L-BFGS")
                raise NotFinite(f"evaluation {evaluations}: {said}", evaluations, Ascent(restore(last), np.zeros(0)))
            last = flat.copy()
            return -float(value), -gradient

        options = {"maxiter": max_steps, "maxfun": 20 * max_steps, "ftol": tolerance, "gtol": tolerance, "maxcor": 20}
        bounds = None if lower is None else [(low, None) for low in np.broadcast_to(bound, start.shape)]
        # SciPy's own algebra is on a few dozen numbers, where several threads cost ten times what they gain.
        with (
            one_blas_thread(),
            tqdm(total=max_steps, disable=not progress, unit="step", leave=False) as bar,
        ):

            def step(_: np.ndarray) -> None:
                bar.update()

            how: Any = {"jac": True, "method": "L-BFGS-B", "bounds": bounds, "options": options}
            found = minimize(descend, start, callback=step, **how)
        best = restore(found.x)
    return Optimum(best, -float(found.fun), int(found.nit), bool(found.success), evaluations)


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(tree)]


def _float64(tree: PyTree) -> PyTree:
    def cast(leaf: Any) -> Any:
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, "float64") if floating else leaf

    return jax.tree.map(cast, tree)


@eqx.filter_jit
def _value_and_gradient(objective, flat, template, rest, args):
    # The way back from the flat vector is built in here: handed in, it would be new at every call and compile anew.
    unravel = ravel_pytree(template)[1]
    return jax.value_and_grad(lambda flat: scalar(objective(eqx.combine(unravel(flat), rest), *args)))(flat)
