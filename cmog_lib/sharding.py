"""Data on many devices and many hosts: each device holds a share of the rows, and functions take them as they are.

Compiled functions are the same as on one device: JAX lays out a computation after its arrays. What is a sum
over data becomes one sum on each device and one over devices. Between hosts it is the same, once each of their
processes has called `jax.distributed.initialize`; all of them then run the same program. What NumPy or SciPy steers
from outside has a path of its own: `by_process`.
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
    """All devices of all processes in one row, along which data are dealt out."""
    return Mesh(np.array(jax.devices()), ("data",))


def shard(X: Any, over: Mesh | None = None) -> Float[Array, "N ..."]:
    """X = (X_1, …, X_k), N/k rows for each of k devices: the first on the first, the next on the second, and so on.

    X: [N, …], data, the same in every process; a memory-mapped array is read where a device needs it and nowhere else.
    over: a mesh with one axis (default: `mesh()`). The values are checked by the function that is given them.
    Raises ValueError where the devices do not divide N: rows made up to fill would count in every mean.
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
    # Asked for by JAX, share by share: of what this process does not hold, it reads nothing.
    dtype = jax.dtypes.canonicalize_dtype(X.dtype)
    by_rows = NamedSharding(over, PartitionSpec(over.axis_names[0]))
    return jax.make_array_from_callback(X.shape, by_rows, lambda rows: np.asarray(X[rows], dtype))
