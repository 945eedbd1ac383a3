"""The ladder of gaps: from log p(x|w) down to the encoder's bound, for one w and the same data."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib import bound, quadrature
from cmog_lib.amortised.encoders import Encoder, encoded
from cmog_lib.decoders import Decoder
from cmog_lib.engine import draws
from cmog_lib.engine.door import door
from cmog_lib.nodes import Nodes
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
    q = encoded(encoder, X)
    value, error = gaussian_bound(w, q, X, key=key)
    told = Rung(q, value, error, 0)
    options: Any = {"starts": starts, "key": key, "progress": progress}
    rungs = {FULL: searched(w, X, told, full=True, **options)}
    truth, truth_error = reference(w, rungs[FULL].q, X, key)
    if w.latent_dim <= 2:
        rungs[FREE] = free_product(w, X, quadrature.grid(w.latent_dim, n, half_width), truth)
    rungs[GAUSSIAN] = searched(w, X, told, full=False, **options)
    rungs[ENCODER] = told
    values = {TRUTH: truth} | {name: rung.value for name, rung in rungs.items()}
    errors = {TRUTH: truth_error} | {name: rung.error for name, rung in rungs.items()}
    evaluations = {name: rung.evaluations for name, rung in rungs.items()}
    return Ladder(in_double(values), in_double(errors), {name: rung.q for name, rung in rungs.items()}, evaluations)


@door("w key X draws q:gaussian")
def gaussian_bound(
    w: Decoder, q: Gaussian | FullGaussian, X: Float[Array, "N D"], *, key: Key[Array, ""], draws: int = 1024
) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """L(w,q_i) = E_{q_i} log p(x_i,t|w) + entropy(q_i), and its error, in nats: a Gaussian q for each datum.

    For d ≤ 2 the expectation is by 16 Gauss–Hermite nodes per dimension, and the error is the change with 12 nodes. If
    that exceeds 1e-5 nats for a datum, 32 and 24 nodes are used for that datum. For larger d it is by draws, with their
    standard error.

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
        return _by_nodes(w, q, X)
    weights = bound.log_weights(w, q, X, M=draws, key=key)
    return weights.mean(axis=1), weights.std(axis=1) / np.sqrt(draws)


@eqx.filter_jit
def _by_nodes(w: Any, q: Any, X: Array) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """E_q log p(x,t|w) + entropy(q) on Gauss–Hermite nodes, and its error. Uses 32 nodes if 16 are too few."""

    def on_nodes(one: tuple[Any, Array], n: int) -> tuple[Array, Array]:
        fine, coarse = (bound.expected_log_joint(w, *one, n=count) for count in (n, 3 * n // 4))
        return fine, jnp.abs(fine - coarse)

    def of_one(one: tuple[Any, Array]) -> tuple[Array, Array]:
        few, many = HERMITE
        expected, error = on_nodes(one, few)
        return jax.lax.cond(error <= ENOUGH, lambda: (expected, error), lambda: on_nodes(one, many))

    expected, error = jax.lax.map(of_one, (q, X))
    return expected + q.entropy, error


class Rung(NamedTuple):
    """The q of a family with the highest bound for each datum, L(w, q_i), its error, and the decoder evaluations."""

    q: Any
    value: Float[Array, "N"]
    error: Float[Array, "N"]
    evaluations: int


def searched(w: Any, X: Array, told: Rung, *, full: bool, starts: int, key: Array, progress: bool) -> Rung:
    """The Gaussian q that `fit_q` finds for each datum; the encoder's if no search ended with a higher bound."""
    found = fit_q(w, X, key=key, full=full, starts=starts, progress=progress)
    if found.interrupted:  # half a climb would pass for a gap
        raise KeyboardInterrupt
    value, error = gaussian_bound(w, found.q, X, key=key)
    kept = (told.value > value) | jnp.isnan(value)
    q = FullGaussian(told.q.m, jax.vmap(jnp.diag)(told.q.s)) if full else told.q
    q, value, error = draws.chosen(kept, (q, told.value, told.error), (found.q, value, error))
    return Rung(q, value, error, found.evaluations)


def reference(w: Any, q: FullGaussian, X: Array, key: Array) -> tuple[Any, Any]:
    """log p(x_i|w) and its error: by quadrature, or for d > 2 by importance sampling from q."""
    if w.latent_dim <= 2:
        exact = quadrature.exact(w, X)
        return exact.log_p_x, exact.error
    return draws.log_mean(bound.log_weights(w, q, X, M=DRAWS, key=key))


def free_product(w: Any, X: Array, nodes: Nodes, log_p_x: Any) -> Rung:
    """The free q of `cavi_grid` for each datum; the error of its bound is taken to be that of log p on its nodes."""
    q = cavi_grid(w, X, nodes, starts=2, sweeps=60)
    error = jnp.abs(quadrature.log_p_x(w, X, nodes) - log_p_x)
    return Rung(q, q.bound[:, -1], error, len(nodes.t))


def in_double(rows: dict[str, Any]) -> dict[str, Float[np.ndarray, "N"]]:
    """The rows as NumPy arrays in double precision."""
    return {name: np.asarray(row, np.float64) for name, row in rows.items()}
