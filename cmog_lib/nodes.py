"""Nodes: the points at which integrals over the latent space are evaluated as sums."""

from __future__ import annotations

import equinox as eqx
from jaxtyping import Array, Float


class Nodes(eqx.Module):
    """∫ f(t) p(t) dt ≈ Σ_s exp(log_weight_s) f(t_s): the weights contain the prior.

    Attributes:
        t: [S, d], latents.
        log_weight: [S]; -inf switches a node off.

    Source: Slide 2.
    """

    t: Float[Array, "S d"]
    log_weight: Float[Array, "S"]
