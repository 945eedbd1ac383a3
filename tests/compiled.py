"""Compiled once, run often: the processes of the tests keep what XLA made, and those that come later take it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "test-artifacts" / "compiled"
# XLA's flags where a short compilation matters more than a short run. The numbers agree up to rounding.
QUICKLY_COMPILED = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
# A lecture compiles for about half of its time and computes for the other half: this is the fastest for the whole.
LECTURE_COMPILED = "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"


def kept_in(folder: Path) -> dict[str, str]:
    """The environment of a kernel that keeps there what it compiles."""
    return {
        # XLA's own caches are off: their folders would be part of each key, and in a copy of `folder` nothing be found.
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def taken_from(folder: Path) -> dict[str, str]:
    """The same where something has been kept before; XLA then complains of processor features that are none."""
    return kept_in(folder) | {"TF_CPP_MIN_LOG_LEVEL": "3"}


def of_a_lecture() -> dict[str, str]:
    """Returns the XLA flags for a lecture's kernel; none beside the caller's own if CMOG_OPTIMISED is set."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {} if "CMOG_OPTIMISED" in os.environ else {"XLA_FLAGS": f"{flags} {LECTURE_COMPILED}".strip()}


def gathered(folder: Path) -> Path:
    """`folder`, with all that the lectures' kernels have kept so far."""
    folder.mkdir(parents=True, exist_ok=True)
    for kept in FOLDER.glob("*/*"):
        shutil.copy(kept, folder)
    return folder
