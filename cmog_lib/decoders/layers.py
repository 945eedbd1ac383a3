"""The two kinds of network behind the decoders: fully connected, and convolutions on a picture that grows."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key


def linear_layer(n_in: int, n_out: int, key: Key[Array, ""]) -> eqx.nn.Linear:
    """`eqx.nn.Linear(n_in, n_out, key=key)`, its numbers drawn by `uniform`."""
    blank = eqx.filter_eval_shape(eqx.nn.Linear, n_in, n_out, key=key)
    drawn = [
        jnp.asarray(uniform(k, part.shape, 1 / math.sqrt(n_in)))
        for k, part in zip(jax.random.split(key), (blank.weight, blank.bias), strict=True)
    ]
    return eqx.tree_at(lambda layer: [layer.weight, layer.bias], blank, drawn)


def uniform(key: Key[Array, ""], shape: tuple[int, ...], limit: float = 1.0) -> Any:
    """`jax.random.uniform(key, shape, minval=-limit, maxval=limit)`, on the host, without compiling for every shape.

    JAX computes the n-th number from the key and n alone, so these numbers are the first of a longer row.
    """
    if isinstance(key, jax.core.Tracer):
        return jax.random.uniform(key, shape, minval=-limit, maxval=limit)
    count = math.prod(shape)
    length = 64 ** max(1, math.ceil(math.log(count, 64)))
    return np.asarray(_row(key, length, jnp.asarray(limit, float)))[:count].reshape(shape)


@partial(jax.jit, static_argnames="length")
def _row(key: Key[Array, ""], length: int, limit: Float[Array, ""]) -> Float[Array, "length"]:
    return jax.random.uniform(key, (length,), minval=-limit, maxval=limit)


class Dense(eqx.Module):
    """NN(t) = A_L g(… g(A_1 t + a_1) …) + a_L, with g = gelu, which is smooth: so are the densities built on it.

    sizes: of t, of each hidden layer, of the output. Source: Hendrycks and Gimpel 2016 (gelu).
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
    """NN(t): t to a small picture of many channels, then twice the size and a 3×3 convolution, again and again.

    image_shape: height and width of the picture that comes out as a row [height · width]; any, since what twice the
    size has too much is cut off. width: of the hidden layer before the first picture. channels: of each picture but
    the last, which has one; so there are as many convolutions as numbers here.
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
        # The same spread as the dense layers have: 1/√(numbers that enter), so that no layer starts out louder.
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


def grow_and_convolve(
    a: Float[Array, "h w c_in"], kernel: Float[Array, "3 3 c_in c_out"], shape: tuple[int, int]
) -> Float[Array, "H W c_out"]:
    """out_yx = Σ_ij K_ijᵀ a_{⌊(y+i−1)/2⌋, ⌊(x+j−1)/2⌋}, i, j = 0, 1, 2: every pixel four times, then a 3×3 convolution.

    a: a picture. kernel: K. shape: H and W, at most 2h and 2w. Beyond the edge there are zeros.
    """
    # The channels are mixed before the picture grows, and growing is a matrix: on a processor this is four times as
    # fast as shifted copies and twenty times as fast as XLA's convolution, backward pass included.
    rows, columns = (_grow(n, N) for n, N in zip(a.shape[:2], shape, strict=True))
    mixed = jnp.einsum("hwc,ijce->hwije", a, kernel)
    wide = jnp.einsum("jxw,hwije->hixe", columns.astype(a.dtype), mixed)
    return jnp.einsum("iyh,hixe->yxe", rows.astype(a.dtype), wide)


def _grow(n: int, N: int) -> np.ndarray:
    """[3, N, n]: for each of a kernel's three places, which of n short pixels lies under which of N long ones."""
    long, place = np.arange(N)[None, :, None], np.arange(3)[:, None, None]
    there = long + place - 1
    return (there // 2 == np.arange(n)[None, None]) & (there >= 0) & (there < N)
