"""PPCA, μ(t) = Wt + b and Σ(t) = Σ₀: p(x|w), p(t|x,w), the EM step and, for one σ, the best w have a closed form.

Factor analysis, with one σ for each coordinate, and models of data with missing cells are fitted by iteration.
"""

from cmog_lib.ppca.closed_form import log_p_x, log_p_x_observed, marginal, posterior, posterior_observed
from cmog_lib.ppca.em import em_step
from cmog_lib.ppca.factor_analysis import fit_factor_analysis
from cmog_lib.ppca.missing import fit_missing
from cmog_lib.ppca.spectrum import Spectrum, fit, fit_all

__all__ = [
    "Spectrum",
    "em_step",
    "fit",
    "fit_all",
    "fit_factor_analysis",
    "fit_missing",
    "log_p_x",
    "log_p_x_observed",
    "marginal",
    "posterior",
    "posterior_observed",
]
