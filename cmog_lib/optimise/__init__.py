"""max_w f(w): L-BFGS for deterministic objectives, Adam for stochastic ones. Both maximise."""

from cmog_lib.engine.optimise.faults import Ascent, NotFinite
from cmog_lib.engine.optimise.lbfgs import Optimum, maximise
from cmog_lib.engine.optimise.stochastic import ascend
from cmog_lib.optimise.streamed import pieces

__all__ = ["Ascent", "NotFinite", "Optimum", "ascend", "maximise", "pieces"]
