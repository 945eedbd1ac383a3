"""The location and the width of each posterior, which determine the scale of a chain's steps."""

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

    Exact for Linear. If there are several modes, it finds one of them.

    Args:
        w: decoder, any latent dimension.
        X: [N, D], data.
        key: random key.
        starts: number of draws from the prior. The search for a mode starts at the one with the highest log p(x,t|w); a
            draw at which it is NaN counts as the lowest.
        steps: number of Fisher scoring steps, at most; each is the best of eight step lengths 1, ½, … 1/128.

    Returns:
        A `FullGaussian`: m [N, d] and L [N, d, d]. A datum costs at most starts + 10 steps decoder evaluations.

    Raises:
        ValueError: if the data are not finite or do not fit the decoder, the key is untyped, or starts or steps are
            below 1; and if w or its derivatives are not finite where the search for a datum ended, naming the latent.
    """
    return mode.laplace(w, X, key, starts, steps)[0]
