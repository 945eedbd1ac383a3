"""For both loops: which part of w moves, what an objective must return, messages for numbers that are not finite."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

T = TypeVar("T")  # what is moved, a pytree, which comes back in the classes in which it came


class Ascent(eqx.Module, Generic[T]):
    """The result of `ascend`: where it ended.

    Attributes:
        w: the last w.
        trace: [steps], the objective's value before every step that was taken.
        interrupted: True if Ctrl-C stopped it.
    """

    w: T
    trace: Float[np.ndarray, "steps"]
    interrupted: bool = False


class NotFinite(ArithmeticError):
    """A value, a gradient or w itself was NaN or infinite.

    Attributes:
        step: the step or evaluation at which it was found.
        ascent: the last good w and the trace up to there.
    """

    def __init__(self, message: str, step: int, ascent: Ascent) -> None:
        super().__init__(message)
        self.step, self.ascent = step, ascent


def with_facts(error: NotFinite, facts: str) -> NotFinite:
    """The same with more facts in its message, from a caller that knows what w and the data are."""
    return NotFinite(f"{error}; {facts}" if facts else str(error), error.step, error.ascent)


# What was not finite first, in the order in which it is looked for.
VALUE, GRADIENT, MOVED = range(3)


def observed(
    cause: int, value: Any, gradient: PyTree, begun: PyTree, w: PyTree, steps: int, data: PyTree, length: str
) -> str:
    """What was seen where something was not finite, in words: facts, and the advice that follows from them.

    cause: VALUE, GRADIENT or MOVED. value, gradient: there. begun, w: the parameters at the start and there, so many
    steps later. data: as the objective got them. length: what sets the length of a step, such as "the learning rate".
    """
    if cause == MOVED:
        largest = _largest(gradient)
        return f"w is not finite after the step: {length} is too large for a gradient of at most {largest:.3g}"
    if cause == GRADIENT:
        return (
            f"the value is finite but its gradient is not, that of w{_not_finite(gradient)}: look for √0, a norm at 0,"
            " or the untaken branch of a `where`"
        )
    said = f"the value is not finite, it is {float(value)}"
    for name, tree in (("w", w), ("data", data)):
        if place := _not_finite(tree):
            return f"{said}; {name} holds a number that is not finite, in {name}{place}"
    moved, begin = _largest(jax.tree.map(lambda new, old: np.asarray(new) - np.asarray(old), w, begun)), _largest(begun)
    if moved <= steps * max(begin, 1):
        return said
    far = f"w had entries of at most {begin:.4g} and has moved by up to {moved:.4g} in {steps} steps"
    return f"{said}; {far}: {length} is too large"


def _largest(tree: PyTree) -> float:
    leaves = [np.abs(np.asarray(leaf)).max() for leaf in jax.tree.leaves(tree) if np.size(leaf)]
    return float(max(leaves, default=0.0))


def _not_finite(tree: PyTree) -> str:
    """The first array of a pytree with an entry that is not finite, and where; nothing if there is none."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if eqx.is_inexact_array(leaf) and not bool(jnp.isfinite(leaf).all()):
            at = np.argwhere(~np.isfinite(np.asarray(leaf)))[0].tolist()
            return f"{jax.tree_util.keystr(path)}{at if at else ''}"
    return ""


def parameters_of(w: PyTree, name: str = "w") -> tuple[PyTree, PyTree]:
    """The floating-point arrays of w, which are moved, in the session's precision; and the rest, which is not moved.

    A node with an attribute `unmovable` (`modules.Constants`) holds still. Raises ValueError where it names
    arrays that should move, and where there is nothing to move.
    """

    def still(node: Any) -> bool:
        return hasattr(node, "unmovable")

    def moves(leaf: Any) -> bool:
        if still(leaf) and leaf.unmovable:
            raise ValueError(
                f"{name} must read its arrays through jax.numpy and its attributes, so that training can move them; got"
                f" {', '.join(leaf.unmovable)} read as numbers, by NumPy or Python, or through a function that was made"
                " for the original object, such as a lambda in __init__"
            )
        return isinstance(leaf, (jax.Array, np.ndarray)) and bool(jnp.issubdtype(leaf.dtype, jnp.floating))

    parameters, rest = eqx.partition(w, jax.tree.map(moves, w, is_leaf=still))
    if not jax.tree.leaves(parameters):
        came = type(given_back(w)).__name__
        raise ValueError(
            f"{name} must hold at least one floating-point array to move, got {came} without any; a decoder or encoder"
            " of a plain class goes in as decoders.as_module makes it"
        )
    return jax.tree.map(lambda array: jnp.asarray(array, float), parameters), rest


def given_back(w: PyTree) -> PyTree:
    """w, with objects of the reader's own classes in the place of each `modules.Plain` that stands for one.

    What comes out of a compiled function has the structure of the w for which that was compiled, which may be another
    object that is equal: so `eqx.combine(rest, moved)`, which takes the structure of its first argument.
    """

    def own(node: Any) -> Any:
        return node.stands_for() if hasattr(node, "stands_for") else node

    return jax.tree.map(own, w, is_leaf=lambda node: isinstance(node, eqx.Module))


def scalar(value: Any) -> Any:
    """`value`, if it is what an objective must return."""
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"objective must return a floating-point scalar, got {value}")
    return value
