"""Two estimates of ∇L(w, q) from draws: through the density q(t), and through the draw t itself."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import door
from cmog_lib.model import log_p_xt
from cmog_lib.posteriors import Gaussian


class Gradient(eqx.Module):
    """∂L/∂m and ∂L/∂log s, estimated by each of M draws.

    Every row is one estimate; all rows have the same expectation.

    Attributes:
        m: [M, d], ∂L/∂m.
        log_s: [M, d], ∂L/∂log s.
    """

    m: Float[Array, "M d"]
    log_s: Float[Array, "M d"]


@door("w:decoder x q:factorised M key")
def score_function(w: Decoder, q: Gaussian, x: Float[Array, "D"], *, M: int, key: Key[Array, ""]) -> Gradient:
    """∇L(w,q) = E_q [log p(x,t|w) − log q(t)] ∇ log q(t) ≈ 1/M Σ_s, t_s ~ q: needs only the value of p at t_s.

    The estimate uses only the height of log p, not the direction in which it rises, and is therefore noisy.

    Args:
        w: decoder.
        q: a Gaussian over t [d].
        x: [D], one datum.
        M: number of draws.
        key: random key.

    Returns:
        One estimate for each draw; take their mean.

    Raises:
        ValueError: if shapes do not fit, if M < 1, or if key is not a typed key.

    Source: after Slide 19; Williams 1992; Ranganath, Gerrish and Blei 2014.
    """

    def one(t: Array) -> Gaussian:
        height = log_p_xt(w, x, t) - q.log_q(t)
        return jax.tree.map(lambda slope: height * slope, jax.grad(lambda q: q.log_q(t))(q))

    rows = jax.vmap(one)(q.sample(M=M, key=key))
    return Gradient(rows.m, rows.log_s)


@door("w:decoder x q:factorised M key")
def reparameterised(w: Decoder, q: Gaussian, x: Float[Array, "D"], *, M: int, key: Key[Array, ""]) -> Gradient:
    """∇L(w,q) = E_ε ∇[log p(x, m + s ε|w) − log q(m + s ε)] ≈ 1/M Σ_s, ε_s ~ N(0, I): needs the slope of p at t_s.

    The same key gives the same draws as in `score_function`.

    Args:
        w: decoder.
        q: a Gaussian over t [d].
        x: [D], one datum.
        M: number of draws.
        key: random key.

    Returns:
        One estimate for each draw; take their mean.

    Raises:
        ValueError: if shapes do not fit, if M < 1, or if key is not a typed key.

    Source: Kingma and Welling 2014; Rezende, Mohamed and Wierstra 2014.
    """
    noise = (q.sample(M=M, key=key) - q.m[None]) / q.s[None]

    def one(noise: Array) -> Gaussian:
        def height(q: Gaussian) -> Array:
            t = q.m + q.s * noise
            return log_p_xt(w, x, t) - q.log_q(t)

        return jax.grad(height)(q)

    rows = jax.vmap(one)(noise)
    return Gradient(rows.m, rows.log_s)
