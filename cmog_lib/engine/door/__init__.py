"""Errors at the door: what `@door("w X nodes")` checks the arguments of a public function with.

A few functions call a check themselves: constructors, loops over any objective, and checks that depend on a result.

Static facts (shape, dtype, range) are checked always, values (NaN, infinity) wherever they are known: inside
`jit`, `vmap` and `grad` an array has no values yet, and there JAX's own rules hold. What passes is in the session's
precision, float64 with `jax_enable_x64` and float32 without.
"""

from cmog_lib.engine.door.arrays import (
    array,
    log_weights,
    nodes,
    observed,
    on_host,
    one_or_many,
    same,
    scalar,
    variances,
)
from cmog_lib.engine.door.decoders import at_modes, called, decoded, decoder, described, undecoded
from cmog_lib.engine.door.entry import door
from cmog_lib.engine.door.numbers import count, function, key, kind, positive, sizes
from cmog_lib.engine.door.precision import full_precision, in_session
from cmog_lib.engine.door.scales import log_s, lower, of_one
from cmog_lib.engine.door.warning import warn

__all__ = [
    "array",
    "at_modes",
    "called",
    "count",
    "decoded",
    "decoder",
    "described",
    "door",
    "full_precision",
    "function",
    "in_session",
    "key",
    "kind",
    "log_s",
    "log_weights",
    "lower",
    "nodes",
    "observed",
    "of_one",
    "on_host",
    "one_or_many",
    "positive",
    "same",
    "scalar",
    "sizes",
    "undecoded",
    "variances",
    "warn",
]
