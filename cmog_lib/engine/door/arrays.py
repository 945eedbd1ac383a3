"""Of arrays: precision, shape, and whether every value is finite, wherever the array lies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.engine.door.numbers import positive

BLOCK = 2**22  # numbers of a memory-mapped array that are looked at together, and that a device's array is copied for


def array(
    name: str,
    value: Any,
    shape: tuple[Any, ...],
    *,
    finite: bool = True,
    missing: bool = False,
    mapped: bool = False,
) -> Any:
    """`value` as a floating-point array of `shape` in the session's precision.

    In a shape a letter stands for any length but zero, and `...` at its beginning or end for any number of lengths.
    With `missing` a NaN is allowed, since it marks a missing cell, and an array of the host stays NumPy's; see
    `observed`. With `mapped` the precision stays as it is, and a memory-mapped array stays on disk.
    Raises ValueError naming the argument, what came and what was expected.
    """
    expected = f"a floating-point array of shape [{', '.join('...' if a is ... else str(a) for a in shape)}]"
    if hasattr(value, "todense"):
        raise ValueError(
            f"{name} must be {expected}, got a sparse {type(value).__name__}{list(value.shape)}; convert it with"
            f" {name}.{'toarray' if hasattr(value, 'toarray') else 'todense'}()"
        )
    given = value
    known = isinstance(value, (np.ndarray, np.generic, jax.Array)) and isinstance(value.dtype, np.dtype)
    if not known:  # a list, or an array of another library
        kind = type(value).__name__
        try:
            value = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} must be {expected}, got {kind}: {error}") from error
        if value.dtype == object and not hasattr(given, "to_numpy"):
            raise ValueError(f"{name} must be {expected}, got {kind}")
    came = f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    # Bytes in the other order, as some instruments write them, and more than eight of a number are nothing to JAX.
    foreign = not value.dtype.isnative or value.dtype.itemsize > 8
    if foreign or not jnp.issubdtype(value.dtype, jnp.floating):
        advice = ""
        if hasattr(given, "to_numpy"):  # a table of pandas, whose columns of different kinds come out as objects
            na_value = ", na_value=np.nan" if missing else ""
            advice = f" from a {type(given).__name__}; convert it with {name}.to_numpy(float{na_value})"
        elif any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
            advice = f"; convert it with jnp.asarray({name}, float)"
        raise ValueError(f"{name} must be {expected}, got {came}{advice}")
    if ... in shape:
        more = ("n",) * (len(value.shape) - len(shape) + 1)
        shape = (*shape[: shape.index(...)], *more, *shape[shape.index(...) + 1 :])
    fits = len(value.shape) == len(shape) and all(
        length > 0 if isinstance(want, str) else length == want for length, want in zip(value.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must be {expected}, got {came}")
    if finite and not isinstance(value, jax.core.Tracer):
        count, index, first = _faults(value, missing)
        if count:
            expected, bad = ("finite or NaN (a missing cell)", "infinite") if missing else ("finite", "not finite")
            kept = jax.dtypes.canonicalize_dtype(value.dtype)
            bad += "" if kept == value.dtype else f" in {kept}"
            raise ValueError(
                f"{name} must be {expected}, got {first} at {name}[{', '.join(map(str, index))}]"
                f" ({count} of {value.size} values are {bad})"
            )
    if mapped:
        return value if isinstance(value, np.memmap) else jnp.asarray(value)
    if missing and on_host(value):
        return np.asarray(value).astype(jax.dtypes.canonicalize_dtype(float), copy=False)
    return jnp.asarray(value, float)


def on_host(value: Any) -> bool:
    """Whether NumPy reads `value` where it lies: an array of NumPy's, or of JAX on one CPU. Others would be copied."""
    if isinstance(value, jax.core.Tracer):
        return False
    return not hasattr(value, "devices") or [device.platform for device in value.devices()] == ["cpu"]


def variances(name: str, values: Any, scale: Callable[[], Any]) -> None:
    """That variances which are not 0 are within the range of their precision, also their sum.

    scale: what they are the squares of, for the message. Raises ValueError, which names it.
    """
    if isinstance(values, jax.core.Tracer):
        return
    values = np.asarray(values)
    limits = np.finfo(values.dtype)
    with np.errstate(over="ignore"):
        held = values.size == 0 or (values.min() >= limits.tiny and np.isfinite(values.sum()))
    if not held:
        size = float(scale())
        raise ValueError(
            f"{name} must be of a scale whose squares {values.dtype} holds, from {limits.tiny**0.5:.1g} to"
            f" {limits.max**0.5:.1g}, got {size:.2g}; take another unit, such as {name} / {size:.1g}, or float64"
        )


