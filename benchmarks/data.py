"""Where the rows find data that the project does not ship."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cmog_lib import datasets


class NotHere(Exception):
    """A row that needs what is not on this machine; it says what and how to get it."""


def images() -> Any:
    """MNIST's training images [60000, 784] where they are, else scikit-learn's digits."""
    try:
        return datasets.mnist().X
    except FileNotFoundError:
        return datasets.digits().X


def file(*parts: str) -> Path:
    """A file of the folder that CMOG_DATA_DIR names. Raises NotHere when there is none."""
    path = Path(os.environ.get("CMOG_DATA_DIR", "."), *parts).expanduser()
    if not path.is_file():
        raise NotHere(f"it needs {'/'.join(parts)} in the folder that CMOG_DATA_DIR names")
    return path
