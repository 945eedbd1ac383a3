"""Warnings that name the line of the reader's own code."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

LIBRARY = str(Path(__file__).parents[2])


def warn(text: str) -> None:
    """Warns (RuntimeWarning) at the innermost line of code that is in no package."""
    level, frame = 1, sys._getframe()
    while frame.f_back and _in_a_package(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, RuntimeWarning, stacklevel=level)


def _in_a_package(file: str) -> bool:
    return file.startswith((LIBRARY, "<@beartype")) or "-packages" in file
