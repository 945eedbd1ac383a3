"""What a decoder is, and how a decoder of any class enters a compiled function."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Float

from cmog_lib.engine import door
from cmog_lib.engine.door import full_precision
from cmog_lib.engine.modules import traced


@runtime_checkable
class Decoder(Protocol):
    """p(x|t,w) = N(μ(t,w), diag σ²(t,w)): the interface that every function of the library expects of a model.

    A call `mu, sigma = w(t)` maps t [d] to μ [D] and σ [D]; `sigma` is a standard deviation.

    Attributes:
        latent_dim: d.
        data_dim: D.

    Source: Slides 7–9.
    """

    @property
    def latent_dim(self) -> int: ...

    @property
    def data_dim(self) -> int: ...

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]: ...


W = TypeVar("W", bound=Decoder)  # for functions that return a decoder of the class that they were given


@full_precision
def as_module(w: Decoder) -> Any:
    """The same decoder t ↦ μ(t), σ(t), in a form that a jitted function takes as an argument.

    A decoder of the library is returned as it is. An object of any other class is traced, which costs as much as a
    call: everything that it reads, in attributes, globals and closures, is an argument of a compiled function or is
    compared. Its parameters are the floating-point arrays in its attributes and in those of its parts. An array with
    which NumPy or Python computes is a constant.

    Args:
        w: decoder.

    Returns:
        The decoder as a module, its arrays in the session's precision.

    Raises:
        ValueError: if w is not a decoder.
    """
    try:
        module = traced(w, "latent_dim")
    except Exception:  # whatever a class written in a notebook may raise
        door.decoder(w)  # says it in the library's words
        raise
    return door.decoder(module)
