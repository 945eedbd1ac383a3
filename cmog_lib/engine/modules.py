"""Objects of any class as modules, which compiled functions take as arguments; and those that training leaves alone."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from cmog_lib.engine import door
from cmog_lib.engine.door import full_precision
from cmog_lib.engine.door.decoders import is_known
from cmog_lib.engine.objects import Program, taken_apart


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


class Held(eqx.Module):
    """μ, σ = w(t), with a w that training leaves alone."""

    w: Any
    unmovable: tuple[str, ...] = eqx.field(static=True, default=())

    @property
    def latent_dim(self) -> int:
        return self.w.latent_dim

    @property
    def data_dim(self) -> int:
        return self.w.data_dim

    def __call__(self, t: Float[Array, "d"]) -> Any:
        return self.w(t)

    def stands_for(self) -> Any:
        """The decoder itself, of its own class."""
        return self.w.stands_for() if isinstance(self.w, Plain) else self.w


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
