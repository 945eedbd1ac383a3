"""Of arrays: precision, shape, and whether every value is finite, wherever the array lies."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib._validate.numbers import positive

BLOCK = 2**22  # numbers of a memory-mapped array that are looked at together


def array(
    name: str,
    value: Any,
    shape: tuple[int | str, ...],
    *,
    finite: bool = True,
    missing: bool = False,
    mapped: bool = False,
) -> Any:
    """`value` as a floating-point array of `shape`, in which a letter stands for any length but zero.

    With `missing` a NaN is allowed, since it marks a missing cell. With `mapped` a memory-mapped array stays where it
    is, on disk; without, it is loaded as any other.
    Raises ValueError naming the argument, what came and what was expected.
    """
    expected = f"a floating-point array of shape [{', '.join(map(str, shape))}]"
    if not isinstance(getattr(value, "dtype", None), np.dtype):  # a list, or an array of another library
        try:
            value = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} must be {expected}, got {type(value).__name__}: {error}") from error
    came = f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    # Bytes in the other order, as some instruments write them, and more than eight of a number are nothing to JAX.
    foreign = not value.dtype.isnative or value.dtype.itemsize > 8
    if foreign or not jnp.issubdtype(value.dtype, jnp.floating):
        real = any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.integer, jnp.floating))
        advice = f"; convert it with jnp.asarray({name}, float)" if real else ""
        raise ValueError(f"{name} must be {expected}, got {came}{advice}")
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
    return value if mapped and isinstance(value, np.memmap) else jnp.asarray(value)


def one_or_many(name: str, value: Any, width: int) -> jax.Array:
    """`value` as one row [width] or several [N, width]. Raises ValueError otherwise."""
    batch = ("N",) if len(getattr(value, "shape", ())) == 2 else ()
    return array(name, value, (*batch, width))


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


def log_weights(name: str, value: Any, shape: tuple[int | str, ...]) -> jax.Array:
    """`value` as logarithms of weights, finite or -inf for a weight of nothing. Raises ValueError otherwise."""
    value = array(name, value, shape, finite=False)
    if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) < np.inf):
        bad = np.asarray(value)[~(np.asarray(value) < np.inf)]
        raise ValueError(f"{name} must be finite or -inf, got {bad[0]} ({bad.size} of {value.size} values)")
    return value


def _faults(value: Any, missing: bool) -> tuple[int, tuple[int, ...], Any]:
    """How many values are not finite (with `missing`: infinite), where the first of them is, and what it is."""
    if isinstance(value, jax.Array) and not value.is_fully_replicated:
        # On several devices it is looked at there: nobody holds it all, and every process comes to the same verdict.
        count, row, entry, first = map(np.asarray, _faults_of_shards(value, missing))
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
def _faults_of_shards(value: jax.Array, missing: bool) -> tuple[jax.Array, ...]:
    rows = value.reshape(len(value), -1)
    wrong = jnp.isinf(rows) if missing else ~jnp.isfinite(rows)
    row = jnp.argmax(wrong.any(axis=1))
    entry = jnp.argmax(wrong[row])
    return wrong.sum(), row, entry, rows[row, entry]
