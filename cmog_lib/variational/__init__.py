"""The best q of a family: factorised and free, by coordinate ascent; Gaussian, by gradients; and EM with it."""

from cmog_lib.variational.em import em_step, fit
from cmog_lib.variational.gaussian import Fitted, fit_q
from cmog_lib.variational.gradients import Gradient, reparameterised, score_function
from cmog_lib.variational.grid import Factorised, cavi_grid
from cmog_lib.variational.linear import CoordinateAscent, cavi_linear, factorised_gap

__all__ = [
    "CoordinateAscent",
    "Factorised",
    "Fitted",
    "Gradient",
    "cavi_grid",
    "cavi_linear",
    "em_step",
    "factorised_gap",
    "fit",
    "fit_q",
    "reparameterised",
    "score_function",
]
