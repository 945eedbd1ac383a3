"""The door itself: what a public function is given is checked here, once, and what it multiplies keeps its digits."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import jax

P, R = ParamSpec("P"), TypeVar("R")
# From the name, the value and the arguments that have been checked before: the value, checked and cast.
Kind = Callable[[str, Any, dict[str, Any]], Any]
_inside: ContextVar[bool] = ContextVar("inside", default=False)


def door(wanted: str = "", /, **kinds: Kind) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Checks the arguments of a public function and runs it at full precision.

    Within another public function nothing is checked again: its own door has seen to that.

    Args:
        wanted: the arguments in the order in which they are checked, such as "w X nodes". Each is of the kind that its
            name says in `kinds.KINDS`, or of the one after a colon, as in "M:count" or "T:[M,N,d]".
        kinds: kinds of the room's own by the name of the argument; one that is not in `wanted` is checked last.

    Raises:
        ValueError: by the function that is returned, for an argument that is not of its kind.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @functools.cache  # at the first call, so that an import does not take longer
        def asked() -> tuple[inspect.Signature, dict[str, Kind]]:
            from cmog_lib.engine.door.kinds import named  # which imports what is decorated here

            listed = (argument.partition(":") for argument in wanted.split())
            by_name = {name: kinds.get(name) or named(kind or name) for name, _, kind in listed}
            return inspect.signature(function), by_name | kinds

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            with jax.default_matmul_precision("highest"):
                if _inside.get():
                    return function(*args, **kwargs)
                signature, asked_of = asked()
                try:
                    bound = signature.bind(*args, **kwargs)
                except TypeError:
                    return function(*args, **kwargs)  # which says it in Python's own words
                bound.apply_defaults()
                given = {name: bound.arguments[name] for name in signature.parameters if name == "self"}
                token = _inside.set(True)
                try:
                    for name, kind in asked_of.items():
                        given[name] = kind(name, bound.arguments[name], given)
                    bound.arguments.update(given)
                    return function(*bound.args, **bound.kwargs)
                finally:
                    _inside.reset(token)

        return checked

    return decorated
