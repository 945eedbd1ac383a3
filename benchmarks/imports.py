"""`import cmog_lib` beside `import jax, equinox`, each in a fresh interpreter, whose own start does not count."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TITLE, UNIT, OURS = "Import", "imports", "import cmog_lib"
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"  # with it everything would be compiled at every import
IMPORTS = {OURS: "cmog_lib", "import jax, equinox": "jax, equinox"}


def prepare(folder: Path) -> None:
    """Once each, which writes the bytecode and fills the file cache."""
    for modules in IMPORTS.values():
        imported(modules)(0)


def load(folder: Path) -> None:
    """Nothing."""


def imported(modules: str) -> Callable[[int], float]:
    """A turn: seconds in a new process."""
    code = f"import time; start = time.perf_counter(); import {modules}; print(time.perf_counter() - start)"
    command, env = [sys.executable, "-c", code], {k: v for k, v in os.environ.items() if k != NO_BYTECODE}
    return lambda _: float(subprocess.run(command, check=True, capture_output=True, env=env).stdout)


CONTENDERS = {name: lambda _, modules=modules: imported(modules) for name, modules in IMPORTS.items()}


def judged(seconds: float) -> dict[str, Any]:
    """One import, by the new process's own clock."""
    return {"value": 1, "seconds": seconds, "memory": None}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """Nothing to be wrong about."""
    return dict.fromkeys(answers, ("", True))
