"""From a slider's move to its picture where the kernel draws each: the 95th percentile. See `slider.py`."""

from __future__ import annotations

from benchmarks import slider

TITLE, UNIT, OURS, PEER = "Slider to picture, drawn live", slider.UNIT, "explorer, live", slider.PEER
PYTHON = slider.PYTHON
prepare, load, judged, accuracy = slider.prepare, slider.load, slider.judged, slider.accuracy
CONTENDERS = {OURS: slider.shown(slider.LIVE, ".cmog"), PEER: slider.CONTENDERS[PEER]}
