"""Maximum likelihood for every latent dimension at once, from one eigendecomposition of the data's covariance."""

from __future__ import annotations

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cmog_lib.decoders import Linear
from cmog_lib.engine.door import count, door, full_precision, variances, warn
from cmog_lib.model import LOG_2PI
from cmog_lib.ppca import eigen

LARGEST_SPREAD = 1e12  # largest ratio of the columns' standard deviations


class Spectrum(eqx.Module):
    """S = 1/N Σ_i (x_i − b)(x_i − b)ᵀ = U Λ Uᵀ: all that PPCA needs of the data, for every latent dimension.

    Attributes:
        b: [D], the data's mean.
        eigenvalues: [D], λ_1 ≥ … ≥ λ_D, exactly zero past the rank.
        eigenvectors: [D, min(N, D)], the columns of U, each with its largest entry positive.
        n: number of data.
        rank: rank of S.
    """

    b: Float[Array, "D"]
    eigenvalues: Float[Array, "D"]
    eigenvectors: Float[Array, "D K"]
    n: int = eqx.field(static=True)
    rank: Int[Array, ""]

    @property
    def data_dim(self) -> int:
        return self.b.shape[0]

    @property
    def _sigma_squared(self) -> Float[Array, "D"]:
        # Summed from the smallest upwards, so that small eigenvalues count in float32 too.
        D = self.data_dim
        return jnp.cumsum(self.eigenvalues[::-1])[::-1] / jnp.arange(D, 0, -1, dtype=self.b.dtype)

    def _of_any_n(self) -> Spectrum:
        # n is static, but no formula uses it: without this, each number of data would need a compilation.
        return dataclasses.replace(self, n=0)

    def sigma(self, latent_dim: int) -> Float[Array, ""]:
        """σ with σ² = 1/(D − d) Σ_{j>d} λ_j, the mean of the discarded eigenvalues; zero from d = rank on.

        Args:
            latent_dim: d, from 0 to D − 1.

        Returns:
            [], σ.

        Raises:
            ValueError: if d is out of range.
        """
        d = count("latent_dim", latent_dim, 0, self.data_dim - 1)
        return jnp.sqrt(self._sigma_squared[d])

    def possible(self, latent_dim: int) -> int:
        """d = latent_dim, if max_w p(X|w) exists there: from 1 to below the rank of S.

        From the rank on the discarded eigenvalues are zero: σ goes to 0 and the likelihood to infinity.

        Args:
            latent_dim: d.

        Returns:
            d, as an integer.

        Raises:
            ValueError: if d is out of range; the message says which d are possible.
        """
        d = count("latent_dim", latent_dim, 1)
        if d >= self.data_dim or (not isinstance(self.rank, jax.core.Tracer) and d >= self.rank):
            highest = min(int(self.rank), self.data_dim) - 1
            possible = f"possible here: 1 to {highest}" if highest > 0 else "no latent dimension is possible here"
            raise ValueError(
                f"latent_dim must leave some spread for σ: the {self.n} data of {self.data_dim} dimensions have rank "
                f"{self.rank}, so nothing is left beyond {self.rank} dimensions, σ would be 0 and the likelihood "
                f"infinite; {possible}, got {d}"
            )
        return d

    @full_precision
    def model(self, latent_dim: int) -> Linear:
        """W = U_d (Λ_d − σ²I)^½, the maximum-likelihood model of latent dimension d.

        Args:
            latent_dim: d, at least 1 and below the rank.

        Returns:
            The linear decoder, with W [D, d], b [D] and one σ.

        Raises:
            ValueError: if d is out of range, as in `possible`.

        Source: Slide 4; Tipping and Bishop 1999, equations 7 and 8, without a rotation.
        """
        return _model(self._of_any_n(), self.possible(latent_dim))

    @full_precision
    def padded_model(self, latent_dim: Int[Array, ""] | int) -> Linear:
        """The model of latent dimension d with unused latents: W = [U_d (Λ_d − σ²I)^½, 0], which has the same p(x).

        W has the same shape for every d, so one compilation serves all latent dimensions.

        Args:
            latent_dim: d, at least 1 and below the rank; also one that is known only inside `jit` or `vmap`.

        Returns:
            The linear decoder, with W [D, min(N, D)], b [D] and one σ. Inside `jit` or `vmap`, σ is 0 from d = rank on.

        Raises:
            ValueError: if d is known and is not from 1 to D − 1, or if σ would be 0.
        """
        if not isinstance(latent_dim, jax.core.Tracer):
            latent_dim = count("latent_dim", np.asarray(latent_dim)[()], 1, self.data_dim - 1)
        sigma_squared = self._sigma_squared[latent_dim]
        K = self.eigenvectors.shape[1]
        kept = jnp.arange(K) < latent_dim
        scale = jnp.sqrt(jnp.where(kept, jnp.maximum(self.eigenvalues[:K] - sigma_squared, 0.0), 0.0))
        return Linear(self.eigenvectors * scale[None], self.b, 0.5 * jnp.log(sigma_squared))

    @property
    @full_precision
    def log_likelihood(self) -> Float[Array, "D"]:
        """max_w 1/N Σ_i log p(x_i|w) = −½ [D log 2π + Σ_{j≤d} log λ_j + (D − d) log σ² + D], for d = 0 … D − 1.

        Returns:
            [D], nats per datum. From d = rank on it is +inf, since the likelihood has no maximum there. It grows as σ
            falls.
        """
        D, d = self.data_dim, jnp.arange(self.data_dim)
        exists = d < self.rank
        kept = jnp.cumsum(jnp.log(jnp.where(exists, self.eigenvalues, 1.0)))
        kept = jnp.concatenate([jnp.zeros_like(kept[:1]), kept[:-1]])
        discarded = (D - d) * jnp.log(jnp.where(exists, self._sigma_squared, 1.0))
        return jnp.where(exists, -0.5 * (D * LOG_2PI + kept + discarded + D), jnp.inf)

    @door("X:[n,D]")
    def log_p_x(self, X: Float[Array, "n D"]) -> Float[Array, "D n"]:
        """log p(x_i|w_d) for every latent dimension d = 0 … D − 1 and every datum, in nats.

        The computation is one projection y = Uᵀ(x − b), then cumulative sums over d.

        Args:
            X: [n, D], any data, including held-out data.

        Returns:
            [D, n], nats, a row for each d. NaN from d = rank on, where there is no model.

        Raises:
            ValueError: if X is not a finite matrix of the spectrum's width.
        """
        with jax.debug_nans(False):  # NaN is the result where there is no model
            return _log_p_x(self._of_any_n(), X)


