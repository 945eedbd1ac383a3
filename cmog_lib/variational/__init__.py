"""The best q of a family: factorised and free, by coordinate ascent; Gaussian, by gradient; and EM with it."""

from cmog_lib.variational.gradients import Gradient, reparameterised, score_function
from cmog_lib.variational.grid import Factorised, cavi_grid
from cmog_lib.variational.linear import Sweeps, cavi_linear, factorised_gap

__all__ = [
    "Factorised",
    "Gradient",
    "Sweeps",
    "cavi_grid",
    "cavi_linear",
    "factorised_gap",
    "reparameterised",
    "score_function",
]
