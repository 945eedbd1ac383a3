"""What of a datum a decoder can tell: its part in the space that the last layer spans, and no more."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib.decoders.contract import Decoder
from cmog_lib.decoders.layers import Dense
from cmog_lib.decoders.linear import is_linear
from cmog_lib.decoders.networks import MLP, Zero
from cmog_lib.engine.door import door
from cmog_lib.engine.threads import one_blas_thread


class Projected(eqx.Module):
    """μ(t) = R h(t), h(t) = g(… g(A_1 t + a_1) …), σ = 1: the k coordinates that a last layer reaches, in units of σ.

    hidden: A_l and a_l of the layers before the last; none for Linear, where h(t) = t.
    """

    hidden: tuple[tuple[Array, Array], ...]
    R: Float[Array, "k width"]
    latent_dim: int = eqx.field(static=True)

    @property
    def data_dim(self) -> int:
        return self.R.shape[-2]

    def __call__(self, t: Float[Array, "d"]) -> tuple[Float[Array, "k"], Float[Array, "k"]]:
        # Rows times matrices: of many rows XLA makes one product then, and need not turn what comes out of it.
        for A, a in self.hidden:
            t = jax.nn.gelu(t @ A.T + a)
        mu = t @ self.R.T
        return mu, jnp.ones_like(mu)


@door("w:decoder X")
def projected(w: Decoder, X: Float[Array, "N D"]) -> tuple[Any, Float[Array, "N k"], Float[Array, "N"]]:
    """log N(x; Wh(t) + b, diag σ²) = log N(Qᵀ(x − b)/σ; R h(t), I) + constant(x), where diag(σ)⁻¹W = QR.

    w: decoder. X: [N, D], data. Returns a decoder, its data [N, k] and the constant [N], in nats: no t is in it, so
    that p(t|x,w) is theirs too, at k/D of the price of the last layer; k is the width of that layer, d for Linear.
    It applies to Linear, and to an MLP with constant_sigma, where D is more than k. Any other w comes back as it is,
    with X and 0; so does one without values, inside `jit` or `grad`, since it may be w that is differentiated there.
    Raises ValueError for data that are not finite or not the decoder's.
    """
    known = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(w))
    if not known or (parts := _parts(w)) is None:
        return w, X, jnp.zeros(len(X), X.dtype)
    with one_blas_thread():
        return jax.block_until_ready(_onto(*parts, X))


def projected_inside(w: Any, X: Array) -> tuple[Any, Array]:
    """The decoder and the data of `projected`, inside a compiled function that does not differentiate them."""
    parts = _parts(w)
    return (w, X) if parts is None else _onto(*parts, X)[:2]


def _parts(w: Any) -> tuple[Any, Any, Any, Any, int] | None:
    """W, b and σ of the last layer, A_l and a_l of those before it, and d; None where the projection does not apply."""
    if is_linear(w) and w.data_dim > w.latent_dim:
        return w.W, w.b, w.sigma, (), w.latent_dim
    if type(w) is MLP and type(w.nn1) is Dense and type(w.nn2) is Zero:
        dense: Any = w.nn1  # whose layers all have a bias
        *layers, last = dense.layers
        if w.data_dim > last.weight.shape[1]:
            _, sigma = w(jnp.zeros(w.latent_dim, last.weight.dtype))  # the same at every t
            hidden = tuple((layer.weight, layer.bias) for layer in layers)
            return last.weight, w.b + last.bias, sigma, hidden, w.latent_dim
    return None


@eqx.filter_jit
def _onto(W: Array, b: Array, sigma: Array, hidden: Any, latent_dim: int, X: Array) -> tuple[Projected, Array, Array]:
    Q, R = jnp.linalg.qr(W / sigma[:, None])
    D, k = Q.shape
    X = (X - b[None]) / sigma[None]
    seen = jnp.matmul(X, Q)
    # The square of what is left over, and not |x|² − |Qᵀx|², which cancels.
    unseen = jnp.sum((X - jnp.matmul(seen, Q.T)) ** 2, axis=1)
    # Not Σ_j log σ_j: the rounding of D logarithms that are equal, or nearly, adds up.
    log_sigma = D * jnp.log(sigma[0]) + jnp.sum(jnp.log(sigma / sigma[0]))
    return Projected(hidden, R, latent_dim), seen, -0.5 * unseen - log_sigma - 0.5 * (D - k) * math.log(2 * math.pi)