@door("X:X-as-it-is")
def fit_all(X: Float[Array | np.ndarray, "N D"]) -> Spectrum:
    """S = 1/N Σ_i (x_i − b)(x_i − b)ᵀ = U Λ Uᵀ: one eigendecomposition gives max_w p(X|w) for every latent dimension.

    The computation is in float64. An eigenvalue counts as zero if rounding the data can produce it: rounding in the
    data's own precision, column by column, and in double precision relative to the largest eigenvalue. `jax.vmap` can
    map the function over many data sets; a σ of 0, for which there is no maximum, then raises no error.

    Args:
        X: [N, D], data. Of a memory-mapped array (`np.load(path, mmap_mode="r")`) one block at a time is in memory.
            Data on an accelerator are decomposed there.

    Returns:
        The spectrum, from which `Spectrum.model` makes the model of each latent dimension.

    Raises:
        ValueError: if X is not a finite matrix of floats, or if its squares leave the range of its precision.

    Warns:
        RuntimeWarning: if columns differ so much in scale that double precision loses the smallest eigenvalues.

    Source: Slide 4.
    """
    return _spectrum(X, eigen.decomposed(X))


@door("X:X-as-it-is")
def fit(X: Float[Array | np.ndarray, "N D"], latent_dim: int) -> Linear:
    """max_w p(X|w) in closed form: W = U_d (Λ_d − σ²I)^½, σ² = 1/(D − d) Σ_{j>d} λ_j, b = 1/N Σ_i x_i.

    For many float32 data in memory and a small d, only the d largest eigenvalues are computed (`engine.leading`).

    Args:
        X: [N, D], data, as in `fit_all`.
        latent_dim: d, at least 1 and below the rank of the data's covariance (1/N).

    Returns:
        The linear decoder, with W [D, d], b [D] and one σ.

    Raises:
        ValueError: if X is not a finite matrix of floats, if its squares leave the range of its precision, or if d is
            out of range; the message then says which d are possible.

    Warns:
        RuntimeWarning: as in `fit_all`.

    Source: Slide 4; Tipping and Bishop 1999, equations 7 and 8.
    """
    d = count("latent_dim", latent_dim, 1)
    return _spectrum(X, eigen.enough(X, d)).model(d)


