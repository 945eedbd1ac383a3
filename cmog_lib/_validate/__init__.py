"""Errors at the door: every public function checks what it is given with these, and with nothing else.

Static facts (shape, dtype, range) are checked always, values (NaN, infinity) wherever they are known: inside
`jit`, `vmap` and `grad` an array has no values yet, and there JAX's own rules hold.
"""

from cmog_lib._validate.arrays import array, log_weights, nodes, on_host, one_or_many, scalar, variances
from cmog_lib._validate.decoders import decoded, decoder
from cmog_lib._validate.numbers import count, function, key, kind, positive, sizes

__all__ = [
    "array",
    "count",
    "decoded",
    "decoder",
    "function",
    "key",
    "kind",
    "log_weights",
    "nodes",
    "on_host",
    "one_or_many",
    "positive",
    "scalar",
    "sizes",
    "variances",
]
