"""Data with a known truth or origin: real images, and synthetic x with known latents t and decoder w."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cmog_lib import _mnist
from cmog_lib.engine import door


class Images(eqx.Module):
    """X: [N, D], images as rows with grey values from 0 to 1; X[i].reshape(image_shape) is a picture.

    Attributes:
        X: [N, D], grey values from 0 to 1.
        labels: [N], the classes.
        image_shape: height and width of a picture.
        levels: number of grey values, which states how finely the pixels were rounded.
    """

    X: Float[Array, "N D"]
    labels: Int[Array, "N"]
    image_shape: tuple[int, int] = eqx.field(static=True)
    levels: int = eqx.field(static=True)


class Truth(eqx.Module):
    """p(x|t,w) = N(μ(t), σ² I) with a given μ: the decoder from which synthetic data are drawn.

    Every function of the library that takes a decoder takes this one.

    Attributes:
        mu: the function μ(t).
        log_sigma: log σ; sigma = σ is a standard deviation.
        latent_dim: d.
        data_dim: D.
    """

    mu: Callable = eqx.field(static=True)
    log_sigma: Float[Array, ""]
    latent_dim: int = eqx.field(static=True)
    data_dim: int = eqx.field(static=True)

    @property
    def sigma(self) -> Float[Array, ""]:
        return jnp.exp(self.log_sigma)

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        return self.mu(t), jnp.broadcast_to(self.sigma, (self.data_dim,))


class Synthetic(eqx.Module):
    """Synthetic data x ~ p(x|t,w) with the truth from which they were drawn.

    Attributes:
        X: [N, D], data.
        t: [N, d], the latents of the data.
        w: the decoder from which the data were drawn.
    """

    X: Float[Array, "N D"]
    t: Float[Array, "N d"]
    w: Truth


Data = TypeVar("Data", Images, Synthetic)


def split(data: Data, n_held_out: int, *, key: Key[Array, ""]) -> tuple[Data, Data]:
    """Training data and n_held_out held-out data, at random without replacement; the same key gives the same split.

    Args:
        data: Images or Synthetic.
        n_held_out: number of held-out data, 1 to N − 1.
        key: a typed key.

    Returns:
        The training data and the held-out data.

    Raises:
        ValueError: if n_held_out is not from 1 to N − 1, and for data that are neither Images nor Synthetic.
    """
    N = door.kind("data", data, Images, Synthetic).X.shape[0]
    n_held_out = door.count("n_held_out", n_held_out, 1, N - 1, "both parts need data")
    order = np.asarray(jax.random.permutation(door.key(key), N))
    per_datum = ("X", "labels") if isinstance(data, Images) else ("X", "t")

    def part(rows: np.ndarray) -> Data:  # chosen by NumPy, which compiles nothing for these sizes
        chosen: dict[str, Any] = {name: jnp.asarray(np.asarray(getattr(data, name))[rows]) for name in per_datum}
        return dataclasses.replace(data, **chosen)

    return part(order[n_held_out:]), part(order[:n_held_out])


def dequantise(images: Images, *, key: Key[Array, ""]) -> Images:
    """x = (k + u) / levels, u ~ U(0, 1), for a pixel that was rounded to k = 0 … levels − 1: undoes the rounding.

    A density of rounded numbers can become infinite as σ shrinks around them. For dequantised ones it cannot, and its
    mean log p(x) is a lower bound on the log-probability of the rounded image, up to the constant D log levels.

    Args:
        images: the images.
        key: a typed key.

    Returns:
        The images with new X.

    Raises:
        ValueError: for anything but Images.

    Source: Theis, van den Oord and Bethge 2016, section 3.1.
    """
    door.kind("images", images, Images)
    u = np.asarray(jax.random.uniform(door.key(key), images.X.shape, images.X.dtype))
    return dataclasses.replace(images, X=jnp.asarray(np.asarray(images.X) * (images.levels - 1) + u) / images.levels)


def digits() -> Images:
    """1797 real images of handwritten digits, 8 × 8, from scikit-learn's own files: no download.

    Returns:
        The images, with X [1797, 64] in [0, 1].

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (1998).
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    return Images(jnp.asarray(raw.data / 16, float), jnp.asarray(raw.target, int), (8, 8), levels=17)


