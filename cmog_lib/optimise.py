"""max_w f(w): the library's only optimisation loops, and the only place that turns a sign. All is maximised."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, PyTree

from cmog_lib import _validate


class Optimum(eqx.Module):
    """Where `maximise` ended: w, the objective's value there, and whether the tolerance was met.

    steps: taken. evaluations: of the objective with its gradient, at least one a step.
    """

    w: PyTree
    value: float
    steps: int
    converged: bool
    evaluations: int = 0


class Ascent(eqx.Module):
    """Where `ascend` ended: w, the objective's value before every step taken, and whether the reader stopped it."""

    w: PyTree
    trace: Float[np.ndarray, "steps"]
    interrupted: bool = False


class NotFinite(ArithmeticError):
    """Something was NaN or infinite: at `step`; `ascent` holds the last good w and the trace up to there."""

    def __init__(self, message: str, step: int, ascent: Ascent) -> None:
        super().__init__(message)
        self.step, self.ascent = step, ascent


# What was not finite first, in the order in which it is looked for, with the cause that is usually behind it.
CAUSES = (
    "the value is not finite: look for the logarithm of 0, a σ that went to 0, or data with NaN",
    "the value is finite but its gradient is not: look for √0, a norm at 0, or the untaken branch of a `where`",
    "w is not finite after the step: the learning rate is too large",
)


def maximise(
    objective: Callable[..., Float[Array, ""]],
    w: PyTree,
    *args: Any,
    tolerance: float = 1e-9,
    max_steps: int = 1000,
    lower: PyTree | None = None,
) -> Optimum:
    """max_w objective(w, *args), deterministic, by L-BFGS in float64.

    objective: returns a scalar; a function defined once, not anew for each call, is compiled once. w: any pytree, whose
    floating-point arrays are moved. args: handed through; arrays come as float64. tolerance: it has converged when a
    step gains less than tolerance · max(1, |value|), or when no entry of the gradient is larger than tolerance.
    lower: a pytree like w, below which no entry goes. Returns w in its own dtypes.
    Raises NotFinite when the value or the gradient is not finite, ValueError for a tolerance or step count that is not
    positive or a w without floating-point arrays. Source: SciPy's L-BFGS-B.
    """
    from scipy.optimize import minimize

    tolerance, max_steps = _validate.positive("tolerance", tolerance), _validate.count("max_steps", max_steps)
    parameters, rest = _parameters(w)
    with jax.enable_x64(True):
        template, args = _float64(parameters), _float64(args)
        start, unravel = ravel_pytree(template)
        bound = -np.inf if lower is None else np.asarray(ravel_pytree(_float64(_parameters(lower)[0]))[0])
        last = start = np.maximum(np.asarray(start), bound)
        evaluations = 0

        def restore(flat: np.ndarray) -> PyTree:
            moved = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), unravel(jnp.asarray(flat)), parameters)
            return eqx.combine(moved, rest)

        def descend(flat: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal last, evaluations
            evaluations += 1
            value, gradient = jax.device_get(_value_and_gradient(objective, flat, template, rest, args))
            if not (np.isfinite(value) and np.isfinite(gradient).all()):
                message = f"evaluation {evaluations}: {CAUSES[1 if np.isfinite(value) else 0]}"
                raise NotFinite(message, evaluations, Ascent(restore(last), np.zeros(0)))
            last = flat.copy()
            return -float(value), -gradient

        options = {"maxiter": max_steps, "maxfun": 20 * max_steps, "ftol": tolerance, "gtol": tolerance, "maxcor": 20}
        bounds = None if lower is None else [(low, None) for low in np.broadcast_to(bound, start.shape)]
        # SciPy's own algebra is on a few dozen numbers, where several threads cost ten times what they gain.
        with _threads().limit(limits=1, user_api="blas"):
            found = minimize(descend, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        best = restore(found.x)
    return Optimum(best, -float(found.fun), int(found.nit), bool(found.success), evaluations)


def ascend(
    objective: Callable[[Any, Any, Key[Array, ""]], Float[Array, ""]],
    w: PyTree,
    data: PyTree,
    *,
    steps: int,
    key: Key[Array, ""],
    optimiser: Any = None,
    learning_rate: float = 1e-3,
    chunk: int = 50,
    progress: bool = True,
) -> Ascent:
    """w ← w + step(∇_w objective(w, data, key)), stochastic, `steps` times: maximises the objective's expectation.

    objective: returns a scalar; a function defined once, not anew for each call, is compiled once. It gets a fresh key
    at every step. w: any pytree, whose floating-point arrays are moved. data: any pytree of arrays, handed through.
    optimiser: from optax, built as for minimising; by default Adam with `learning_rate`. chunk: steps between two
    looks at the bar and at Ctrl-C, which returns what there is, with `interrupted` set. progress: show the bar.
    Raises NotFinite when the value, the gradient or w is not finite, ValueError for any argument that is no such thing.
    """
    from tqdm.auto import tqdm

    steps, chunk, key = _validate.count("steps", steps), _validate.count("chunk", chunk), _validate.key(key)
    parameters, rest = _parameters(w)
    rate, default = jnp.asarray(_validate.positive("learning_rate", learning_rate), float), optimiser is None
    optimiser = _adam() if default else optimiser
    state = optimiser.init(parameters)
    if default:
        state.hyperparams["learning_rate"] = rate
    carry = (parameters, state, jnp.asarray(-1))
    trace: list[np.ndarray] = [np.zeros(0)]
    interrupted = False
    with tqdm(total=steps, disable=not progress, unit="step") as bar:
        for first in range(0, steps, chunk):
            try:
                indices = jnp.arange(first, first + chunk)
                carry_new, values = _chunk(objective, optimiser, carry, rest, data, key, indices, jnp.asarray(steps))
                values = np.asarray(values)[: steps - first]
            except KeyboardInterrupt:
                interrupted = True
                break
            carry, cause = carry_new, int(carry_new[2])
            trace.append(values[~np.isnan(values)] if cause >= 0 else values)
            if cause >= 0:
                step, ascent = first + len(trace[-1]), Ascent(eqx.combine(carry[0], rest), np.concatenate(trace))
                raise NotFinite(f"step {step}: {CAUSES[cause]}", step, ascent)
            bar.update(len(values))
            bar.set_postfix(value=f"{values.mean():.6g}")
    return Ascent(eqx.combine(carry[0], rest), np.concatenate(trace), interrupted)


def _parameters(w: PyTree) -> tuple[PyTree, PyTree]:
    def moves(leaf: Any) -> bool:
        return isinstance(leaf, (jax.Array, np.ndarray)) and bool(jnp.issubdtype(leaf.dtype, jnp.floating))

    parameters, rest = eqx.partition(w, moves)
    if not jax.tree.leaves(parameters):
        raise ValueError(f"w must hold at least one floating-point array to move, got {type(w).__name__} without any")
    return jax.tree.map(jnp.asarray, parameters), rest


def _scalar(value: Any) -> Any:
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"objective must return a floating-point scalar, got {value}")
    return value


def _float64(tree: PyTree) -> PyTree:
    def cast(leaf: Any) -> Any:
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, "float64") if floating else leaf

    return jax.tree.map(cast, tree)


