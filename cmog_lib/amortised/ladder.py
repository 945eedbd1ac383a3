"""The ladder of gaps: from log p(x|w) down to the encoder's bound, for one w and the same data."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib import bound, quadrature
from cmog_lib.amortised.encoders import Encoder, encoded
from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import door
from cmog_lib.engine.draws import effective_draws, warn_if_few
from cmog_lib.posteriors import FullGaussian, Gaussian
from cmog_lib.variational import cavi_grid, fit_q

TRUTH, FULL, FREE, GAUSSIAN, ENCODER = "log p(x|w)", "any Gaussian", "free product", "Gaussian product", "encoder"
DRAWS = 5000  # of importance sampling, where there is no quadrature
HERMITE = 16, 32  # nodes per dimension for a Gaussian's bound if d is small: 32 only if 16 are not enough
ENOUGH = 1e-5  # nats by which the bound may change with fewer nodes


class Ladder(eqx.Module):
    """Nats for each rung, from the top: log p(x_i|w) and the bounds L(w, q_i) of four families of q.

    The rungs are "log p(x|w)", "any Gaussian", "free product" (d ≤ 2 only), "Gaussian product" and "encoder".

    Attributes:
        value: value[rung], [N], in nats.
        error: error[rung], [N], in nats. For log p(x|w), the error that quadrature states, or a standard error. For the
            free product, the error of log p(x|w) on its nodes. For the other bounds, the change with a coarser
            quadrature, or a standard error.
        q: q[rung], for every rung below the first: the q with this bound.
        evaluations: evaluations[rung], for every rung below the first: the number of decoder evaluations in the search
            for its q, for all data together; 0 for the encoder's.
    """

    value: dict[str, Float[np.ndarray, "N"]]
    error: dict[str, Float[np.ndarray, "N"]]
    q: dict[str, Any]
    evaluations: dict[str, int]

    @property
    def gap(self) -> dict[str, Float[np.ndarray, "N"]]:
        """log p(x_i|w) − L(w, q_i) = KL(q_i‖p(t|x_i,w)), [N], for every rung below the first, in nats."""
        return {rung: self.value[TRUTH] - value for rung, value in self.value.items() if rung != TRUTH}


@door("w encoder key X starts n:from-two half_width:positive")
def gap_ladder(
    w: Decoder,
    encoder: Encoder,
    X: Float[Array, "N D"],
    *,
    key: Key[Array, ""],
    starts: int = 4,
    n: int = 300,
    half_width: float = 4.0,
    progress: bool = True,
) -> Ladder:
    """log p(x|w) ≥ L(w,q), q any Gaussian, any product, any Gaussian product, the encoder's: the loss at each step.

    For d ≤ 2 all values are by quadrature: log p(x|w) to 1e-4 nats, the bounds of Gaussians by their own Gauss–Hermite
    nodes, the free product on n nodes per dimension. For larger d, log p(x|w) is by importance sampling from the q of
    the rung "any Gaussian" with M = 5000, which is below it in expectation, and the bounds are by draws. Ctrl-C raises
    KeyboardInterrupt.

    Args:
        w: decoder.
        encoder: q(t|x) as it was learned.
        X: [N, D], data.
        key: random key for the searches and the draws.
        starts: number of places from which the search for each datum's Gaussian q starts. If none of them ends with a
            higher bound than the encoder's q, that is kept.
        n: nodes per dimension for the free product.
        half_width: the free product is on [-half_width, half_width]^d.
        progress: show the progress bars.

    Returns:
        A `Ladder`.

    Raises:
        ValueError: if the encoder does not fit, the data do not fit the decoder, starts is below 1, or the key is
            untyped; and if w is NaN at a draw of a q.

    Warns:
        RuntimeWarning: as `quadrature.exact`, `variational.cavi_grid`, `fit_q` and `bound.importance` do.

    Source: Cremer, Li and Duvenaud 2018, who call the last step the amortisation gap.
    """
    d, told = w.latent_dim, encoded(encoder, X)
    told_bound = gaussian_bound(w, told, X, key=key)
    value: dict[str, Any] = {TRUTH: None}
    error: dict[str, Any] = {TRUTH: None}
    q: dict[str, Any] = {}
    evaluations: dict[str, int] = {}

    def search(rung: str, told: Any) -> None:
        q[rung], value[rung], error[rung], evaluations[rung] = _best(w, X, told, told_bound, key, starts, progress)

    search(FULL, _as_full(told))
    if d <= 2:
        exact = quadrature.exact(w, X)
        value[TRUTH], error[TRUTH] = exact.log_p_x, exact.error
        # By sums on a grid (for d = 1 of the posterior itself). Its error is taken to be that of log p on its nodes.
        nodes = quadrature.grid(d, n, half_width)
        q[FREE] = cavi_grid(w, X, nodes, starts=2, sweeps=60)
        value[FREE] = q[FREE].bound[:, -1]
        error[FREE] = np.abs(np.asarray(quadrature.log_p_x(w, X, nodes)) - exact.log_p_x)
        evaluations[FREE] = len(nodes.t)
    else:
        weights = bound.log_weights(w, q[FULL], X, M=DRAWS, key=key)
        warn_if_few(float(jnp.median(jax.vmap(effective_draws)(weights))), DRAWS)
        value[TRUTH], error[TRUTH] = _log_mean(weights)
    search(GAUSSIAN, told)
    q[ENCODER], (value[ENCODER], error[ENCODER]), evaluations[ENCODER] = told, told_bound, 0
    value, error = ({rung: np.asarray(row, np.float64) for rung, row in rows.items()} for rows in (value, error))
    return Ladder(value, error, q, evaluations)


@door("w key X draws q:gaussian")
def gaussian_bound(
    w: Decoder, q: Gaussian | FullGaussian, X: Float[Array, "N D"], *, key: Key[Array, ""], draws: int = 1024
) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """L(w,q_i) = E_{q_i} log p(x_i,t|w) + entropy(q_i), and its error, in nats: a Gaussian q for each datum.

    For d ≤ 2 the expectation is by 16 Gauss–Hermite nodes per dimension, and the error is the change with 12 nodes. If
    that exceeds 1e-5 nats for a datum, 32 and 24 nodes are used. For larger d it is by draws, with their standard
    error.

    Args:
        w: decoder.
        q: a Gaussian for each datum, m [N, d].
        X: [N, D], data.
        key: random key for the draws.
        draws: number of draws for each datum, for d > 2.

    Returns:
        The bound [N] and its error [N].

    Raises:
        ValueError: if the shapes do not fit, or the key is untyped.
    """
    if w.latent_dim <= 2:
        for n in HERMITE:
            fine, coarse = _by_nodes(w, q, X, n), _by_nodes(w, q, X, 3 * n // 4)
            error = jnp.abs(fine - coarse)
            if not isinstance(error, jax.core.Tracer) and bool((error <= ENOUGH).all()):
                break
        return fine, error
    weights = bound.log_weights(w, q, X, M=draws, key=key)
    return weights.mean(axis=1), weights.std(axis=1) / np.sqrt(draws)


@eqx.filter_jit
def _by_nodes(w: Any, q: Any, X: Array, n: int) -> Float[Array, "N"]:
    expected = jax.lax.map(lambda one: bound.expected_log_joint(w, *one, n=n), (q, X))
    return expected + q.entropy


def _as_full(q: Gaussian) -> FullGaussian:
    return FullGaussian(q.m, q.s[..., None] * jnp.eye(q.s.shape[-1], dtype=q.s.dtype)[None])


def _best(
    w: Any, X: Array, told: Any, told_bound: tuple[Array, Array], key: Array, starts: int, progress: bool
) -> tuple[Any, Any, Any, int]:
    """The best q found for each datum, its bound and error; the encoder's q if no search ended with a higher bound.

    Last, the number of decoder evaluations of the search.
    """
    found = fit_q(w, X, key=key, full=isinstance(told, FullGaussian), starts=starts, progress=progress)
    if found.interrupted:  # half a climb would pass for a gap
        raise KeyboardInterrupt
    climbed = found.q
    (value, error), (value_told, error_told) = gaussian_bound(w, climbed, X, key=key), told_bound
    kept = (value_told > value) | jnp.isnan(value)

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(kept.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    best = jax.tree.map(choose, told, climbed)
    return best, choose(value_told, value), choose(error_told, error), found.evaluations


def _log_mean(weights: Array) -> tuple[Array, Array]:
    """log of the mean weight and its standard error, to first order."""
    M = weights.shape[1]
    log_mean = jax.nn.logsumexp(weights, axis=1) - np.log(M)
    return log_mean, jnp.exp(weights - log_mean[:, None]).std(axis=1) / np.sqrt(M)
