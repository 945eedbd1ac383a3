"""The factorised q of a linear decoder: the closed-form update of each coordinate, and what factorising costs."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cmog_lib.bound import expected_log_joint
from cmog_lib.decoders.linear import Linear
from cmog_lib.engine.coordinates import warn_if_moved
from cmog_lib.engine.door import door
from cmog_lib.posteriors import Gaussian


class CoordinateAscent(eqx.Module):
    """What `cavi_linear` went through: q and the bound after every update.

    Update u = 1 … U changes coordinate (u − 1) mod d.

    Attributes:
        q: the last q.
        path: q before the first update and after each, m [U + 1, d].
        bound: [U + 1], L(w, q) at each of them, in nats; it never decreases.
    """

    q: Gaussian
    path: Gaussian
    bound: Float[Array, "updates"]


@door("w:linear-for-cavi x sweeps start:factorised-or-none")
def cavi_linear(
    w: Linear, x: Float[Array, "D"], start: Gaussian | None = None, *, sweeps: int = 100
) -> CoordinateAscent:
    """log q̃_j(t_j) = E_{−j} log p(x,t|w) + const = log N(t_j; (h_j − Σ_{k≠j} P_jk m_k)/P_jj, 1/P_jj), j = 1 … d, again.

    P = I + WᵀΣ₀⁻¹W is the posterior's precision, h = WᵀΣ₀⁻¹(x − b). The updates converge to m = P⁻¹h, the posterior's
    mean, with s_j = P_jj^(−1/2). This s_j is less than the posterior's standard deviation if t_j depends on the others.

    Args:
        w: linear decoder.
        x: [D], one datum.
        start: a q of one datum (default: the prior).
        sweeps: number of sweeps over all d coordinates.

    Returns:
        The last q, and q and the bound after every update.

    Raises:
        ValueError: if w is not a `decoders.Linear`, if shapes do not fit, or if sweeps is below 1.

    Warns:
        RuntimeWarning: if the last sweep still moved an m_j by more than 0.01 s_j.

    Source: Slide 18; Bishop 2006, sections 10.1.1 and 10.1.2.
    """
    if start is None:
        start = Gaussian(jnp.zeros(w.latent_dim, w.W.dtype), jnp.zeros(w.latent_dim, w.W.dtype))
    path, bound = updates(w, x, start, sweeps)
    q = jax.tree.map(lambda part: part[-1], path)
    warn_if_moved(jnp.max(jnp.abs(q.m - path.m[-1 - w.latent_dim]) / q.s), sweeps)
    return CoordinateAscent(q, path, bound)


@door("w:linear-for-cavi")
def factorised_gap(w: Linear) -> Float[Array, ""]:
    """KL(q‖p(t|x,w)) = ½ (Σ_j log P_jj − log det P) at the best factorised q, P = I + WᵀΣ₀⁻¹W; in nats, for every x.

    It is zero if the columns of Σ₀^(−1/2) W are orthogonal. If W is rotated away from there, log p(x|w) stays constant
    and L(w, q) decreases by this amount.

    Args:
        w: linear decoder.

    Returns:
        [], nats.

    Raises:
        ValueError: if w is not a `decoders.Linear`.

    Source: Slide 18.
    """
    P = precision(w)
    return 0.5 * (jnp.sum(jnp.log(jnp.diagonal(P))) - jnp.linalg.slogdet(P)[1])


@eqx.filter_jit
def updates(w: Linear, x: Array, start: Gaussian, sweeps: int) -> tuple[Gaussian, Array]:
    """m_j ← (h_j − Σ_{k≠j} P_jk m_k)/P_jj, s_j ← P_jj^(−1/2), j = 1 … d in turn: q and L(w, q) after every update.

    Args:
        w: linear decoder.
        x: [D], one datum.
        start: q before the first update.
        sweeps: number of sweeps over all d coordinates.

    Returns:
        q before the first update and after each, m [U + 1, d], and their bounds [U + 1], in nats.
    """
    P, h = precision(w), (w.W / w.sigma[:, None]).T @ ((x - w.b) / w.sigma)

    def update(q: Gaussian, j: Array) -> tuple[Gaussian, Gaussian]:
        others = P[j] @ q.m - P[j, j] * q.m[j]
        q = Gaussian(q.m.at[j].set((h[j] - others) / P[j, j]), q.log_s.at[j].set(-0.5 * jnp.log(P[j, j])))
        return q, q

    _, after = jax.lax.scan(update, start, jnp.tile(jnp.arange(w.latent_dim), sweeps))
    path = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, after)
    return path, jax.vmap(lambda q: expected_log_joint(w, q, x) + q.entropy)(path)


def precision(w: Linear) -> Float[Array, "d d"]:
    """P = I + WᵀΣ₀⁻¹W, that of p(t|x,w)."""
    scaled = w.W / w.sigma[:, None]
    return jnp.eye(w.latent_dim, dtype=w.W.dtype) + scaled.T @ scaled
