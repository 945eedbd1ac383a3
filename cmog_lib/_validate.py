"""Errors at the door: every public function checks what it is given with these, and with nothing else.

Static facts (shape, dtype, range) are checked always, values (NaN, infinity) wherever they are known: inside
`jit`, `vmap` and `grad` an array has no values yet, and there JAX's own rules hold.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

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
    if not hasattr(value, "dtype"):
        try:
            value = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} must be {expected}, got {type(value).__name__}: {error}") from error
    came = f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if not jnp.issubdtype(value.dtype, jnp.floating):
        advice = f"; convert it with jnp.asarray({name}, float)" if jnp.issubdtype(value.dtype, jnp.integer) else ""
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


def kind(name: str, value: Any, *kinds: type, advice: str = "") -> Any:
    """`value`, if it is of one of these kinds. Raises ValueError otherwise, with the advice."""
    if isinstance(value, kinds) and not isinstance(value, type):
        return value
    expected = " or ".join(f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}" for kind in kinds)
    raise ValueError(f"{name} must be {expected}{advice and f', {advice}'}, got {type(value).__name__}")


def function(name: str, value: Any) -> Any:
    """`value`, if it can be called. Raises ValueError otherwise."""
    if not callable(value):
        raise ValueError(f"{name} must be a function, got {type(value).__name__}")
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


def decoder(w: Any) -> Any:
    """A decoder: `latent_dim`, `data_dim` and `mu, sigma = w(t)`, both of shape [data_dim].

    Raises ValueError when a part is missing or the shapes that `w(t)` returns are wrong.
    """
    missing = [part for part in ("latent_dim", "data_dim", "__call__") if not hasattr(w, part)]
    if missing:
        raise ValueError(
            f"w must be a decoder with latent_dim, data_dim and mu, sigma = w(t); "
            f"got {type(w).__name__} without {', '.join(missing)}"
        )
    d, D = count("w.latent_dim", w.latent_dim), count("w.data_dim", w.data_dim)
    expected = (
        f"w(t) must return mu and sigma, each floating-point of shape [{D}] (w.data_dim), for t of shape [{d}]"
        f" (w.latent_dim)"
    )
    try:
        output = jax.eval_shape(lambda t: w(t), jax.ShapeDtypeStruct((d,), jnp.result_type(float)))
    except Exception as error:  # whatever a class written in a notebook may raise
        raise ValueError(f"{expected}; got none: it raised {type(error).__name__}: {error}") from error
    parts = jax.tree.leaves(output)
    fits = all(part.shape == (D,) and jnp.issubdtype(part.dtype, jnp.floating) for part in parts)
    if not isinstance(output, tuple) or len(parts) != 2 or not fits:
        came = ", ".join(f"{part.dtype}{list(part.shape)}" for part in parts)
        kind = "array" if isinstance(output, jax.ShapeDtypeStruct) else type(output).__name__
        raise ValueError(f"{expected}; got {kind} of {came or 'nothing'}")
    return w


def decoded(w: Any, T: jax.Array) -> None:
    """That `w(t)` gives finite mu and finite, positive sigma at every row of `T`.

    Raises ValueError naming the first latent and the first entry where it does not.
    """
    mu, sigma = (np.asarray(part) for part in _decode(w, T))
    for name, value, good in (("mu", mu, np.isfinite(mu)), ("sigma", sigma, np.isfinite(sigma) & (sigma > 0))):
        if not good.all():
            k, j = (int(i) for i in np.argwhere(~good)[0])
            expected = "finite" if name == "mu" else "finite and positive"
            raise ValueError(
                f"w must return {expected} {name}, got {name}[{j}] = {value[k, j]} at t = {np.asarray(T[k]).tolist()}"
                f" ({int((~good).any(axis=1).sum())} of {len(good)} latents tried)"
            )


@eqx.filter_jit
def _decode(w: Any, T: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(lambda t: w(t))(T)
