"""Where a posterior is and how wide: what a chain needs to know before it can step well."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder, as_module, projected
from cmog_lib.engine import door, mode
from cmog_lib.engine.door import full_precision
from cmog_lib.model import log_p_xt
from cmog_lib.posteriors import FullGaussian


@full_precision
def laplace(
    w: Decoder, X: Float[Array, "N D"], *, key: Key[Array, ""], starts: int = 64, steps: int = 30
) -> FullGaussian:
    """q_i = N(t_i*, P⁻¹) around a mode t_i* of p(t|x_i,w), P = I + Σ_j (∂μ_j ∂μ_jᵀ + 2 ∂σ_j ∂σ_jᵀ)/σ_j² (Fisher).

    w: decoder, any latent dimension. X: [N, D], data. starts: draws from the prior, of which the likeliest is where a
    datum's climb begins; a draw at which log p(x,t|w) is NaN counts as the least likely. steps: of Fisher scoring, each
    the best of eight halvings. Returns m [N, d] and L [N, d, d].
    Exact for Linear. Of several modes it knows one. A datum costs at most starts + 10 steps decoder evaluations.
    Raises ValueError for data that are not finite or not the decoder's, an untyped key, starts or steps below 1, and
    where w or its slopes are not finite at the place where a datum's climb ended, naming the latent.
    """
    return modes(w, X, key=key, starts=starts, steps=steps)[0]


def modes(
    w: Decoder, X: Float[Array, "N D"], *, key: Key[Array, ""], starts: int = 64, steps: int = 30
) -> tuple[FullGaussian, int]:
    """What `laplace` returns, and how many latents were decoded for it."""
    w = as_module(w)
    told, X, _ = projected(w, door.array("X", X, ("N", w.data_dim)))
    starts, steps = door.count("starts", starts), door.count("steps", steps)
    m, L, log_p, evaluations = _laplace(told, X, door.key(key), starts, steps)
    door.at_modes(w, m, log_p, L)
    return FullGaussian(m, L), int(evaluations)


@eqx.filter_jit
def _laplace(w: Any, X: Array, key: Array, starts: int, steps: int) -> tuple[Array, Array, Array, Array]:
    T = jax.random.normal(key, (starts, w.latent_dim), X.dtype)

    def one(x: Array) -> tuple[Array, Array, Array, Array]:
        likeliest = T[jnp.nanargmax(jax.vmap(lambda t: log_p_xt(w, x, t))(T))]
        t, log_p, decoded = mode.climb(w, x, likeliest, steps)
        return t, mode.scale(w, t), log_p, decoded

    m, L, log_p, decoded = jax.vmap(one)(X)
    return m, L, log_p, starts * len(X) + decoded.sum()


@eqx.filter_jit
def scale_at(w: Any, T: Float[Array, "N d"]) -> Float[Array, "N d d"]:
    """L_i with L_i L_iᵀ = P(t_i)⁻¹: how wide the posterior is around t_i, as far as the decoder's slopes there tell."""
    return jax.vmap(mode.scale, in_axes=(None, 0))(w, T)
