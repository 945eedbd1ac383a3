"""Bounds on log p(x|w) by draws from q, in any latent dimension: L(w, q), and the importance-weighted ones above it."""

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
    w: Decoder, q: Gaussian | FullGaussian, x: Float[Array, "D"], M: int, *, key: Key[Array, ""]
) -> Float[Array, ""]:
    """L(w,q) ≈ 1/M Σ_s [log p(x,t_s|w) − log q(t_s)], t_s ~ q: the bound by draws, in nats; any latent dimension.

    w: decoder. q: a Gaussian over t [d]. x: [D], one datum. M: how many draws. Its expectation is L(w,q); where q is
    the true posterior every draw is log p(x|w), without noise.
    Raises ValueError when the shapes do not fit, M < 1, or the key is not a typed one. Slides 12 and 15.
    """
    return jnp.mean(jax.vmap(lambda t: log_p_xt(w, x, t) - q.log_q(t))(q.sample(M, key=key)))


@door("w x:x-or-X q:drawn-for-each M key")
def log_weights(
    w: Decoder, q: Gaussian | FullGaussian, x: Float[Array, "*batch D"], M: int, *, key: Key[Array, ""]
) -> Float[Array, "*batch M"]:
    """log p(x,t_s|w)/q(t_s), t_s ~ q(t), s = 1 … M: the logarithms of the importance weights, in nats.

    w: decoder. q: a Gaussian over t [d], or one for each datum. x: [D], one datum, or [N, D]. M: draws for each datum.
    Their mean is L(w,q), the logarithm of the mean weight `importance`; where q is the true posterior all are
    log p(x|w). With the same key, the first of many are those of few: one call serves every M below.
    Raises ValueError when the shapes do not fit, M < 1, or the key is not a typed one, and where a weight is NaN,
    naming the datum and the draw.
    """
    return draws.log_weights(w, q, x, M, key)


@door("w x:x-or-X q:drawn-for-each M key")
def importance(
    w: Decoder, q: Gaussian | FullGaussian, x: Float[Array, "*batch D"], M: int, *, key: Key[Array, ""]
) -> Float[Array, "*batch"]:
    """log 1/M Σ_s p(x,t_s|w)/q(t_s), t_s ~ q(t): the importance-weighted bound, in nats; for M = 1 in the mean L(w,q).

    Arguments and errors as in `log_weights`. In expectation it never falls with M, never exceeds log p(x|w) and ends
    there. Memory does not grow with N M: 256 draws of one datum are decoded at a time.
    Warns (RuntimeWarning) where for half of the data one draw of a hundred or more outweighs all others, or all weights
    are 0: q is not where p(t|x,w) is, or too wide. (A mode that no draw saw goes unseen.)
    Source: Burda, Grosse and Salakhutdinov 2016, equation 8.
    """
    return draws.importance(w, q, x, M, key)
