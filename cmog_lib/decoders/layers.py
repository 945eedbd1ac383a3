"""The two kinds of network behind the decoders: fully connected, and convolutions on an image that grows."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.engine.convolutions import grow_and_convolve
from cmog_lib.engine.weights import linear_layer, uniform


class Dense(eqx.Module):
    """NN(t) = A_L g(… g(A_1 t + a_1) …) + a_L, with g = gelu.

    gelu is smooth, and so are the densities built on it.

    Args:
        sizes: the sizes of t, of each hidden layer and of the output.
        key: random key.

    Attributes:
        layers: A_l and a_l of each layer.

    Source: Hendrycks and Gimpel 2016 (gelu).
    """

    layers: tuple[eqx.nn.Linear, ...]

    def __init__(self, sizes: tuple[int, ...], *, key: Key[Array, ""]) -> None:
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(
            linear_layer(n_in, n_out, key) for n_in, n_out, key in zip(sizes[:-1], sizes[1:], keys, strict=True)
        )

    def __call__(self, t: Float[Array, "d"]) -> Float[Array, "D"]:
        for layer in self.layers[:-1]:
            t = jax.nn.gelu(layer(t))
        return self.layers[-1](t)


class Convolutional(eqx.Module):
    """NN(t): maps t to a small image of many channels, then repeatedly doubles its size and applies a 3×3 convolution.

    The output is the image as a row [height · width]. Any height and width are possible, since extra
    pixels are cut off after doubling.

    Args:
        latent_dim: d.
        image_shape: height and width of the image.
        width: number of units in the hidden layer before the first image.
        channels: channels of each image but the last, which has one channel; there is one convolution for each entry.
        key: random key.

    Attributes:
        dense: the network from t to the first image.
        kernels: [3, 3, c_in, c_out] for each convolution.
        biases: [c_out] for each convolution.
        shapes: height and width of each image, from the first to the last.
    """

    dense: Dense
    kernels: tuple[Float[Array, "3 3 c_in c_out"], ...]
    biases: tuple[Float[Array, "c_out"], ...]
    shapes: tuple[tuple[int, int], ...] = eqx.field(static=True)

    def __init__(
        self,
        latent_dim: int,
        image_shape: tuple[int, int],
        width: int,
        channels: tuple[int, ...],
        *,
        key: Key[Array, ""],
    ) -> None:
        key, *keys = jax.random.split(key, len(channels) + 1)
        height, breadth = image_shape
        halved = [2**k for k in range(len(channels), -1, -1)]
        self.shapes = tuple((-(-height // k), -(-breadth // k)) for k in halved)
        first, breadth = self.shapes[0]
        self.dense = Dense((latent_dim, width, first * breadth * channels[0]), key=key)
        ends = (*channels[1:], 1)
        # The same scale as in the dense layers, 1/√(number of inputs), so that no layer starts with larger outputs.
        self.kernels = tuple(
            jnp.asarray(uniform(key, (3, 3, c_in, c_out))) / np.sqrt(9 * c_in)
            for key, c_in, c_out in zip(keys, channels, ends, strict=True)
        )
        self.biases = tuple(jnp.zeros(c) for c in ends)

    def __call__(self, t: Float[Array, "d"]) -> Float[Array, "D"]:
        a = self.dense(t).reshape(*self.shapes[0], -1)
        for kernel, bias, shape in zip(self.kernels, self.biases, self.shapes[1:], strict=True):
            a = grow_and_convolve(jax.nn.gelu(a), kernel, shape) + bias[None, None]
        return a.reshape(-1)
