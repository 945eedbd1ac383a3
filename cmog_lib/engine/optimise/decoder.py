"""L-BFGS for a decoder: what is not finite is described by the numbers that the decoder returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from cmog_lib.engine.door import decoded, described
from cmog_lib.engine.optimise.faults import NotFinite, with_facts
from cmog_lib.engine.optimise.faults import T as W
from cmog_lib.engine.optimise.lbfgs import Optimum, maximise

CHECKED = 4096  # latents at which w must be finite before the search begins


def maximise_decoder(
    objective: Callable[[Any, Any], Array],
    w: W,
    data: Any,
    T: Float[Array, "S d"],
    X: Float[Array, "S D"],
    max_steps: int,
) -> Optimum[W]:
    """`maximise(objective, w, data, max_steps=max_steps)`, for a decoder w that stands at latents T beside data X."""
    decoded(w, T[:CHECKED])
    try:
        return maximise(objective, w, data, max_steps=max_steps)
    except NotFinite as error:
        raise with_facts(error, described(error.ascent.w, T, X)) from error
