"""What is computed on many devices and hosts, in the memory of each process that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cmog_lib.engine import door


def gathered(values: Any) -> np.ndarray:
    """The whole of a sharded array in this process's memory, also where its shares lie on other hosts.

    Every process must ask, and gets the same: meant for results, a number for each datum, and not for the data.
    """
    if isinstance(values, jax.Array) and not (values.is_fully_addressable or values.is_fully_replicated):
        from jax.experimental import multihost_utils

        values = multihost_utils.process_allgather(values, tiled=True)
    return np.asarray(values)


def by_process(function: Callable[[np.ndarray], np.ndarray], X: Any) -> np.ndarray:
    """function(X), a row for each row of X, where JAX cannot lay it out, since it is steered from outside: by NumPy.

    function: from rows [n, …] to values [n, …], row by row. X: [N, …], data. Each process gives it the rows that its
    own devices hold, and every process gets all values; all of them must ask. Raises ValueError for what is no
    function or no data, and where a process does not hold whole rows.
    """
    function, X = door.function("function", function), data(X)
    if not isinstance(X, jax.Array) or X.is_fully_addressable:
        return function(np.asarray(X))
    from jax.experimental import multihost_utils

    dealt = X.sharding
    if not isinstance(dealt, NamedSharding) or any(dealt.spec[1:]):
        raise ValueError(f"X must be dealt out by rows, as shard does it, got {dealt}")
    over: Any = dealt.mesh
    own = np.asarray(multihost_utils.global_array_to_host_local_array(X, over, dealt.spec))
    by_rows = PartitionSpec(*dealt.spec[:1])
    return gathered(multihost_utils.host_local_array_to_global_array(function(own), over, by_rows))


def data(X: Any) -> Any:
    """X [N, …], wherever it lies; the values are checked by the function that is given them."""
    return door.array("X", X, ("N", ...), finite=False, mapped=True)
