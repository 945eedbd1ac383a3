"""q(t): the three forms a posterior over one datum's latents takes in the series."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib import _validate
from cmog_lib.model import LOG_2PI


class Gaussian(eqx.Module):
    """q(t) = ∏_j N(t_j; m_j, s_j²): the factorised Gaussian, s a standard deviation.

    m: [d]. log_s: [d], so that s is positive by construction. Raises ValueError when they do not fit. Slide 19.
    """

    m: Float[Array, "*batch d"]
    log_s: Float[Array, "*batch d"]

    def __check_init__(self) -> None:
        _check("m", self.m)
        _check("log_s", self.log_s, self.m.shape)

    @property
    def s(self) -> Float[Array, "*batch d"]:
        return jnp.exp(self.log_s)

    @property
    def mean(self) -> Float[Array, "*batch d"]:
        return self.m

    @property
    def covariance(self) -> Float[Array, "*batch d d"]:
        return jnp.vectorize(jnp.diag, signature="(d)->(d,d)")(self.s**2)

    @property
    def entropy(self) -> Float[Array, "*batch"]:
        """−E_q log q(t) = Σ_j log s_j + d/2 (1 + log 2π), in nats."""
        return jnp.sum(self.log_s + 0.5 * (1 + LOG_2PI), axis=-1)

    def sample(self, M: int, *, key: Key[Array, ""]) -> Float[Array, "M *batch d"]:
        """t_s = m + s ε_s, ε_s ~ N(0, I), s = 1 … M."""
        noise = jax.random.normal(_validate.key(key), (_validate.count("M", M), *self.m.shape), self.m.dtype)
        return self.m[None] + self.s[None] * noise

    def log_q(self, t: Float[Array, "d"]) -> Float[Array, ""]:
        """log q(t), in nats."""
        t = _validate.array("t", t, self.m.shape)
        return -0.5 * jnp.sum(((t - self.m) / self.s) ** 2 + 2 * self.log_s + LOG_2PI)


class FullGaussian(eqx.Module):
    """q(t) = N(t; m, L Lᵀ): a Gaussian with any covariance, through its Cholesky factor L.

    m: [d]. L: [d, d], lower triangular with a positive diagonal. Raises ValueError when they do not fit.
    """

    m: Float[Array, "*batch d"]
    L: Float[Array, "*batch d d"]

    def __check_init__(self) -> None:
        _check("m", self.m)
        _check("L", self.L, (*self.m.shape, self.m.shape[-1]))

    @property
    def mean(self) -> Float[Array, "*batch d"]:
        return self.m

    @property
    def covariance(self) -> Float[Array, "*batch d d"]:
        return self.L @ jnp.swapaxes(self.L, -1, -2)

    @property
    def entropy(self) -> Float[Array, "*batch"]:
        """−E_q log q(t) = log det L + d/2 (1 + log 2π), in nats."""
        return jnp.sum(jnp.log(jnp.diagonal(self.L, axis1=-2, axis2=-1)) + 0.5 * (1 + LOG_2PI), axis=-1)

    def sample(self, M: int, *, key: Key[Array, ""]) -> Float[Array, "M *batch d"]:
        """t_s = m + L ε_s, ε_s ~ N(0, I), s = 1 … M."""
        noise = jax.random.normal(_validate.key(key), (_validate.count("M", M), *self.m.shape), self.m.dtype)
        return self.m[None] + jnp.einsum("...ij,...j->...i", self.L, noise)

    def log_q(self, t: Float[Array, "d"]) -> Float[Array, ""]:
        """log q(t), in nats."""
        t = _validate.array("t", t, self.m.shape)
        # L⁻¹ has no t in it: of many draws, mapped over t, it is made once, and each costs a small product.
        inverse = jax.scipy.linalg.solve_triangular(self.L, jnp.eye(len(self.m), dtype=self.L.dtype), lower=True)
        standard = inverse @ (t - self.m)
        return -0.5 * jnp.sum(standard**2 + LOG_2PI) - jnp.sum(jnp.log(jnp.diagonal(self.L)))


class Weighted(eqx.Module):
    """E_q f(t) = Σ_s weight_s f(t_s): points with weights that sum to one, from a grid, importance draws or a chain.

    t: [S, d], the points. log_weight: [S], or [N, S] for N data on the same points; the weights are normalised.
    """

    t: Float[Array, "S d"]
    log_weight: Float[Array, "*batch S"]

    def __check_init__(self) -> None:
        S, _ = _validate.array("t", self.t, ("S", "d")).shape
        came = getattr(self.log_weight, "shape", ())
        if came and came[-1] != S:
            raise ValueError(f"log_weight must end in one entry for each of the {S} points of t, got {list(came)}")
        _validate.log_weights("log_weight", self.log_weight, (*came[:-1], S))

    @property
    def weight(self) -> Float[Array, "*batch S"]:
        return jnp.exp(self.log_weight)

    @property
    def mean(self) -> Float[Array, "*batch d"]:
        return self.expect(lambda t: t)

    @property
    def covariance(self) -> Float[Array, "*batch d d"]:
        # Around the mean: E tt^T - mm^T would cancel where the posterior is narrow.
        def around(weight: Array, mean: Array) -> Array:
            deviation = self.t - mean[None]
            return (weight[:, None] * deviation).T @ deviation

        return jnp.vectorize(around, signature="(s),(d)->(d,d)")(self.weight, self.mean)

    def expect(self, f: Callable[[Float[Array, "d"]], Array]) -> Array:
        """E_q f(t) = Σ_s weight_s f(t_s), for f of one latent point; f may return an array of any shape."""
        return jnp.tensordot(self.weight, jax.vmap(_validate.function("f", f))(self.t), axes=1)


def _check(name: str, value: Array, shape: tuple[int, ...] | None = None) -> None:
    """A posterior's part, one or a batch of them: floats, finite, at least a vector, and of the shape that fits m."""
    came = getattr(value, "shape", ())
    _validate.array(name, value, ("d",) if not came else tuple("abcdefgh"[: len(came)]))
    if shape is not None and came != shape:
        raise ValueError(f"{name} must be of shape {list(shape)}, which fits m, got {list(came)}")
