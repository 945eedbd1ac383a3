"""Bounds on log p(x|w) by draws from q, in any latent dimension: L(w, q) and the tighter importance-weighted bounds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine import draws
from cmog_lib.engine.door import door
from cmog_lib.model import log_p_xt
from cmog_lib.posteriors import FullGaussian, Gaussian


@door("w:decoder q:drawn x M key")
def lower_bound(
    w: Decoder, q: Gaussian | FullGaussian, x: Float[Array, "D"], *, M: int, key: Key[Array, ""]
) -> Float[Array, ""]:
    """L(w,q) ≈ 1/M Σ_s [log p(x,t_s|w) − log q(t_s)], t_s ~ q: the bound by draws, in nats; any latent dimension.

    The estimate has the expectation L(w,q). If q is the true posterior, every draw gives log p(x|w), without noise.

    Args:
        w: decoder.
        q: a Gaussian over t [d].
        x: [D], one datum.
        M: number of draws.
        key: a typed key.

    Returns:
        A scalar, nats.

    Raises:
        ValueError: if the shapes do not fit, M < 1, or the key is not a typed one.

    Source: Slides 12 and 15.
    """
    return jnp.mean(jax.vmap(lambda t: log_p_xt(w, x, t) - q.log_q(t))(q.sample(M=M, key=key)))


@door("w x:x-or-X q:drawn-for-each M key")
def log_weights(
    w: Decoder, q: Gaussian | FullGaussian, x: Float[Array, "*batch D"], *, M: int, key: Key[Array, ""]
) -> Float[Array, "*batch M"]:
    """log p(x,t_s|w)/q(t_s), t_s ~ q(t), s = 1 … M: the logarithms of the importance weights, in nats.

    The expectation of each is L(w,q); the logarithm of the mean weight is `importance`. If q is the true posterior, all
    are log p(x|w). With the same key, the weights for a smaller M are the first ones for a larger M, so that one call
    serves every smaller M.

    Args:
        w: decoder.
        q: a Gaussian over t [d], or one for each datum.
        x: [D], one datum, or [N, D].
        M: number of draws for each datum.
        key: a typed key.

    Returns:
        [M], or [N, M], nats.

    Raises:
        ValueError: if the shapes do not fit, M < 1, or the key is not a typed one, and if a weight is NaN; the message
            names the datum and the draw.
    """
    return draws.log_weights(w, q, x, M, key)


@door("w x:x-or-X q:drawn-for-each M key")
def importance(
    w: Decoder, q: Gaussian | FullGaussian, x: Float[Array, "*batch D"], *, M: int, key: Key[Array, ""]
) -> Float[Array, "*batch"]:
    """log 1/M Σ_s p(x,t_s|w)/q(t_s), t_s ~ q(t): the importance-weighted bound, in nats; for M = 1 its mean is L(w,q).

    Its expectation never falls as M grows, never exceeds log p(x|w), and converges to it. Memory does not grow with N
    M: 256 draws of one datum are decoded at a time.

    Args:
        w: decoder.
        q: a Gaussian over t [d], or one for each datum.
        x: [D], one datum, or [N, D].
        M: number of draws for each datum.
        key: a typed key.

    Returns:
        A scalar, or [N], nats.

    Raises:
        ValueError: if the shapes do not fit, M < 1, or the key is not a typed one, and if a weight is NaN; the message
            names the datum and the draw.

    Warns:
        RuntimeWarning: if M is at least 100 and for half of the data one draw outweighs all others, or all weights are
            0: q is not where p(t|x,w) is, or it is too wide. A mode that no draw reached causes no warning.

    Source: Burda, Grosse and Salakhutdinov 2016, equation 8.
    """
    return draws.importance(w, q, x, M, key)