@eqx.filter_jit
def _value_and_gradient(objective, flat, template, rest, args):
    # The way back from the flat vector is built in here: handed in, it would be new at every call and compile anew.
    unravel = ravel_pytree(template)[1]
    return jax.value_and_grad(lambda flat: _scalar(objective(eqx.combine(unravel(flat), rest), *args)))(flat)


@lru_cache(maxsize=1)
def _threads() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


@lru_cache(maxsize=1)
def _adam() -> Any:
    # One object for all calls, with the learning rate in its state: another rate compiles nothing anew.
    import optax  # type: ignore[import-untyped]

    return optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)


@eqx.filter_jit
def _chunk(objective, optimiser, carry, rest, data, key, indices, steps):
    def finite(tree: PyTree) -> Bool[Array, ""]:
        return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))

    def step(carry, index):
        parameters, state, _ = carry

        def value_at(parameters):
            return _scalar(objective(eqx.combine(parameters, rest), data, jax.random.fold_in(key, index)))

        value, gradient = jax.value_and_grad(value_at)(parameters)
        # Optimisers descend.
        updates, state_new = optimiser.update(jax.tree.map(jnp.negative, gradient), state, parameters)
        moved = jax.tree.map(lambda old, update: old + update.astype(old.dtype), parameters, updates)
        causes = jnp.stack([~jnp.isfinite(value), ~finite(gradient), ~finite(moved)])
        good = ~causes.any()
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), (moved, state_new), (parameters, state))
        return (*kept, jnp.where(good, -1, jnp.argmax(causes))), jnp.where(good, value, jnp.nan)

    def guarded(carry, index):
        # Past the last step, and after the first failure, nothing moves: one compiled chunk serves every length.
        blank = eqx.filter_eval_shape(step, carry, index)[1]
        runs = (index < steps) & (carry[2] < 0)
        return jax.lax.cond(runs, step, lambda carry, _: (carry, jnp.full((), jnp.nan, blank.dtype)), carry, index)

    return jax.lax.scan(guarded, carry, indices)
