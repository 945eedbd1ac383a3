"""PPCA with a fifth of the cells missing, q = 10: scikit-learn's 1797 digits. See `_missing.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import _missing
from cmog_lib import datasets

TITLE = "Missing values: digits, q = 10"
OURS, UNIT, DTYPE = _missing.OURS, _missing.UNIT, _missing.DTYPE
CONTENDERS = _missing.CONTENDERS
load, judged, accuracy = partial(_missing.load, 10), _missing.judged, _missing.accuracy


def prepare(folder: Path) -> None:
    """The digits, with gaps."""
    _missing.prepare(np.asarray(datasets.digits().X), folder)