def _spectrum(X: Array | np.ndarray, parts: eigen.Parts) -> Spectrum:
    b, eigenvalues, U, rank, spread = parts
    if not isinstance(spread, jax.core.Tracer):
        _check(X, b, eigenvalues[: int(rank)], float(spread))
    return Spectrum(b, eigenvalues, U, len(X), rank)


def _check(X: Array | np.ndarray, b: Array, eigenvalues: Array, spread: float) -> None:
    def size() -> float:  # from the first rows, which suffice
        return float(np.abs(np.asarray(X[:4096]) - np.asarray(b)).max())

    with np.errstate(over="ignore"):  # if no eigenvalue is left, perhaps since squares are 0 or infinite
        squares = eigenvalues if len(eigenvalues) else np.array([size() or 1.0]) ** 2
    variances("X", squares, size)
    if spread > LARGEST_SPREAD:
        warn(
            f"the columns of X differ in scale by a factor of {spread:.0e}, more than double precision can decompose"
            " together: small eigenvalues are lost. Use units in which they differ less, or leave out columns that hold"
            " nothing but rounding errors",
        )


@partial(jax.jit, static_argnames="d")
def _model(spectrum: Spectrum, d: int) -> Linear:
    sigma_squared = spectrum._sigma_squared[d]
    scale = jnp.sqrt(jnp.maximum(spectrum.eigenvalues[:d] - sigma_squared, 0.0))
    return Linear(spectrum.eigenvectors[:, :d] * scale[None], spectrum.b, 0.5 * jnp.log(sigma_squared))


@jax.jit
def _log_p_x(spectrum: Spectrum, X: Float[Array, "n D"]) -> Float[Array, "D n"]:
    D, K = spectrum.eigenvectors.shape
    exists = jnp.arange(D) < spectrum.rank
    # In units of the largest standard deviation, in which no square leaves the range of float32.
    unit = jnp.where(spectrum.rank > 0, jnp.sqrt(spectrum.eigenvalues[0]), 1.0)
    squares = spectrum.eigenvalues, spectrum._sigma_squared
    s, sigma = (jnp.sqrt(jnp.where(exists, square, unit**2)) / unit for square in squares)
    residual = (X - spectrum.b[None]) / unit
    y = residual @ spectrum.eigenvectors
    outside = jnp.sum((residual - y @ spectrum.eigenvectors.T) ** 2, axis=1)
    y = jnp.pad(y.T, ((0, D - K), (0, 0)))
    # Sums of squares from the tail: |x − b|² − Σ_{j≤d} y_j² would cancel.
    discarded = jnp.cumsum(y[::-1] ** 2, axis=0)[::-1] + (outside[None] if K < D else 0.0)
    kept = jnp.cumsum((y / s[:, None]) ** 2 + 2 * jnp.log(s)[:, None], axis=0)
    kept = jnp.concatenate([jnp.zeros_like(kept[:1]), kept[:-1]])
    rest = discarded / (sigma**2)[:, None] + (2 * jnp.arange(D, 0, -1) * jnp.log(sigma))[:, None]
    return jnp.where(exists[:, None], -0.5 * (D * (LOG_2PI + 2 * jnp.log(unit)) + kept + rest), jnp.nan)
