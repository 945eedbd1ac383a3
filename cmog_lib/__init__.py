"""Continuous mixtures of Gaussians: p(x|w) = ∫ p(x|t,w) p(t) dt, one model and one bound.

The rooms are at hand after `import cmog_lib`, all but `cmog_lib.classroom`, which needs a notebook and matplotlib.
"""

from cmog_lib import (
    amortised,
    bound,
    datasets,
    decoders,
    em,
    likelihood,
    mcmc,
    model,
    optimise,
    posteriors,
    ppca,
    quadrature,
    sharding,
    variational,
)

__all__ = [
    "amortised",
    "bound",
    "datasets",
    "decoders",
    "em",
    "likelihood",
    "mcmc",
    "model",
    "optimise",
    "posteriors",
    "ppca",
    "quadrature",
    "sharding",
    "variational",
]
