"""An object of any class as arrays and a program, so that compiled functions see every change of it.

A compiled function compares everything but arrays by `==`, and an object that was changed in place still equals itself.
So JAX traces a call of the object: the arrays in the trace become arguments, and the rest of it is compared.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array


class Program:
    """What f(x) does with its arrays. Two programs are equal if they do the same, whatever the objects and numbers.

    f: the object. moved: for each floating-point array in its attributes, whether it is an argument or a constant.
    key: a short name for what f(x) does, by which programs are compared. output_shapes: what it returns.
    """

    def __init__(self, f: Any, moved: list[bool]) -> None:
        self.f, self.moved = f, moved
        self.key, self.output_shapes = "", None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def rebuilt(self, parts: tuple[Array, ...]) -> Any:
        """A copy of f with `parts` in the place of its own arrays."""
        new, moved = iter(parts), iter(self.moved)
        return mapped(lambda array: next(new) if next(moved) else array, self.f)

    def trace(self, parts: tuple[Array, ...], x: Any) -> tuple[ClosedJaxpr, Any]:
        """The trace of f(x) with `parts`, and the shapes that it returns."""
        return jax.make_jaxpr(lambda parts, x: self.rebuilt(parts)(x), return_shape=True)(parts, x)


class Parts(NamedTuple):
    """An object f taken apart: its program and its arrays.

    moved: the floating-point arrays in the attributes of f. constants: all other arrays that f(x) reads. unmovable:
    attributes among these, by name.
    """

    program: Program
    moved: tuple[Array, ...]
    constants: tuple[Array, ...]
    unmovable: tuple[str, ...]


def taken_apart(f: Any, width: int) -> Parts:
    """The parts of f, from a trace of f(x) with x [width]. Raises what f(x) raises."""
    x, arrays = jax.ShapeDtypeStruct((width,), jnp.result_type(float)), arrays_of(f)

    def tried(moved: list[bool]) -> Parts:
        program = Program(f, moved)
        parts = tuple(jnp.asarray(array, float) for array, is_part in zip(arrays, moved, strict=True) if is_part)
        call, program.output_shapes = program.trace(parts, x)
        program.key = digest(call.jaxpr)
        unmovable = tuple(name_in(f, array) for array in read_elsewise(arrays, moved, call))
        return Parts(program, parts, tuple(map(jnp.asarray, call.consts)), unmovable)

    def alone(k: int) -> bool:
        try:
            tried([j == k for j in range(len(arrays))])
        except Exception:  # whatever a class written in a notebook may raise
            return False
        return True

    try:
        return tried([True] * len(arrays))
    except Exception:  # NumPy or Python needs the numbers of an array, which then is a constant
        return tried([alone(k) for k in range(len(arrays))])


def read_elsewise(arrays: list[Any], moved: list[bool], call: ClosedJaxpr) -> Iterator[Any]:
    """JAX's arrays in f that are constants of a call: read as numbers, or by a function that refers to f itself."""
    read = {id(atom) for step in call.jaxpr.eqns for atom in step.invars} | set(map(id, call.jaxpr.outvars))
    arguments = iter(call.jaxpr.invars)
    for array, is_part in zip(arrays, moved, strict=True):
        unread = is_part and id(next(arguments)) not in read
        if isinstance(array, jax.Array) and (not is_part or (unread and any(c is array for c in call.consts))):
            yield array


def name_in(f: Any, array: Any) -> str:
    """How a message names an array of f."""
    name = next((name for name, value in attributes(f) if value is array), f"{array.dtype}{list(array.shape)}")
    return f"{type(f).__name__}.{name}"


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """A copy of a pytree with change(a) for each floating-point array a, also in the attributes of its objects.

    Only objects of the reader's own classes are copied, each once: an object that was shared is shared in the copy.
    """
    copies: dict[int, Any] = {}

    def of(value: Any) -> Any:
        return jax.tree.map(one, value, is_leaf=lambda node: isinstance(node, dict))

    def one(leaf: Any) -> Any:
        if is_floating(leaf):
            return change(leaf)
        if id(leaf) in copies:
            return copies[id(leaf)]
        if isinstance(leaf, types.MethodType):
            return types.MethodType(leaf.__func__, of(leaf.__self__))
        if isinstance(leaf, dict):  # here and not in jax.tree, which wants keys that can be sorted
            copies[id(leaf)] = new = copy.copy(leaf)
            new.update({key: of(item) for key, item in leaf.items()})
            return new
        kind = type(leaf)
        if not is_readers(kind):
            return leaf
        copies[id(leaf)] = new = object.__new__(kind) if kind.__new__ is object.__new__ else copy.copy(leaf)
        for name, attribute in attributes(leaf):
            object.__setattr__(new, name, of(attribute))  # for a frozen dataclass too
        return new

    return of(value)


def arrays_of(value: Any) -> list[Any]:
    """The floating-point arrays in a pytree and in attributes of its objects."""
    found: list[Any] = []

    def keep(array: Any) -> Any:
        found.append(array)
        return array

    mapped(keep, value)
    return found


def is_floating(leaf: Any) -> bool:
    """Whether a leaf is what training moves."""
    return isinstance(leaf, (jax.Array, np.ndarray)) and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def is_readers(kind: type) -> bool:
    """Whether a class is the reader's own, and not Python's or an installed package's."""
    package = kind.__module__.partition(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return kind is types.SimpleNamespace or (package not in sys.stdlib_module_names and "-packages" not in file)


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object, with those that its classes keep in slots."""
    yield from getattr(value, "__dict__", {}).items()
    for kind in type(value).__mro__:
        for name, slot in vars(kind).items():
            if inspect.ismemberdescriptor(slot) and name != "__dict__" and hasattr(value, name):
                yield name, slot.__get__(value)


def digest(jaxpr: Jaxpr) -> str:
    """A short name for a call: for its operations and for every number in them that is no argument."""
    text = hashlib.blake2b(str(jaxpr).encode(), digest_size=16)
    for number in numbers_in(jaxpr):
        is_key = jnp.issubdtype(jnp.result_type(number), jax.dtypes.prng_key)
        text.update(np.asarray(jax.random.key_data(number) if is_key else number).tobytes())
    return text.hexdigest()


def numbers_in(jaxpr: Jaxpr) -> Iterator[Any]:
    """The numbers in a call, some of which JAX rounds or leaves out when it prints the call."""
    for step in jaxpr.eqns:
        yield from (atom.val for atom in step.invars if isinstance(atom, Literal))
        for inner in jax.tree.leaves(list(step.params.values()), is_leaf=lambda p: isinstance(p, (ClosedJaxpr, Jaxpr))):
            if isinstance(inner, ClosedJaxpr):
                yield from inner.consts
                yield from numbers_in(inner.jaxpr)
            elif isinstance(inner, Jaxpr):
                yield from numbers_in(inner)
    yield from (atom.val for atom in jaxpr.outvars if isinstance(atom, Literal))
