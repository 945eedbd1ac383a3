"""The ladder of gaps: from log p(x|w) down to the encoder's bound, on one w and the same data, rung by rung."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib import bound, quadrature
from cmog_lib.amortised import encoders
from cmog_lib.amortised.encoders import Encoder, encoded
from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import door
from cmog_lib.engine.draws import effective_draws, warn_if_few
from cmog_lib.posteriors import FullGaussian, Gaussian
from cmog_lib.variational import cavi_grid, fit_q

TRUTH, FULL, FREE, GAUSSIAN, ENCODER = "log p(x|w)", "any Gaussian", "free product", "Gaussian product", "encoder"
DRAWS = 5000  # of importance sampling, where there is no quadrature
HERMITE = 16, 32  # nodes a dimension for a Gaussian's bound, where d is small: more only where the fewer are not enough
ENOUGH = 1e-5  # nats that a coarser choice of nodes may change


class Ladder(eqx.Module):
    """One row of nats for each rung, from the top: value[rung] and error[rung], [N] each, and q[rung] that gave it.

    Rungs: "log p(x|w)", "any Gaussian", "free product" (d ≤ 2 only), "Gaussian product", "encoder". error: of the truth
    the one that quadrature states, or a standard error; of a bound what a coarser quadrature changes, or likewise.
    evaluations[rung]: how many latents the search for its q decoded, for all data together; 0 for the encoder's.
    """

    value: dict[str, Float[np.ndarray, "N"]]
    error: dict[str, Float[np.ndarray, "N"]]
    q: dict[str, Any]
    evaluations: dict[str, int]

    @property
    def gap(self) -> dict[str, Float[np.ndarray, "N"]]:
        """log p(x_i|w) − L(w, q_i) = KL(q_i‖p(t|x_i,w)) of every rung below the first, in nats."""
        return {rung: self.value[TRUTH] - value for rung, value in self.value.items() if rung != TRUTH}


@door("w key X starts n:from-two half_width:positive", encoder=encoders.fitting)
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
    """log p(x|w) ≥ L(w,q), q any Gaussian, any product, any Gaussian product, the encoder's: what each step costs.

    w: decoder. encoder: q(t|x) as it was learned. X: [N, D], data. For d ≤ 2 all is by quadrature: log p(x|w) to 1e-4
    nats, Gaussians by Gauss–Hermite nodes of their own, the free product on n nodes a dimension over [-half_width,
    half_width]². For larger d log p(x|w) is by importance sampling from the first rung's q, M = 5000, which is below it
    in expectation, and the bounds are by draws. starts: from which the q's of each datum are sought; where none gets
    higher than the encoder's own answer, that is kept. key: for the searches and draws. progress: show the bars.
    Raises ValueError for an encoder that does not fit, data that are not the decoder's, starts below 1 or an untyped
    key, and for q's with draws at which w is NaN; warns as `quadrature.exact`, `variational.cavi_grid`, `fit_q` and
    `bound.importance` do. Source: Cremer, Li and Duvenaud 2018, who call the last step the amortisation gap.
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
        # By sums on a grid (for d = 1 of the posterior itself), whose error is taken to be that of log p on its nodes.
        nodes = quadrature.grid(d, n, half_width)
        q[FREE] = cavi_grid(w, X, nodes, starts=2, sweeps=60)
        value[FREE] = q[FREE].bound[:, -1]
        error[FREE] = np.abs(np.asarray(quadrature.log_p_x(w, X, nodes)) - exact.log_p_x)
        evaluations[FREE] = len(nodes.t)
    else:
        weights = bound.log_weights(w, q[FULL], X, DRAWS, key=key)
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
    """L(w,q_i) = E_{q_i} log p(x_i,t|w) + entropy(q_i), and its error, in nats, [N] each: a Gaussian q for each datum.

    w: decoder. q: m [N, d]. X: [N, D]. For d ≤ 2 by 16 Gauss–Hermite nodes a dimension, the error being what 12 would
    change, or, where that exceeds 1e-5 nats for a datum, by 32 and 24; for larger d by so many draws, with their
    standard error. Raises ValueError when the shapes do not fit, or
    for an untyped key.
    """
    if w.latent_dim <= 2:
        for n in HERMITE:
            fine, coarse = _by_nodes(w, q, X, n), _by_nodes(w, q, X, 3 * n // 4)
            error = jnp.abs(fine - coarse)
            if not isinstance(error, jax.core.Tracer) and bool((error <= ENOUGH).all()):
                break
        return fine, error
    weights = bound.log_weights(w, q, X, draws, key=key)
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
    """The best q found for each datum, its bound and error: what the encoder told, where no climb got higher.

    Last, how many latents the search decoded.
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