def mnist(split: str = "train", *, download: bool = False) -> Images:
    """60000 ("train") or 10000 ("test") real images of handwritten digits, 28 × 28.

    Looks for the files in the folder named by CMOG_DATA_DIR (mnist/*-ubyte.gz), then in the system's cache folder. The
    SHA-256 of their contents is checked each time.

    Args:
        split: "train" or "test".
        download: fetch missing files (11 MB for both splits, once, into the cache).

    Returns:
        The images, with X [N, 784] in [0, 1].

    Raises:
        ValueError: for an unknown split or a file that is not the official one.
        FileNotFoundError: if a file is missing and download is False.
        ConnectionError: if no mirror answers.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database (1998).
    """
    if split not in tuple(_mnist.PREFIX):
        raise ValueError(f"split must be one of {', '.join(map(repr, _mnist.PREFIX))}, got {split!r}")
    images, labels = _mnist.read(split, download)
    X = images.reshape(len(images), -1).astype(jnp.result_type(float)) / 255
    return Images(jnp.asarray(X), jnp.asarray(labels, int), (28, 28), levels=256)


def curve(n: int, sigma: float = 0.1, *, key: Key[Array, ""]) -> Synthetic:
    """x = (t, sin 2t) + σε, t ~ N(0, 1): a thick wave in the plane, one latent dimension.

    Args:
        n: number of data.
        sigma: standard deviation of the noise.
        key: a typed key.

    Returns:
        The data with their latents and their decoder.

    Raises:
        ValueError: if n or sigma is not positive.

    Source: Slide 3.
    """
    return _draw(_on_curve, 1, 2, n, sigma, key)


def spiral(n: int, sigma: float = 0.05, *, key: Key[Array, ""]) -> Synthetic:
    """x = r (cos θ, sin θ) + σε, r = ¼ + ¾Φ(t), θ = 3πΦ(t), t ~ N(0, 1): one and a half turns, one latent dimension.

    Φ is the standard normal distribution function, which spreads the data evenly over the angle.

    Args:
        n: number of data.
        sigma: standard deviation of the noise.
        key: a typed key.

    Returns:
        The data with their latents and their decoder.

    Raises:
        ValueError: if n or sigma is not positive.

    Source: Slide 3.
    """
    return _draw(_on_spiral, 1, 2, n, sigma, key)


def swiss_roll(n: int, sigma: float = 0.05, *, key: Key[Array, ""]) -> Synthetic:
    """x = (r cos θ, 2Φ(t₂) − 1, r sin θ) + σε, r = (1 + 2Φ(t₁))/3, θ = 4.5πr, t ~ N(0, I): two latent dimensions.

    Φ is the standard normal distribution function, which spreads the data evenly over the angle and the height.

    Args:
        n: number of data.
        sigma: standard deviation of the noise.
        key: a typed key.

    Returns:
        The data with their latents and their decoder.

    Raises:
        ValueError: if n or sigma is not positive.

    Source: Slide 3.
    """
    return _draw(_on_swiss_roll, 2, 3, n, sigma, key)


# μ(t) of the three. They are module-level functions: compiled functions are cached by μ, and a new μ at each call
# would compile each time.
def _on_curve(t: Array) -> Array:
    return jnp.stack([t[0], jnp.sin(2 * t[0])])


def _phi(t: Array) -> Array:
    # Φ(t) by erf: importing jax.scipy.special would cost a third of what the whole library does.
    return 0.5 * (1 + jax.lax.erf(t / 2**0.5))


def _on_spiral(t: Array) -> Array:
    u = _phi(t[0])
    return (0.25 + 0.75 * u) * jnp.stack([jnp.cos(3 * jnp.pi * u), jnp.sin(3 * jnp.pi * u)])


def _on_swiss_roll(t: Array) -> Array:
    r = (1 + 2 * _phi(t[0])) / 3
    return jnp.stack([r * jnp.cos(4.5 * jnp.pi * r), 2 * _phi(t[1]) - 1, r * jnp.sin(4.5 * jnp.pi * r)])


def _draw(mu: Callable, latent_dim: int, data_dim: int, n: int, sigma: float, key: Array) -> Synthetic:
    """t ~ N(0, I), then x = μ(t) + σε."""
    n, sigma = door.count("n", n), door.positive("sigma", sigma)
    key_t, key_x = jax.random.split(door.key(key))
    w = Truth(mu, jnp.log(jnp.asarray(sigma, float)), latent_dim, data_dim)
    t = jax.random.normal(key_t, (n, latent_dim))
    return Synthetic(jax.vmap(mu)(t) + w.sigma * jax.random.normal(key_x, (n, data_dim)), t, w)
