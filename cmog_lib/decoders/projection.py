"""What of a datum a decoder can tell: its part in the space that the last layer spans, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cmog_lib.decoders.contract import Decoder
from cmog_lib.decoders.linear import Linear
from cmog_lib.decoders.networks import MLP, Nothing

LOG_2PI = float(np.log(2 * np.pi))


class Projected(eqx.Module):
    """μ(t) = R h(t), σ = 1: a decoder in the k coordinates that its last layer can reach, in units of σ."""

    R: Float[Array, "k width"]
    h: Callable[[Array], Array]
    latent_dim: int = eqx.field(static=True)

    @property
    def data_dim(self) -> int:
        return self.R.shape[-2]

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "k"], Float[Array, "k"]]:
        mu = self.R @ self.h(t)
        return mu, jnp.ones_like(mu)


def projected(w: Decoder, X: Float[Array, "N D"]) -> tuple[Any, Float[Array, "N k"], Float[Array, "N"]]:
    """log N(x; Wh(t) + b, diag σ²) = log N(Qᵀ(x − b)/σ; R h(t), I) + constant(x), where diag(σ)⁻¹W = QR.

    w: decoder. X: [N, D], data. Returns a decoder, its data [N, k] and the constant [N], in nats: no t is in it, so
    that p(t|x,w) is theirs too, at k/D of the price of the last layer; k is the width of that layer, d for Linear.
    It applies to Linear, and to an MLP with constant_sigma, where D is more than k. Any other w comes back as it is,
    with X and 0; so does one without values, inside `jit` or `grad`, since it may be w that is differentiated there.
    """
    known = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(w))
    # Exactly these classes: one derived from them may decode otherwise.
    if known and type(w) is Linear and w.data_dim > w.latent_dim:
        return _onto(w.W, w.b, w.sigma, X, h=_itself, latent_dim=w.latent_dim)
    if known and type(w) is MLP and isinstance(w.nn2, Nothing):
        last = w.nn1.layers[-1]
        if w.data_dim > last.weight.shape[1]:
            _, sigma = w(jnp.zeros(w.latent_dim, last.weight.dtype))  # the same at every t
            b = w.b if last.bias is None else w.b + last.bias
            return _onto(last.weight, b, sigma, X, h=w.nn1.hidden, latent_dim=w.latent_dim)
    return w, X, jnp.zeros(len(X), X.dtype)


def _onto(W: Array, b: Array, sigma: Array, X: Array, h: Any, latent_dim: int) -> tuple[Projected, Array, Array]:
    # In double precision whatever the session's: rounded once, Q keeps the length of what it projects, and D equal
    # logarithms do not add up D equal errors.
    s = np.asarray(sigma, np.float64)
    Q, R = np.linalg.qr(np.asarray(W, np.float64) / s[:, None])
    D, k = Q.shape
    normaliser = float(-np.log(s).sum() - 0.5 * (D - k) * LOG_2PI)
    seen, unseen = _split(jnp.asarray(Q, X.dtype), (X - b[None]) / sigma[None])
    return Projected(jnp.asarray(R, W.dtype), h, latent_dim), seen, normaliser - 0.5 * unseen


@eqx.filter_jit
def _split(Q: Array, X: Array) -> tuple[Array, Array]:
    seen = jnp.matmul(X, Q, precision="highest")
    # The square of what is left over, and not |x|² − |Qᵀx|², which cancels.
    return seen, jnp.sum((X - jnp.matmul(seen, Q.T, precision="highest")) ** 2, axis=1)


def _itself(t: Array) -> Array:
    return t
