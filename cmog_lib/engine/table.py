"""Nodes in several dimensions, sums over them without the table of all data, and whether both can be held."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cmog_lib.decoders import Decoder, projected
from cmog_lib.engine.door.decoders import decoded
from cmog_lib.model import LOG_2PI, log_p_x_given_t_table
from cmog_lib.nodes import Nodes
from cmog_lib.posteriors import FullGaussian, Gaussian

R = TypeVar("R")
# Cells a dimension where none are named: about a thousand latents are decoded at a time, some more for d = 3.
CELLS = {1: 512, 2: 32, 3: 14}
DECODED = 2**22  # numbers of decoded latents that exist at a time
TABLE_ENTRIES = 2**23  # how many numbers of the table log p(x_i|t_k,w) exist at a time

MOST_OF_NODES, MOST_OF_A_TABLE = 2, 8  # GiB


def affordable(rule: str, latent_dim: int, n: int, most: int | None) -> None:
    """Raises ValueError, with the price, where n^latent_dim nodes are too many or the dimension is above `most`."""
    # n^d itself would be too long a number to write, or to wait for.
    count = n**latent_dim if latent_dim * math.log10(n) < 300 else math.inf
    price = _gigabytes(count * (latent_dim + 1))
    if price <= MOST_OF_NODES and (most is None or latent_dim <= most):
        return
    limit = f"latent_dim at most {most} and " if most else ""
    raise ValueError(
        f"{rule} needs {limit}nodes of at most {MOST_OF_NODES} GiB; latent_dim={latent_dim} with n={n} asks for"
        f" {n}^{latent_dim} = {count:.3g} nodes, {price:.3g} GiB before a single datum is seen. Use a smaller n,"
        f" or monte_carlo(latent_dim, M=M, key=key), whose cost does not grow with the dimension"
    )


def affordable_draws(latent_dim: int, M: int) -> None:
    """Raises ValueError, with the price, where M draws are too many."""
    price = _gigabytes(M * (latent_dim + 1))
    if price > MOST_OF_NODES:
        raise ValueError(
            f"M must leave nodes of at most {MOST_OF_NODES} GiB, got {M}: with latent_dim={latent_dim},"
            f" {price:.3g} GiB. Take fewer draws, or average log p(x|w) over several calls with other keys"
        )


def affordable_table(X: Any, S: int) -> None:
    """Raises ValueError, with the price, where a number for each datum and node is too much for a device."""
    devices = len(X.sharding.device_set) if isinstance(X, jax.Array) and not isinstance(X, jax.core.Tracer) else 1
    price = _gigabytes(len(X) * S / devices)
    if price > MOST_OF_A_TABLE:
        raise ValueError(
            f"X and nodes must leave a table of at most {MOST_OF_A_TABLE} GiB, got {len(X)} data on {S} nodes:"
            f" {price:.3g} GiB on a device. Take fewer data at a time, or fewer nodes"
        )


def tensor(latent_dim: int, t: np.ndarray, log_weight: np.ndarray) -> tuple[Array, Array]:
    """Every combination of one-dimensional nodes; logarithms of the weights add up."""
    # A column at a time: the points exist once, in the session's precision.
    n, weights = len(t), log_weight
    points = np.empty((n**latent_dim, latent_dim), jax.dtypes.canonicalize_dtype(float))
    for j in range(latent_dim):
        points[:, j] = np.tile(np.repeat(t, n ** (latent_dim - 1 - j)), n**j)
    for _ in range(latent_dim - 1):
        weights = (weights[:, None] + log_weight[None]).reshape(-1)
    return jnp.asarray(points), jnp.asarray(weights)


def gauss_hermite(latent_dim: int, n: int) -> tuple[Array, Array]:
    """t [n^d, d] and log_weight [n^d] with Σ_s exp(log_weight_s) f(t_s) = E f(t), t ~ N(0, I), for polynomials f.

    Of degree below 2n in every t_j. Source: Golub and Welsch (1969); SciPy computes it.
    """
    from scipy.special import roots_hermitenorm

    t, weight = roots_hermitenorm(n)
    with np.errstate(divide="ignore"):  # the outermost of several hundred weights underflow, rightly, to nothing
        return tensor(latent_dim, t, np.log(weight) - 0.5 * LOG_2PI)


def expect(f: Callable[[Array], Array], q: Gaussian | FullGaussian, n: int, width: int) -> Array:
    """E_q f(t) ≈ Σ_s weight_s f(m + L t_s) on n Gauss–Hermite nodes a dimension, laid out where q is.

    width: how many numbers f decodes of a latent. Many nodes are decoded some at a time.
    """
    standard, log_weight = gauss_hermite(q.mean.shape[-1], n)
    L = q.L if isinstance(q, FullGaussian) else jnp.diag(q.s)
    t, weight = q.mean[None] + standard @ L.T, jnp.exp(log_weight)
    at_a_time = max(1, DECODED // width)
    if len(t) <= at_a_time:
        return weight @ jax.vmap(f)(t)
    return weight @ jax.lax.map(f, t, batch_size=at_a_time)


def _gigabytes(numbers: int | float) -> float:
    return numbers * jax.dtypes.canonicalize_dtype(float).itemsize / 2**30


def finite(function: Callable[..., R]) -> Callable[..., R]:
    """A function of w, X and nodes that raises ValueError where μ or σ is no number at a node, if values are known."""

    @functools.wraps(function)
    def looked_at(w: Any, X: Array, nodes: Nodes) -> R:
        found = function(w, X, nodes)
        *_, values = jax.tree.leaves(found)
        if not isinstance(values, jax.core.Tracer):
            # One latent always (a constant that is no number is lost when XLA folds it), all where it shows.
            decoded(w, nodes.t if bool(jnp.isnan(values).any()) else nodes.t[:1])
        return found

    return looked_at


@finite
def logsumexp(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Float[Array, "N"]:
    """`jax.nn.logsumexp(log_p_x_given_t_table(w, X, nodes.t) + nodes.log_weight[None], axis=1)`, without the table.

    Of x only what the decoder can tell is asked of every node, see `projected`; the rest is the same at all of them.
    """
    told, seen, constant = projected(w, X)
    return by_blocks(told, seen, nodes) + constant


@eqx.filter_jit
def by_blocks(w: Decoder, X: Float[Array, "N D"], nodes: Nodes) -> Float[Array, "N"]:
    """The same by blocks of nodes, so that the table never exists as a whole; on the way back each is made again."""
    S = len(nodes.t)
    block = int(np.clip(TABLE_ENTRIES // max(X.shape), 1, S))
    fill = -S % block
    t = jnp.pad(nodes.t, ((0, fill), (0, 0)), mode="edge").reshape(-1, block, nodes.t.shape[1])
    # A node that is switched off weighs next to nothing, not nothing: a whole block of -inf has no gradient.
    off = jnp.finfo(nodes.log_weight.dtype).min / 4
    log_weight = jnp.pad(nodes.log_weight, (0, fill), constant_values=-jnp.inf).clip(off).reshape(-1, block)

    @jax.checkpoint
    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        t, log_weight = part
        terms = log_p_x_given_t_table(w, X, t) + log_weight[None]
        return jnp.logaddexp(total, jax.nn.logsumexp(terms, axis=1)), None

    start = jnp.full(len(X), -jnp.inf, jnp.result_type(X, nodes.log_weight))
    total = jax.lax.scan(add, start, (t, log_weight))[0]
    return jnp.where(total < off / 2, -jnp.inf, total)
