"""What a decoder is, and how a decoder of any class enters a compiled function."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
from jaxtyping import Array, Float

from cmog_lib.engine import door
from cmog_lib.engine.door import full_precision
from cmog_lib.engine.objects import Program, taken_apart


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


class Constants(eqx.Module):
    """Arrays that training does not change.

    Attributes:
        arrays: the arrays.
        unmovable: names of those that training should change, but cannot.
    """

    arrays: tuple[Array, ...]
    unmovable: tuple[str, ...] = eqx.field(static=True)


class Plain(eqx.Module):
    """μ, σ = w(t), or q = encoder(x), for an object of any class: every array that it reads is an argument.

    Attributes:
        parts: its parameters, the floating-point arrays in its attributes.
        constants: all other arrays that a call reads, global ones among them.
        program: what a call does with both.
        latent_dim: d.
        data_dim: D.
    """

    parts: tuple[Array, ...]
    constants: Constants
    program: Program = eqx.field(static=True)
    latent_dim: int = eqx.field(static=True)
    data_dim: int = eqx.field(static=True)

    @full_precision
    def __call__(self, t: Float[Array, "n"]) -> Any:
        # Traced once more, since the precision may differ here, and evaluated at the constants of this object.
        call, output = self.program.trace(self.parts, t)
        pairs = zip(self.constants.arrays, call.consts, strict=True)
        constants = [new if new.dtype == old.dtype else new.astype(old.dtype) for new, old in pairs]
        leaves = jax.core.eval_jaxpr(call.jaxpr, constants, *self.parts, t)
        return jax.tree.unflatten(jax.tree.structure(output), leaves)

    @property
    def output_shapes(self) -> Any:
        """What a call returns, as shapes. They are known from the trace, so that no check has to trace again."""
        return self.program.output_shapes

    def stands_for(self) -> Any:
        """A copy of the object, of its own class, with these parts."""
        return self.program.rebuilt(self.parts)


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


def traced(f: Any, argument: str) -> Any:
    """A decoder or an encoder as a module.

    Args:
        f: decoder or encoder.
        argument: name of the dimension of its argument, "latent_dim" or "data_dim".

    Returns:
        f in the session's precision if it is made of the library's classes, otherwise a `Plain`.
    """
    if is_known(f):
        return door.in_session(f)
    dims = {name: door.count(name, getattr(f, name)) for name in ("latent_dim", "data_dim")}
    program, moved, constants, unmovable = taken_apart(f, dims[argument])
    return Plain(moved, Constants(constants, unmovable), program, **dims)


def is_known(f: Any) -> bool:
    """Whether f is made of arrays and of classes of this library, which read nothing from elsewhere."""

    def foreign(node: Any) -> bool:
        return isinstance(node, eqx.Module) and type(node).__module__.partition(".")[0] not in ("cmog_lib", "equinox")

    return isinstance(f, eqx.Module) and all(map(eqx.is_array, jax.tree.leaves(f, is_leaf=foreign)))
