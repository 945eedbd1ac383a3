"""Factor analysis, Σ₀ = diag σ²: maximum likelihood with one σ for each coordinate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cmog_lib import optimise
from cmog_lib.decoders import Linear
from cmog_lib.engine.door import door, positive
from cmog_lib.model import LOG_2PI
from cmog_lib.ppca.covariance import fix_signs
from cmog_lib.ppca.spectrum import fit_all


def _share(name: str, value: Any, given: dict[str, Any]) -> float:
    if positive(name, value) >= 1:
        raise ValueError(f"{name} must be a share of the standard deviation below 1, got {value}")
    return float(value)


@door("X:X-that-varies tolerance:positive", floor=_share)
def fit_factor_analysis(
    X: Float[Array, "N D"], latent_dim: int, *, floor: float = 1e-3, tolerance: float = 1e-12, max_steps: int = 2000
) -> Linear:
    """max_{W,b,σ} Σ_i log N(x_i; b, WWᵀ + diag σ²): the linear decoder with one σ_j for each coordinate.

    X may be in any units: another unit for a coordinate scales its row of W, its b_j and its σ_j, and nothing else.
    Without a floor the likelihood may have no maximum: it can grow without limit as some σ_j go to 0 (Heywood cases). A
    σ_j on the floor means that coordinate j has collapsed: the latents reproduce it, and the floor alone determines σ_j
    and the value of the likelihood. `jnp.flatnonzero(w.sigma < 1.01 * floor * X.std(axis=0))` gives these coordinates.
    On some data the likelihood has several maxima. The better one from two starts is returned; if the covariance of the
    data is singular, there is only one start.

    Args:
        X: [N, D], data.
        latent_dim: d, at least 1 and below the rank of the data's covariance.
        floor: σ_j is at least floor · (standard deviation of x_j).
        tolerance: of L-BFGS on the log-likelihood in nats per datum, as in `optimise.maximise`.
        max_steps: largest number of L-BFGS steps.

    Returns:
        The linear decoder, with W [D, d], b [D] and σ [D].

    Raises:
        ValueError: if a column is constant (there σ_j would be 0), if d is out of range, if floor is not between 0 and
            1, or if tolerance or max_steps is not positive.
        RuntimeError: if the fit has not converged after max_steps.

    Source: Jöreskog 1967 (given σ the best W has a closed form, which leaves D unknowns for L-BFGS).
    """
    with jax.enable_x64(True):
        b, deviation, S = _standardised(X)
        spectrum = fit_all((X - b[None]) / deviation[None])
        d = spectrum.possible(latent_dim)
        starts = [jnp.full(len(S), 0.5 * jnp.log(0.5))]
        if spectrum.rank == len(S):
            starts.append(_unexplained(S, d, floor))
        lower = jnp.full(len(S), jnp.log(floor))
        optima = [
            optimise.maximise(profile, start, S, jnp.asarray(d), lower=lower, tolerance=tolerance, max_steps=max_steps)
            for start in starts
        ]
        best = max(optima, key=lambda optimum: optimum.value)
        if not best.converged and best.steps >= max_steps:
            raise RuntimeError(f"fit_factor_analysis had not converged after max_steps = {max_steps} steps; allow more")
        # d is not static in any compiled function, so one compilation serves every latent dimension.
        parts = _loadings(S, best.w, deviation)[:, :d], b, best.w + jnp.log(deviation)
    return Linear(*(jnp.asarray(part, X.dtype) for part in parts))


@jax.jit
def _standardised(X: Array) -> tuple[Array, Array, Array]:
    """Mean and standard deviation of each coordinate, and the correlations."""
    x = X.astype("float64")
    b, deviation = x.mean(axis=0), x.std(axis=0)
    x = (x - b[None]) / deviation[None]
    return b, deviation, x.T @ x / len(x)


@jax.jit
def _unexplained(S: Array, d: Array | int, floor: Array | float) -> Array:
    """log σ from the part of each coordinate's variance that the other coordinates do not explain."""
    share = (1 - d / (2 * len(S))) / jnp.diagonal(jnp.linalg.inv(S))
    return 0.5 * jnp.log(jnp.clip(share, floor**2, 1.0))


@jax.jit
def _loadings(S: Array, log_sigma: Array, deviation: Array) -> Array:
    """The best W given σ, in the units of the data; its first d columns are the best W of latent dimension d."""
    sigma = jnp.exp(log_sigma)
    theta, U = jnp.linalg.eigh(S / sigma[:, None] / sigma[None, :])
    scale = jnp.sqrt(jnp.maximum(theta[::-1] - 1, 0.0))
    return (deviation * sigma)[:, None] * fix_signs(U[:, ::-1]) * scale[None]


def profile(log_sigma: Float[Array, "D"], S: Float[Array, "D D"], latent_dim: Int[Array, ""] | int) -> Float[Array, ""]:
    """max_W 1/N Σ_i log N(x_i; b, WWᵀ + diag σ²) = −½ [D log 2π + Σ log σ_j² + Σ_{j≤d} (log θ_j + 1) + Σ_{j>d} θ_j].

    θ_1 ≥ … ≥ θ_D are the eigenvalues of Σ₀^−½ S Σ₀^−½. W keeps those of the first d that exceed 1.

    Args:
        log_sigma: [D], the logarithms of σ_j.
        S: [D, D], the data's covariance (1/N).
        latent_dim: d.

    Returns:
        [], nats per datum.

    Source: Jöreskog 1967.
    """
    inverse = jnp.exp(-log_sigma)
    theta = jnp.linalg.eigvalsh(inverse[:, None] * S * inverse[None, :])[::-1]
    kept = jnp.where(jnp.arange(len(theta)) < latent_dim, jnp.maximum(theta, 1.0), 1.0)
    return -0.5 * (len(theta) * LOG_2PI + jnp.sum(2 * log_sigma + jnp.log(kept) + theta / kept))
