"""Data that memory does not hold: a piece of them at a time, for `ascend`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.engine import door


def pieces(X: Any, rows: int, *, key: Key[Array, ""]) -> Iterator[Float[np.ndarray, "rows D"]]:
    """X[i_1], …, X[i_rows] with i ~ U{1 … N}, no i twice in a piece; and another piece, without end.

    X: [N, D], data, as a rule memory-mapped, by `np.load(path, mmap_mode="r")`: a piece is read when it is asked for.
    rows: of a piece. Batches drawn from pieces have the same expectation as those drawn from all of X.
    Raises ValueError for an X that is no matrix of floats, rows that are not from 1 to N, or an untyped key; whether
    its values are finite, whoever gets a piece will say.
    """
    X = door.array("X", X, ("N", "D"), finite=False, mapped=True)
    rows, key = door.count("rows", rows, 1, len(X), why="the rows of X"), door.key(key)
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))

    def read() -> Iterator[np.ndarray]:
        while True:
            # In the order of the file, which is read forwards then.
            yield np.asarray(X[np.sort(random.choice(len(X), rows, replace=False, shuffle=False))])

    return read()
