"""q(t|x): one network that maps each datum to its approximate posterior, in place of one optimisation per datum."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.decoders.layers import Dense
from cmog_lib.engine import door
from cmog_lib.engine.convolutions import halve_and_convolve
from cmog_lib.engine.door import full_precision
from cmog_lib.engine.encoders import checked, finite
from cmog_lib.engine.weights import uniform
from cmog_lib.posteriors import Gaussian

__all__ = ["CNN", "MLP", "Encoder", "Linear", "as_module", "encoded"]


@runtime_checkable
class Encoder(Protocol):
    """q(t|x) = N(t; m(x), diag s²(x)): x [D] ↦ a `posteriors.Gaussian` over t [d], s a standard deviation.

    An encoder is any object with these two attributes and this call.

    Attributes:
        latent_dim: d.
        data_dim: D.
    """

    @property
    def latent_dim(self) -> int: ...

    @property
    def data_dim(self) -> int: ...

    def __call__(self, x: Float[Array, "D"]) -> Gaussian: ...


E = TypeVar("E", bound=Encoder)  # for functions that return an encoder of the class that they were given


class Linear(eqx.Module):
    """m(x) = V(x − a), s(x) = s: a linear encoder, which is sufficient for a linear decoder.

    Attributes:
        V: [d, D].
        a: [D].
        log_s: [d], the same for every x, like the posterior's covariance in PPCA.

    Raises:
        ValueError: if their shapes do not fit.
    """

    V: Float[Array, "d D"]
    a: Float[Array, "D"]
    log_s: Float[Array, "d"]

    def __init__(self, V: Array, a: Array, log_s: Array) -> None:
        self.V = door.array("V", V, ("d", "D"))
        d, D = self.V.shape
        self.a, self.log_s = door.array("a", a, (D,)), door.array("log_s", log_s, (d,))

    @property
    def latent_dim(self) -> int:
        return self.V.shape[0]

    @property
    def data_dim(self) -> int:
        return self.V.shape[1]

    @full_precision
    def __call__(self, x: Float[Array, "D"]) -> Gaussian:
        return Gaussian(self.V @ (x - self.a), self.log_s)


class MLP(eqx.Module):
    """(m(x), log s(x)) = NN(x): a fully connected network, the mirror of `decoders.MLP`.

    Args:
        data_dim: D.
        latent_dim: d.
        width: of each hidden layer.
        depth: number of hidden layers.
        key: random key for the initial weights.

    Raises:
        ValueError: if a size is not a positive integer, or the key is untyped.
    """

    nn: Dense
    latent_dim: int = eqx.field(static=True)
    data_dim: int = eqx.field(static=True)

    def __init__(
        self, data_dim: int, latent_dim: int, *, width: int = 128, depth: int = 2, key: Key[Array, ""]
    ) -> None:
        self.data_dim = door.count("data_dim", data_dim)
        self.latent_dim = door.count("latent_dim", latent_dim)
        hidden = (door.count("width", width),) * door.count("depth", depth)
        self.nn = Dense((self.data_dim, *hidden, 2 * self.latent_dim), key=door.key(key))

    @full_precision
    def __call__(self, x: Float[Array, "D"]) -> Gaussian:
        return Gaussian(*jnp.split(self.nn(x), 2))


class CNN(eqx.Module):
    """(m(x), log s(x)) = CNN(x): images of half the size and more channels, then two layers; cf. `decoders.CNN`.

    Args:
        image_shape: height and width; a datum is the image row by row.
        latent_dim: d.
        channels: number of channels of each smaller image.
        width: of the hidden layer after the last of them.
        key: random key for the initial weights.

    Raises:
        ValueError: if a size is not a positive integer, or the key is untyped.
    """

    kernels: tuple[Float[Array, "2 2 c_in c_out"], ...]
    biases: tuple[Float[Array, "c_out"], ...]
    dense: Dense
    latent_dim: int = eqx.field(static=True)
    image_shape: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        image_shape: tuple[int, int],
        latent_dim: int,
        *,
        channels: tuple[int, ...] = (16, 32),
        width: int = 64,
        key: Key[Array, ""],
    ) -> None:
        height, breadth = door.sizes("image_shape", image_shape, 2)
        channels = door.sizes("channels", channels)
        self.image_shape, self.latent_dim = (height, breadth), door.count("latent_dim", latent_dim)
        key_dense, *keys = jax.random.split(door.key(key), len(channels) + 1)
        self.kernels = tuple(
            jnp.asarray(uniform(key, (2, 2, c_in, c_out))) / np.sqrt(4 * c_in)
            for key, c_in, c_out in zip(keys, (1, *channels), channels, strict=False)
        )
        self.biases = tuple(jnp.zeros(c) for c in channels)
        for _ in channels:
            height, breadth = -(-height // 2), -(-breadth // 2)
        last = (height * breadth * channels[-1], door.count("width", width), 2 * self.latent_dim)
        self.dense = Dense(last, key=key_dense)

    @property
    def data_dim(self) -> int:
        return self.image_shape[0] * self.image_shape[1]

    @full_precision
    def __call__(self, x: Float[Array, "D"]) -> Gaussian:
        a = x.reshape(*self.image_shape, 1)
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            a = jax.nn.gelu(halve_and_convolve(a, kernel) + bias[None, None])
        return Gaussian(*jnp.split(self.dense(a.reshape(-1)), 2))


def as_module(encoder: Any, w: Any = None) -> Any:
    """The same encoder x ↦ q(t|x), in a form that a jitted function takes as an argument; see `decoders.as_module`.

    Args:
        encoder: any object with latent_dim, data_dim and q = encoder(x).
        w: the decoder that it must fit, if there is one.

    Returns:
        The encoder as a pytree.

    Raises:
        ValueError: if a part is missing or does not fit, naming it.
    """
    return checked(encoder, w)


@door.door("encoder X")
@finite
@eqx.filter_jit
def encoded(encoder: Any, X: Float[Array, "N D"]) -> Gaussian:
    """q(t|x_i) for all data at once.

    Args:
        encoder: x ↦ q(t|x).
        X: [N, D], data.

    Returns:
        A `Gaussian` with m and log_s [N, d].

    Raises:
        ValueError: if the data do not fit the encoder, or m or log s is not finite, naming the datum.
    """
    return jax.vmap(encoder)(X)
