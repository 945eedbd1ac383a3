"""Products of float32 numbers with the accuracy of float32, on every device and whatever JAX's default is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P, R = ParamSpec("P"), TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, in which every matrix product and convolution is at highest precision, and so in its derivatives.

    On NVIDIA GPUs since Ampere JAX multiplies float32 numbers in TF32, with 10 bits of the 23, unless told otherwise.
    Every public function and every network is told here; what they call need not be.
    """

    @functools.wraps(function)
    def precise(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return precise
