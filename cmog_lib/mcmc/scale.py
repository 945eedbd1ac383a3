"""Where a posterior is and how wide: what a chain needs to know before it can step well."""

from __future__ import annotations

from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine import mode
from cmog_lib.engine.door import door
from cmog_lib.posteriors import FullGaussian


@door("w X key starts steps")
def laplace(
    w: Decoder, X: Float[Array, "N D"], *, key: Key[Array, ""], starts: int = 64, steps: int = 30
) -> FullGaussian:
    """q_i = N(t_i*, P⁻¹) around a mode t_i* of p(t|x_i,w), P = I + Σ_j (∂μ_j ∂μ_jᵀ + 2 ∂σ_j ∂σ_jᵀ)/σ_j² (Fisher).

    w: decoder, any latent dimension. X: [N, D], data. starts: draws from the prior, of which the likeliest is where a
    datum's climb begins; a draw at which log p(x,t|w) is NaN counts as the least likely. steps: of Fisher scoring, each
    the best of eight halvings. Returns m [N, d] and L [N, d, d].
    Exact for Linear. Of several modes it knows one. A datum costs at most starts + 10 steps decoder evaluations.
    Raises ValueError for data that are not finite or not the decoder's, an untyped key, starts or steps below 1, and
    where w or its slopes are not finite at the place where a datum's climb ended, naming the latent.
    """
    return mode.laplace(w, X, key, starts, steps)[0]
