"""What a decoder is, and how one of any class enters a compiled function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib import _validate


@runtime_checkable
class Decoder(Protocol):
    """p(x|t,w) = N(μ(t,w), diag σ²(t,w)): what every function of the library asks of a model.

    `sigma` is a standard deviation. Slides 7–10.
    """

    @property
    def latent_dim(self) -> int: ...

    @property
    def data_dim(self) -> int: ...

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]: ...


class Plain(eqx.Module):
    """μ, σ = w(t) for an object of a plain class: its attributes are the arguments of a compiled function.

    So an attribute that changes is seen, and an array among them is an argument and no constant.
    """

    attributes: dict[str, Any]
    kind: type = eqx.field(static=True)
    latent_dim: int = eqx.field(static=True)
    data_dim: int = eqx.field(static=True)

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        # Not through __init__, whose arguments nobody here knows, nor setattr, which a frozen dataclass refuses.
        w: Any = object.__new__(self.kind)
        w.__dict__.update(self.attributes)
        return w(t)


class Opaque(eqx.Module):
    """μ, σ = w(t) for any other callable: compiled functions know it by identity and do not see it change."""

    call: Callable = eqx.field(static=True)
    latent_dim: int = eqx.field(static=True)
    data_dim: int = eqx.field(static=True)

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        return self.call(t)


def as_module(w: Decoder) -> Any:
    """The same decoder t ↦ μ(t), σ(t), in a form that a jitted function takes as an argument.

    w: decoder; an `equinox.Module` is returned as it is. Raises ValueError for anything else that is no decoder.
    """
    if isinstance(w, eqx.Module):
        return w
    _validate.decoder(w)
    if type(w).__new__ is object.__new__ and hasattr(w, "__dict__"):
        plain = Plain(dict(vars(w)), type(w), w.latent_dim, w.data_dim)
        try:  # neither an attribute that has no hash nor NumPy at work on one can enter a jitted function
            hash(tuple(leaf for leaf in jax.tree.leaves(plain) if not eqx.is_array(leaf)))
            eqx.filter_eval_shape(lambda w, t: w(t), plain, jnp.zeros(w.latent_dim))
            return plain
        except (TypeError, jax.errors.JAXTypeError):
            pass
    return Opaque(w.__call__, w.latent_dim, w.data_dim)
