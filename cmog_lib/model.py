"""The one model of the whole series: p(x, t|w) = p(x|t, w) p(t). All logarithms are natural: nats."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import door

LOG_2PI = math.log(2 * math.pi)


@door("t")
def log_p_t(t: Float[Array, "d"]) -> Float[Array, ""]:
    """log p(t) = log N(t; 0, I), in nats.

    Args:
        t: [d], one latent point.

    Returns:
        A scalar, nats.

    Raises:
        ValueError: if t is not a finite vector of floats.

    Source: Slide 2.
    """
    return -0.5 * jnp.sum(t**2 + LOG_2PI)


@door("w:decoder x t")
def log_p_x_given_t(w: Decoder, x: Float[Array, "D"], t: Float[Array, "d"]) -> Float[Array, ""]:
    """log p(x|t,w) = log N(x; μ(t,w), diag σ²(t,w)), in nats.

    Args:
        w: decoder.
        x: [D], one datum.
        t: [d], one latent point.

    Returns:
        A scalar, nats.

    Raises:
        ValueError: if the shapes of x and t do not fit the decoder.

    Source: Slides 3 and 9.
    """
    mu, sigma = w(t)
    return -0.5 * jnp.sum(((x - mu) / sigma) ** 2 + 2 * jnp.log(sigma) + LOG_2PI)


@door("w:decoder x t")
def log_p_xt(w: Decoder, x: Float[Array, "D"], t: Float[Array, "d"]) -> Float[Array, ""]:
    """log p(x,t|w) = log p(x|t,w) + log p(t), in nats.

    Args:
        w: decoder.
        x: [D], one datum.
        t: [d], one latent point.

    Returns:
        A scalar, nats.

    Raises:
        ValueError: if the shapes of x and t do not fit the decoder.

    Source: Slides 3 and 9.
    """
    return log_p_x_given_t(w, x, t) + log_p_t(t)


@door("w:decoder X T")
def log_p_x_given_t_table(w: Decoder, X: Float[Array, "N D"], T: Float[Array, "S d"]) -> Float[Array, "N S"]:
    """log p(x_i|t_k,w) for all data and all latents, in nats: the decoder once per latent, two matrix products.

    Equals `log_p_x_given_t` for every pair: Σ(x−μ)²/σ² is multiplied out into x²·σ⁻² − 2x·(μσ⁻²) + μ²σ⁻².

    Args:
        w: decoder.
        X: [N, D], data.
        T: [S, d], latents.

    Returns:
        [N, S], nats.

    Raises:
        ValueError: if the shapes of X and T do not fit the decoder.

    Source: Slide 9.
    """
    mu, sigma = jax.vmap(lambda t: w(t))(T)
    # The three terms cancel; only x − μ matters, so both are measured from the data's mean, where they are small, and
    # in units of one latent's σ, where no square leaves the range of float32.
    centre, unit = X.mean(axis=0), jax.lax.stop_gradient(sigma[0])
    X, mu = (X - centre[None]) / unit[None], (mu - centre[None]) / unit[None]
    precision = (sigma / unit[None]) ** -2
    quadratic = X**2 @ precision.T - 2 * X @ (mu * precision).T + jnp.sum(mu**2 * precision, axis=1)[None]
    return -0.5 * (quadratic + jnp.sum(2 * jnp.log(sigma) + LOG_2PI, axis=1)[None])


@door("w:decoder n key")
def sample(w: Decoder, n: int, *, key: Key[Array, ""]) -> tuple[Float[Array, "n d"], Float[Array, "n D"]]:
    """t ~ p(t) = N(0, I), then x ~ p(x|t,w) = N(μ(t,w), diag σ²(t,w)): ancestral sampling.

    Args:
        w: decoder.
        n: number of pairs.
        key: a typed key.

    Returns:
        t [n, d] and x [n, D].

    Raises:
        ValueError: if n < 1 or the key is not a typed one.

    Source: Slides 2 and 3.
    """
    key_t, key_x = jax.random.split(key)
    t = jax.random.normal(key_t, (n, w.latent_dim))
    mu, sigma = jax.vmap(lambda t: w(t))(t)
    return t, mu + sigma * jax.random.normal(key_x, mu.shape)
