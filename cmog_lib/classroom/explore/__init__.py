"""explore(draw, **sliders): the slider widget of the series, called like `ipywidgets.interact`."""

from cmog_lib.classroom.explore.sliders import Pad, Slider
from cmog_lib.classroom.explore.widget import Explorer, Failure, explore, failures, made

__all__ = ["Explorer", "Failure", "Pad", "Slider", "explore", "failures", "made"]
