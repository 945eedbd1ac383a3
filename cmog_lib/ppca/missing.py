"""Maximum likelihood for PPCA with missing cells: the exact likelihood of the observed cells, without imputation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cmog_lib.decoders import Linear
from cmog_lib.engine.door import array, count, door, observed
from cmog_lib.model import LOG_2PI
from cmog_lib.ppca.closed_form import frame
from cmog_lib.ppca.covariance import fix_signs
from cmog_lib.ppca.spectrum import fit


def _X(name: str, X: Any, given: dict[str, Any]) -> Any:
    """Data with an observed cell in every row and column."""
    X = array(name, X, ("N", "D"), missing=True)
    for axis, which in enumerate(("row", "column")):
        empty = np.flatnonzero(np.isnan(np.asarray(X)).all(axis=1 - axis))
        if len(empty):
            consequence = "says nothing" if which == "row" else "cannot be fitted"
            raise ValueError(
                f"{name} must have an observed cell in every row and column, got none in {which} {empty[0]} "
                f"({len(empty)} such {which}s; one {consequence}); leave them out"
            )
    return X


def _latent_dim(name: str, value: Any, given: dict[str, Any]) -> int:
    return count(name, value, 1, max(given["X"].shape[1] - 1, 1))


@door("tolerance:positive max_steps", X=_X, latent_dim=_latent_dim)
def fit_missing(
    X: Float[Array | np.ndarray, "N D"], latent_dim: int, *, tolerance: float = 1e-6, max_steps: int = 2000
) -> Linear:
    """max_w Σ_i log p(x_i,observed|w), where log p(x_observed|w) = log ∫ p(x|w) dx_missing; NaN marks a missing cell.

    Every step is exact, and none lowers the likelihood. With nothing missing, the result is that of `fit`. The data do
    not determine the sign of a correlation between columns that were never observed together: of several equal maxima,
    the function always returns the same one.

    Args:
        X: [N, D], data, with NaN in missing cells.
        latent_dim: d, from 1 to D − 1.
        tolerance: iteration ends when a step gains less than this, in nats per datum.
        max_steps: largest number of steps.

    Returns:
        The linear decoder, with W [D, d], b [D] and one σ. The columns of W are orthogonal, the longest first.

    Raises:
        ValueError: if a value is infinite, if a row or a column has no observed cell, if d is out of range, if
            tolerance or max_steps is not positive, or if so few cells were observed that d dimensions reproduce them
            all and the likelihood has no maximum.
        RuntimeError: if the fit has not converged after max_steps.

    Source: Liu, Rubin and Wu 1998 (EM with expanded parameters).
    """
    X, there = observed(X)
    with jax.enable_x64(True):
        mean, x = _centred(X, there)
        start = _pushed(fit(x, latent_dim), x, there)
        w, gain, steps = _climb(start, x, there, jnp.asarray(tolerance), jnp.asarray(max_steps))
        if not jnp.exp(2 * w.log_sigma) > _floor(x, there):
            raise ValueError(
                f"latent_dim must leave some spread for σ: {latent_dim} dimensions reproduce all {int(there.sum())} "
                "observed cells, σ goes to 0 and the likelihood to infinity; take fewer dimensions"
            )
        if not gain < tolerance:
            raise RuntimeError(f"fit_missing still gained {float(gain):.1e} nats per datum at step {int(steps)}")
        # W is known up to a rotation; the one that `fit` returns has orthogonal columns, the longest first.
        U, lengths, _ = jnp.linalg.svd(w.W, full_matrices=False)
        W, b, log_sigma = fix_signs(U) * lengths[None], w.b + mean, w.log_sigma
    return Linear(*(jnp.asarray(part, X.dtype) for part in (W, b, log_sigma)))


@jax.jit
def _centred(X: Float[Array, "N D"], observed: Bool[Array, "N D"]) -> tuple[Float[Array, "D"], Float[Array, "N D"]]:
    """The mean, and the centred data, in which a missing cell is 0 and adds nothing to any sum."""
    x = X.astype("float64")
    mean = x.sum(axis=0) / observed.sum(axis=0)
    return mean, jnp.where(observed, x - mean[None], 0.0)


def _floor(x: Array, observed: Array) -> Array:
    """The σ² at which the fit has collapsed: a share of the smallest variance, in any units of the other columns."""
    variance = _variance(x, observed)
    largest = variance.max()
    return 1e-12 * jnp.min(jnp.where(variance > 1e-28 * largest, variance, largest))  # smaller ones are rounding


def _variance(x: Array, observed: Array) -> Float[Array, "D"]:
    return jnp.sum(x**2, axis=0) / observed.sum(axis=0)


def _pushed(w: Linear, x: Array, observed: Array) -> Linear:
    """The start, perturbed by a hundredth of each standard deviation if any cell is missing.

    A missing cell filled with the mean carries no information about correlations. If two columns were never observed
    together, some rows of W are 0: a saddle point of the likelihood, which no exact step leaves.
    """
    noise = jax.random.normal(jax.random.key(0), w.W.shape, w.W.dtype)
    push = jnp.where(observed.all(), 0.0, 0.01) * jnp.sqrt(_variance(x, observed))[:, None] * noise
    return Linear(w.W + push, w.b, w.log_sigma)


@jax.jit
def _climb(w: Linear, x: Array, observed: Array, tolerance: Array, max_steps: Array) -> tuple[Linear, Array, Array]:
    def goes_on(state: tuple) -> Array:
        w, _, gain, steps = state
        return (gain >= tolerance) & (steps < max_steps) & (jnp.exp(2 * w.log_sigma) > _floor(x, observed))

    def step(state: tuple) -> tuple:
        w, before, _, steps = state
        w, now = _step(w, x, observed)
        return w, now, now - before, steps + 1

    infinity = jnp.asarray(jnp.inf, x.dtype)
    w, _, gain, steps = jax.lax.while_loop(goes_on, step, (w, -infinity, infinity, jnp.asarray(0)))
    return w, gain, steps


def _step(w: Linear, x: Float[Array, "N D"], observed: Bool[Array, "N D"]) -> tuple[Linear, Float[Array, ""]]:
    """One EM step, and the average log p(x_observed|w) before it. x: 0 in the missing cells."""
    N, d = len(x), w.latent_dim
    seen, w = observed.astype(x.dtype), Linear(w.W @ frame(w.W), w.b, w.log_sigma)
    # E-step. One matrix product gives all M_i = I + Σ_j observed_ij w_j w_jᵀ / σ², those of `log_p_x_observed`.
    M = jnp.eye(d)[None] + _symmetric(seen @ _packed(w.W[:, :, None] * w.W[:, None, :]), d) * jnp.exp(-2 * w.log_sigma)
    factor = jnp.linalg.cholesky(M)
    inverse = jax.lax.linalg.triangular_solve(factor, jnp.broadcast_to(jnp.eye(d), M.shape), left_side=True, lower=True)
    covariance = jnp.swapaxes(inverse, 1, 2) @ inverse
    residual = seen * (x - w.b[None])
    m = jnp.einsum("nij,nj->ni", covariance, residual @ w.W * jnp.exp(-2 * w.log_sigma))
    error = seen * (residual - m @ w.W.T) * jnp.exp(-w.log_sigma)
    log_determinants = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=1, axis2=2)))
    log_p = -0.5 * (jnp.sum(error**2) + jnp.sum(m**2) + seen.sum() * (LOG_2PI + 2 * w.log_sigma)) - log_determinants
    # M-step. One regression of each coordinate on (t, 1), over the data in which it was observed.
    t = jnp.concatenate([m, jnp.ones((N, 1), x.dtype)], axis=1)
    tt = t[:, :, None] * t[:, None, :] + jnp.pad(covariance, ((0, 0), (0, 1), (0, 1)))
    gram, moment = _symmetric(seen.T @ _packed(tt), d + 1), residual.T @ t
    solution = jnp.linalg.solve(gram, moment[:, :, None])[:, :, 0]
    W, b = solution[:, :d], w.b + solution[:, d]
    left = jnp.sum(residual**2) - jnp.sum(solution * moment)

    def exactly() -> Array:
        spread = _symmetric(seen.T @ _packed(covariance), d)
        return jnp.sum((seen * (residual - t @ solution.T)) ** 2) + jnp.einsum("ji,jik,jk->", W, spread, W)

    # This difference of sums has lost its digits if a column is large and σ is small.
    left = jax.lax.cond(left > 1e-8 * jnp.sum(residual**2), lambda: left, exactly)
    sigma_squared = left / seen.sum()
    # Expanded parameters: p(t) = N(a, R) is fitted too, and then absorbed into W and b. p(x|w) stays the same, and EM
    # needs several times fewer steps, since W reaches the scale at which t is standard normal at once.
    a, second_moment = m.mean(axis=0), tt.mean(axis=0)[:d, :d]
    R = second_moment - a[:, None] * a[None, :]
    return Linear(W @ jnp.linalg.cholesky(R), b + W @ a, 0.5 * jnp.log(sigma_squared)), log_p / N


def _packed(S: Float[Array, "n k k"]) -> Float[Array, "n p"]:
    """The entries of symmetric matrices on and below the diagonal, so that no product is computed twice."""
    rows, columns = np.tril_indices(S.shape[1])
    return S[:, rows, columns]


def _symmetric(packed: Float[Array, "n p"], k: int) -> Float[Array, "n k k"]:
    """The symmetric matrices that `_packed` has packed."""
    place = np.zeros((k, k), int)
    place[np.tril_indices(k)] = np.arange(packed.shape[1])
    return packed[:, np.maximum(place, place.T)]
