"""The decoders of lectures 3 to 7: μ(t) and σ(t) are two networks."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.decoders.layers import Convolutional, Dense
from cmog_lib.engine import door
from cmog_lib.engine.door import full_precision

# Just below 1/(17 √12) = 0.017, the standard deviation of a dequantised digit's pixel within its grey level. Continuous
# data need no smaller σ; rounded data would drive σ to 0 and the likelihood to infinity.
SIGMA_MIN = 0.01


class Zero(eqx.Module):
    """NN₂(t) = 0, so that σ is the same at every t."""

    def __call__(self, t: Float[Array, "d"]) -> Float[Array, ""]:
        return jnp.zeros((), t.dtype)


class MLP(eqx.Module):
    """μ(t) = b + NN₁(t), σ(t) = σ_min + softplus(c + NN₂(t)): two fully connected networks; σ a standard deviation.

    b and c start at 0; `start_at(w, X)` sets them to fit the data.

    Args:
        latent_dim: d.
        data_dim: D.
        width: number of units in each hidden layer.
        depth: number of hidden layers.
        sigma_min: lower bound of σ, in units of the data.
        constant_sigma: whether NN₂ = 0 and c is one learned number, so that σ is the same for all pixels and all t.
        key: random key.

    Attributes:
        nn1: NN₁.
        nn2: NN₂.
        b: [D], offset of μ.
        c: [D], offset of σ before softplus; [] with constant_sigma.

    Raises:
        ValueError: if a size is not a positive integer, if sigma_min is not positive, or if key is not a typed key.

    Source: Slides 5–9.
    """

    nn1: Dense
    nn2: Dense | Zero
    b: Float[Array, "D"]
    c: Float[Array, "D"] | Float[Array, ""]
    sigma_min: Float[Array, ""]
    latent_dim: int = eqx.field(static=True)
    data_dim: int = eqx.field(static=True)

    def __init__(
        self,
        latent_dim: int,
        data_dim: int,
        *,
        width: int = 128,
        depth: int = 2,
        sigma_min: Any = SIGMA_MIN,
        constant_sigma: bool = False,
        key: Key[Array, ""],
    ) -> None:
        self.latent_dim = door.count("latent_dim", latent_dim)
        self.data_dim = door.count("data_dim", data_dim)
        hidden = (door.count("width", width),) * door.count("depth", depth)
        sizes = (self.latent_dim, *hidden, self.data_dim)
        key1, key2 = jax.random.split(door.key(key))
        self.nn1 = Dense(sizes, key=key1)
        self.nn2 = Zero() if constant_sigma else Dense(sizes, key=key2)
        self.b, self.c, self.sigma_min = _offsets(self.data_dim, constant_sigma, sigma_min)

    @full_precision
    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        mu = self.b + self.nn1(t)
        # sigma_min is an array, so another one needs no compilation. It has no gradient, so training leaves it alone.
        sigma = jax.lax.stop_gradient(self.sigma_min) + jax.nn.softplus(self.c + self.nn2(t))
        return mu, jnp.broadcast_to(sigma, mu.shape)


class CNN(eqx.Module):
    """μ(t) = b + CNN₁(t), σ(t) = σ_min + softplus(c + CNN₂(t)): two convolutional networks; σ a standard deviation.

    A datum is the image row by row, D = height · width. b and c start at 0; `start_at(w, X)` sets them to fit the data.

    Args:
        latent_dim: d.
        image_shape: height and width.
        width: number of units in the hidden layer between t and the first, smallest image.
        channels: channels of each image but the last; there is one convolution for each entry.
        sigma_min: lower bound of σ, in units of the data.
        constant_sigma: whether CNN₂ = 0 and c is one learned number, so that σ is the same for all pixels and all t.
        key: random key.

    Attributes:
        nn1: CNN₁.
        nn2: CNN₂.
        b: [D], offset of μ.
        c: [D], offset of σ before softplus; [] with constant_sigma.

    Raises:
        ValueError: if a size is not a positive integer, if sigma_min is not positive, or if key is not a typed key.

    Source: Slides 5–9.
    """

    nn1: Convolutional
    nn2: Convolutional | Zero
    b: Float[Array, "D"]
    c: Float[Array, "D"] | Float[Array, ""]
    sigma_min: Float[Array, ""]
    latent_dim: int = eqx.field(static=True)
    data_dim: int = eqx.field(static=True)
    image_shape: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        latent_dim: int,
        image_shape: tuple[int, int],
        *,
        width: int = 64,
        channels: tuple[int, ...] = (32, 16),
        sigma_min: Any = SIGMA_MIN,
        constant_sigma: bool = False,
        key: Key[Array, ""],
    ) -> None:
        self.latent_dim = door.count("latent_dim", latent_dim)
        height, breadth = door.sizes("image_shape", image_shape, 2)
        self.image_shape, self.data_dim = (height, breadth), height * breadth
        sizes = (
            self.latent_dim,
            self.image_shape,
            door.count("width", width),
            door.sizes("channels", channels),
        )
        key1, key2 = jax.random.split(door.key(key))
        self.nn1 = Convolutional(*sizes, key=key1)
        self.nn2 = Zero() if constant_sigma else Convolutional(*sizes, key=key2)
        self.b, self.c, self.sigma_min = _offsets(self.data_dim, constant_sigma, sigma_min)

    @full_precision
    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        mu = self.b + self.nn1(t)
        sigma = jax.lax.stop_gradient(self.sigma_min) + jax.nn.softplus(self.c + self.nn2(t))
        return mu, jnp.broadcast_to(sigma, mu.shape)


def _offsets(data_dim: int, constant_sigma: bool, sigma_min: Any) -> tuple[Array, Array, Array]:
    # With a type: that of a Python number is weak, and JAX would compile again for the w that training returns.
    floor = jnp.asarray(door.positive("sigma_min", sigma_min), float)
    return jnp.zeros(data_dim), jnp.zeros(() if constant_sigma else data_dim), floor