def observed(value: Any) -> tuple[jax.Array, jax.Array]:
    """An array in which NaN marks a missing cell, with a 0 in those cells; and which cells are not missing.

    So no NaN enters JAX, where `jax_debug_nans` would stop at it.
    """
    by: Any = np if isinstance(value, np.ndarray) else jnp
    there = ~by.isnan(value)
    return jnp.asarray(by.where(there, value, by.zeros_like(value))), jnp.asarray(there)


def one_or_many(name: str, value: Any, width: int) -> jax.Array:
    """`value` as one row [width] or several [N, width]. Raises ValueError otherwise."""
    value = array(name, value, (..., width))
    return array(name, value, ("N", width)) if value.ndim > 2 else value


def scalar(name: str, value: Any) -> Any:
    """`value`, a positive finite number, or an array [] of one, which inside `jit` may be any."""
    if not hasattr(value, "shape"):
        return positive(name, value)
    value = array(name, value, ())
    if not isinstance(value, jax.core.Tracer):
        positive(name, value.item())
    return value


def nodes(value: Any, latent_dim: int, name: str = "nodes") -> tuple[jax.Array, jax.Array]:
    """t [S, d] and log_weight [S] of nodes, in which -inf switches a node off. Raises ValueError otherwise."""
    if not hasattr(value, "t") or not hasattr(value, "log_weight"):
        raise ValueError(f"{name} must be Nodes, as quadrature.grid makes them, got {type(value).__name__}")
    t = array(f"{name}.t", value.t, ("S", latent_dim))
    return t, log_weights(f"{name}.log_weight", value.log_weight, (len(t),))


def same(name: str, value: Any, other: str, expected: jax.Array) -> None:
    """Checks that two arrays are equal, where their values are known. Raises ValueError otherwise."""
    known = not isinstance(value, jax.core.Tracer) and not isinstance(expected, jax.core.Tracer)
    if value.shape != expected.shape or (known and not np.array_equal(value, expected)):
        raise ValueError(f"{name} must be {other}, of shape {list(expected.shape)}, got others of {list(value.shape)}")


def log_weights(name: str, value: Any, shape: tuple[Any, ...]) -> jax.Array:
    """`value` as logarithms of weights, finite or -inf for a weight of zero. Raises ValueError otherwise."""
    value = array(name, value, shape, finite=False)
    if not isinstance(value, jax.core.Tracer):
        known = np.asarray(value)
        if not np.all(known < np.inf):
            bad = known[~(known < np.inf)]
            raise ValueError(f"{name} must be finite or -inf, got {bad[0]} ({bad.size} of {value.size} values)")
        if not np.all(known.max(axis=-1) > -np.inf):
            raise ValueError(f"{name} must have a weight above zero, got -inf for all {known.shape[-1]} points")
    return value


def _faults(value: Any, missing: bool) -> tuple[int, tuple[int, ...], Any]:
    """How many values are not finite (with `missing`: infinite), where the first of them is, and what it is."""
    dealt_out = isinstance(value, jax.Array) and not value.is_fully_replicated
    if dealt_out or (value.size > BLOCK and not on_host(value)):
        # Checked where it lies: no process holds all shares, all come to the same verdict, and much is not copied.
        count, row, entry, first = map(np.asarray, _faults_where_it_lies(value, missing))
        return int(count), (int(row), *map(int, np.unravel_index(int(entry), value.shape[1:]))), first
    if isinstance(value, np.memmap) and value.size > BLOCK:
        rows = max(1, BLOCK * len(value) // value.size)
        found = [(k, *_faults(np.asarray(value[k : k + rows]), missing)) for k in range(0, len(value), rows)]
        k, _, index, first = next((each for each in found if each[1]), found[0])
        return sum(each[1] for each in found), (*(k + i for i in index[:1]), *index[1:]), first
    with np.errstate(over="ignore"):  # a number too large for the session's precision is infinite in it
        kept = np.asarray(value).astype(jax.dtypes.canonicalize_dtype(value.dtype), copy=False)
    wrong = np.isinf(kept) if missing else ~np.isfinite(kept)
    if not wrong.any():
        return 0, (), None
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    return int(wrong.sum()), index, np.asarray(value)[index]


@partial(jax.jit, static_argnames="missing")
def _faults_where_it_lies(value: jax.Array, missing: bool) -> tuple[jax.Array, ...]:
    rows = value.reshape(len(value), -1)
    wrong = jnp.isinf(rows) if missing else ~jnp.isfinite(rows)
    row = jnp.argmax(wrong.any(axis=1))
    entry = jnp.argmax(wrong[row])
    return wrong.sum(), row, entry, rows[row, entry]
