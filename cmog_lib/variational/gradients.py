"""Two roads to ∇L(w, q) by draws: through the density q(t) that is drawn from, and through the draw t itself."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import door
from cmog_lib.model import log_p_xt
from cmog_lib.posteriors import Gaussian


class Gradient(eqx.Module):
    """∂L/∂m and ∂L/∂log s, [M, d] each: a row for each draw, every row with the same expectation."""

    m: Float[Array, "M d"]
    log_s: Float[Array, "M d"]


@door("w:decoder x q:factorised M key")
def score_function(w: Decoder, q: Gaussian, x: Float[Array, "D"], M: int, *, key: Key[Array, ""]) -> Gradient:
    """∇L(w,q) = E_q [log p(x,t|w) − log q(t)] ∇ log q(t) ≈ 1/M Σ_s, t_s ~ q: asks of p only its value at t_s.

    w: decoder. q: a Gaussian over t [d]. x: [D], one datum. M: draws. Returns one estimate a draw; take their mean.
    It does not see which way log p rises, only how high it is, and so it is noisy.
    Raises ValueError when the shapes do not fit, M < 1, or the key is not a typed one. Slide 19, past it.
    Source: Williams 1992; Ranganath, Gerrish and Blei 2014.
    """

    def one(t: Array) -> Gaussian:
        height = log_p_xt(w, x, t) - q.log_q(t)
        return jax.tree.map(lambda slope: height * slope, jax.grad(lambda q: q.log_q(t))(q))

    rows = jax.vmap(one)(q.sample(M, key=key))
    return Gradient(rows.m, rows.log_s)


@door("w:decoder x q:factorised M key")
def reparameterised(w: Decoder, q: Gaussian, x: Float[Array, "D"], M: int, *, key: Key[Array, ""]) -> Gradient:
    """∇L(w,q) = E_ε ∇[log p(x, m + s ε|w) − log q(m + s ε)] ≈ 1/M Σ_s, ε_s ~ N(0, I): asks of p its slope at t_s.

    Arguments, what is returned and errors as in `score_function`, with the same draws for the same key.
    Source: Kingma and Welling 2014; Rezende, Mohamed and Wierstra 2014.
    """
    noise = (q.sample(M, key=key) - q.m[None]) / q.s[None]

    def one(noise: Array) -> Gaussian:
        def height(q: Gaussian) -> Array:
            t = q.m + q.s * noise
            return log_p_xt(w, x, t) - q.log_q(t)

        return jax.grad(height)(q)

    rows = jax.vmap(one)(noise)
    return Gradient(rows.m, rows.log_s)
