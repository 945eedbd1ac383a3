"""Data on many devices and many hosts: each device holds a share of the rows, and functions take the sharded arrays.

Compiled functions are the same as on one device: JAX partitions a computation to follow its arrays. A sum over data
becomes one sum on each device and one over devices. The same holds between hosts, once each of their processes has
called `jax.distributed.initialize`; all of them then run the same program. Computations that NumPy or SciPy drives from
outside use `by_process`.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from cmog_lib.engine.devices import by_process, data, gathered

__all__ = ["by_process", "gathered", "mesh", "shard"]


def mesh() -> Mesh:
    """All devices of all processes in one row, along which data are split.

    Returns:
        A mesh with the one axis "data".
    """
    return Mesh(np.array(jax.devices()), ("data",))


def shard(X: Any, over: Mesh | None = None) -> Float[Array, "N ..."]:
    """X = (X_1, …, X_k), N/k rows for each of k devices: the first on the first, the next on the second, and so on.

    The values are checked by the function that is given the result.

    Args:
        X: [N, …], data, the same in every process. Of a memory-mapped array, only the rows of a device are read for it.
        over: a mesh with one axis (default: `mesh()`).

    Returns:
        [N, …], the sharded array.

    Raises:
        ValueError: if `over` is not a mesh with one axis, or if the number of devices does not divide N: rows added to
            fill the last share would count in every mean.
    """
    over = mesh() if over is None else over
    if not isinstance(over, Mesh) or len(over.axis_names) != 1:
        raise ValueError(f"over must be a mesh with one axis, as mesh() makes it, got {over!r}")
    X = data(X)
    devices, N = over.devices.size, len(X)
    if N % devices:
        kept = N - N % devices
        advice = f"take X[:{kept}]" if kept else "take fewer devices"
        raise ValueError(f"X must have a number of rows that {devices} devices can share evenly, got {N}: {advice}")
    # JAX asks for the shares one by one: this process reads only those that it holds.
    dtype = jax.dtypes.canonicalize_dtype(X.dtype)
    by_rows = NamedSharding(over, PartitionSpec(over.axis_names[0]))
    return jax.make_array_from_callback(X.shape, by_rows, lambda rows: np.asarray(X[rows], dtype))
