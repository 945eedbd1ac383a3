"""Of what is not an array: whole and positive numbers, sizes, keys, functions, objects of a kind."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.engine.door.precision import in_session


def count(name: str, value: Any, minimum: int = 1, maximum: int | None = None, why: str = "") -> int:
    """`value` as an integer in [minimum, maximum]. Raises ValueError otherwise, with `why` as the reason."""
    expected = f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum} to {maximum}"
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{name} must be {expected}{why and f' ({why})'}, got {value!r}")
    return int(value)


def sizes(name: str, value: Any, length: int | None = None) -> tuple[int, ...]:
    """`value` as a tuple of positive integers, as many as `length` says. Raises ValueError otherwise."""
    expected = f"a tuple of {length or 'one or more'} positive integers"
    if not isinstance(value, (tuple, list)) or not value or len(value) != (length or len(value)):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return tuple(count(f"{name}[{k}]", size) for k, size in enumerate(value))


def positive(name: str, value: Any) -> float:
    """`value` as a positive, finite float. Raises ValueError otherwise."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not 0 < value < np.inf:
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    return float(value)


def key(value: Any) -> jax.Array:
    """A single typed random key. Raises ValueError for an old-style one or anything else."""
    if not isinstance(value, jax.Array) or not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        came = f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else repr(value)
        raise ValueError(f"key must be a typed key, as jax.random.key(seed) makes it, got {came}")
    if value.shape:
        raise ValueError(f"key must be one key, got an array of keys of shape {list(value.shape)}")
    return value


def kind(name: str, value: Any, *kinds: type, advice: str = "") -> Any:
    """`value`, in the session's precision, if it is of one of these kinds. Raises ValueError otherwise, with advice."""
    if isinstance(value, kinds) and not isinstance(value, type):
        return in_session(value)
    expected = " or ".join(f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}" for kind in kinds)
    raise ValueError(f"{name} must be {expected}{advice and f', {advice}'}, got {type(value).__name__}")


def function(name: str, value: Any) -> Any:
    """`value`, if it can be called. Raises ValueError otherwise."""
    if not callable(value):
        raise ValueError(f"{name} must be a function, got {type(value).__name__}")
    return value
