"""Data that do not fit into memory: one piece at a time, for `ascend`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.engine import door


def pieces(X: Any, rows: int, *, key: Key[Array, ""]) -> Iterator[Float[np.ndarray, "rows D"]]:
    """X[i_1], …, X[i_rows] with i ~ U{1 … N}, no i twice in a piece; and another piece, without end.

    Batches drawn from pieces have the same expectation as those drawn from all of X. The function that is given a piece
    checks whether its values are finite.

    Args:
        X: [N, D], data, usually memory-mapped, by `np.load(path, mmap_mode="r")`: a piece is read when it is requested.
        rows: rows of a piece.
        key: a typed key.

    Returns:
        An iterator without end over pieces [rows, D].

    Raises:
        ValueError: if X is not a matrix of floats, if rows is not from 1 to N, or for an untyped key.
    """
    X = door.array("X", X, ("N", "D"), finite=False, mapped=True)
    rows, key = door.count("rows", rows, 1, len(X), why="the rows of X"), door.key(key)
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))

    def read() -> Iterator[np.ndarray]:
        while True:
            # In the order of the file, so that it is read forwards.
            yield np.asarray(X[np.sort(random.choice(len(X), rows, replace=False, shuffle=False))])

    return read()
