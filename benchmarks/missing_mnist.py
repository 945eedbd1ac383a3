"""PPCA with a fifth of the cells missing, q = 10: 10,000 images of MNIST, or else digits. See `_missing.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import _missing
from benchmarks.data import images

TITLE = "Missing values: 10,000 of MNIST, q = 10"
OURS, UNIT, DTYPE = _missing.OURS, _missing.UNIT, _missing.DTYPE
CONTENDERS = _missing.CONTENDERS
load, judged, accuracy = partial(_missing.load, 10), _missing.judged, _missing.accuracy


def prepare(folder: Path) -> None:
    """The images, with gaps."""
    _missing.prepare(np.asarray(images()[:10_000]), folder)
