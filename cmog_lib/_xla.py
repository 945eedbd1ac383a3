"""A guard against one release of the compiler, jaxlib 0.10.2, that returns wrong numbers on the CPU.

There, `jit` of a vmapped W @ t followed by a sum reads memory that nobody wrote, from some ten thousand points
upwards: silent garbage in every p(x|t,w) of the library (jax-ml/jax issue 39103). Switching off the fusion at fault
mends it, but only before JAX compiles for the first time; other releases may not know the flag, so only this
one gets it.
"""

from __future__ import annotations

import os
import warnings

import jaxlib

FLAG = "--xla_cpu_experimental_ynn_fusion_type="


def mend() -> None:
    """Switch the faulty fusion off where it exists; warn where it is too late for that."""
    flags = os.environ.get("XLA_FLAGS", "")
    if jaxlib.__version__ != "0.10.2" or FLAG in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {FLAG}".strip()
    from jax._src import xla_bridge  # safe to name: reached under exactly one release

    if xla_bridge.backends_are_initialized():
        warnings.warn(
            "jaxlib 0.10.2 computes wrong numbers on the CPU unless cmog_lib is imported before JAX is first used:"
            " restart and import cmog_lib first, or install another jaxlib (0.10.1 is right)",
            RuntimeWarning,
            stacklevel=3,
        )
