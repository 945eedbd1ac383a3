"""q(t): the three forms of a posterior over one datum's latents in this series."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.engine import door
from cmog_lib.engine.door import full_precision
from cmog_lib.model import LOG_2PI


class Gaussian(eqx.Module):
    """q(t) = ∏_j N(t_j; m_j, s_j²): the factorised Gaussian, s a standard deviation.

    Attributes:
        m: [d], the mean; a batch of posteriors has more axes in front.
        log_s: of the shape of m, so that s is positive by construction.

    Raises:
        ValueError: if the shapes of m and log_s differ, or if s² is not a positive, finite number in its precision.

    Source: Slide 18.
    """

    m: Float[Array, "*batch d"]
    log_s: Float[Array, "*batch d"]

    def __init__(self, m: Any, log_s: Any) -> None:
        self.m = door.array("m", m, (..., "d"))
        self.log_s = door.log_s(door.array("log_s", log_s, self.m.shape))

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

    def sample(self, *, M: int, key: Key[Array, ""]) -> Float[Array, "M *batch d"]:
        """t_s = m + s ε_s, ε_s ~ N(0, I), s = 1 … M.

        Args:
            M: number of draws.
            key: a typed key.

        Returns:
            [M, d], the draws; for a batch of posteriors its axes stand between M and d.

        Raises:
            ValueError: if M < 1 or the key is not a typed one.
        """
        noise = jax.random.normal(door.key(key), (door.count("M", M), *self.m.shape), self.m.dtype)
        return self.m[None] + self.s[None] * noise

    def log_q(self, t: Float[Array, "d"]) -> Float[Array, ""]:
        """log q(t), in nats.

        Args:
            t: [d], one latent point.

        Returns:
            A scalar, nats.

        Raises:
            ValueError: if t does not fit, and for a batch of posteriors; use `jax.vmap` over it.
        """
        t = door.array("t", t, door.of_one(self.m))
        return -0.5 * jnp.sum(((t - self.m) / self.s) ** 2 + 2 * self.log_s + LOG_2PI)


class FullGaussian(eqx.Module):
    """q(t) = N(t; m, L Lᵀ): a Gaussian with any covariance, through its Cholesky factor L.

    Attributes:
        m: [d], the mean; a batch of posteriors has more axes in front.
        L: [d, d], lower triangular with a positive diagonal, as `jnp.linalg.cholesky` returns it.

    Raises:
        ValueError: if the shapes of m and L do not fit, if L has entries above its diagonal, or if its diagonal is not
            positive.
    """

    m: Float[Array, "*batch d"]
    L: Float[Array, "*batch d d"]

    def __init__(self, m: Any, L: Any) -> None:
        self.m = door.array("m", m, (..., "d"))
        self.L = door.lower(door.array("L", L, (*self.m.shape, self.m.shape[-1])))

    @property
    def mean(self) -> Float[Array, "*batch d"]:
        return self.m

    @property
    @full_precision
    def covariance(self) -> Float[Array, "*batch d d"]:
        return self.L @ jnp.swapaxes(self.L, -1, -2)

    @property
    def entropy(self) -> Float[Array, "*batch"]:
        """−E_q log q(t) = log det L + d/2 (1 + log 2π), in nats."""
        return jnp.sum(jnp.log(jnp.diagonal(self.L, axis1=-2, axis2=-1)) + 0.5 * (1 + LOG_2PI), axis=-1)

    @full_precision
    def sample(self, *, M: int, key: Key[Array, ""]) -> Float[Array, "M *batch d"]:
        """t_s = m + L ε_s, ε_s ~ N(0, I), s = 1 … M.

        Args:
            M: number of draws.
            key: a typed key.

        Returns:
            [M, d], the draws; for a batch of posteriors its axes stand between M and d.

        Raises:
            ValueError: if M < 1 or the key is not a typed one.
        """
        noise = jax.random.normal(door.key(key), (door.count("M", M), *self.m.shape), self.m.dtype)
        return self.m[None] + jnp.einsum("...ij,...j->...i", self.L, noise)

    @full_precision
    def log_q(self, t: Float[Array, "d"]) -> Float[Array, ""]:
        """log q(t), in nats.

        Args:
            t: [d], one latent point.

        Returns:
            A scalar, nats.

        Raises:
            ValueError: if t does not fit, and for a batch of posteriors; use `jax.vmap` over it.
        """
        t = door.array("t", t, door.of_one(self.m))
        # L⁻¹ does not depend on t: under vmap over t it is computed once, and each draw costs a small product.
        inverse = jax.scipy.linalg.solve_triangular(self.L, jnp.eye(len(self.m), dtype=self.L.dtype), lower=True)
        standard = inverse @ (t - self.m)
        return -0.5 * jnp.sum(standard**2 + LOG_2PI) - jnp.sum(jnp.log(jnp.diagonal(self.L)))


class Weighted(eqx.Module):
    """E_q f(t) = Σ_s weight_s f(t_s): points with weights that sum to one, from a grid, importance draws or a chain.

    Attributes:
        t: [S, d], the points.
        log_weight: [S], or [N, S] for N data on the same points. A constant is subtracted from each row, so that its
            weights sum to one.

    Raises:
        ValueError: if the shapes of t and log_weight do not fit, and for a row without a weight above zero.
    """

    t: Float[Array, "S d"]
    log_weight: Float[Array, "*batch S"]

    def __init__(self, t: Any, log_weight: Any) -> None:
        self.t = door.array("t", t, ("S", "d"))
        self.log_weight = jax.nn.log_softmax(door.log_weights("log_weight", log_weight, (..., len(self.t))))

    @property
    def weight(self) -> Float[Array, "*batch S"]:
        return jnp.exp(self.log_weight)

    @property
    @full_precision
    def mean(self) -> Float[Array, "*batch d"]:
        return self.expect(lambda t: t)

    @property
    @full_precision
    def covariance(self) -> Float[Array, "*batch d d"]:
        # Around the mean: E tt^T - mm^T would cancel where the posterior is narrow.
        def around(weight: Array, mean: Array) -> Array:
            deviation = self.t - mean[None]
            return (weight[:, None] * deviation).T @ deviation

        return jnp.vectorize(around, signature="(s),(d)->(d,d)")(self.weight, self.mean)

    @full_precision
    def expect(self, f: Callable[[Float[Array, "d"]], Array]) -> Array:
        """E_q f(t) = Σ_s weight_s f(t_s), for f of one latent point.

        Args:
            f: a function of t [d]; it may return an array of any shape.

        Returns:
            The expectation, of the shape of f(t); for N data on the same points, N comes first.

        Raises:
            ValueError: if f is not a function.
        """
        return jnp.tensordot(self.weight, jax.vmap(door.function("f", f))(self.t), axes=1)
