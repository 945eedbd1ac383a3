"""PPCA with a fifth of the cells missing, q = 2: oil flow, 1000 × 12 (Bishop and James 1993). See `_missing.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import _missing
from benchmarks.data import file

TITLE = "Missing values: oil flow, q = 2"
OURS, UNIT, DTYPE = _missing.OURS, _missing.UNIT, _missing.DTYPE
CONTENDERS = _missing.CONTENDERS
load, judged, accuracy = partial(_missing.load, 2), _missing.judged, _missing.accuracy


def prepare(folder: Path) -> None:
    """The training data, with gaps."""
    _missing.prepare(np.loadtxt(file("oil_flow", "DataTrn.txt")), folder)
