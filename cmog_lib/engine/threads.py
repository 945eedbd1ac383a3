"""BLAS with one thread, where several lose more by waiting for each other than they gain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, BLAS computes with one thread: SciPy's, with which JAX factorises matrices too.

    A thread of OpenBLAS that waits for another spins. On a busy machine it takes the core that the other one needs:
    the QR of a layer with 200 units for 784 pixels took 6 ms with one thread, and 80 to 500 ms with two.
    JAX computes in the background, so what shall be done with one thread has to be waited for within.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _controller() -> Any:
    import scipy.linalg  # noqa: F401 (whose BLAS JAX calls; it must be there to be told)
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
