"""Batches: the data that a step of a training loop sees, and the loop on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.engine.optimise.faults import Ascent, NotFinite, T, with_facts
from cmog_lib.engine.optimise.stochastic import ascend

# From w, a batch of data, what else it needs and a key to an estimate of the objective, a mean over data.
Value = Callable[[Any, Array, Any, Key[Array, ""]], Array]


def ascend_on_batches(
    value: Value, w: T, X: Any, rest: Any, *, batch_size: int, key: Key[Array, ""], facts: Any, **options: Any
) -> Ascent[T]:
    """w ← w + step(∇_w value(w, x_{i_1…i_B}, rest, key)), i ~ U{1 … N}: `ascend` on a new batch at each step.

    X: [N, D], data, or an iterator over pieces of them. rest: arrays and numbers that `value` needs, too. batch_size:
    B, rounded up to a multiple of the devices that hold X. facts: from the last good w, the batch and the key of the
    step that failed to words for the message. options: of `ascend`.
    """
    used: list[Problem] = []

    def problem(X: Any) -> Problem:
        used[:] = [_problem(value, X, rest, batch_size)]
        return used[0]

    data: Any = map(problem, X) if isinstance(X, Iterator) else problem(X)
    try:
        return ascend(_of_batch, w, data, key=key, **options)
    except NotFinite as error:
        X, key = used[0].batch(jax.random.fold_in(key, error.step))
        raise with_facts(error, facts(error.ascent.w, X, key)) from error


class Problem(eqx.Module):
    """What a step needs besides w."""

    value: Value = eqx.field(static=True)
    X: Float[Array, "N D"]
    rest: Any
    batch_size: int
    shares: int

    def batch(self, key: Key[Array, ""]) -> tuple[Float[Array, "size D"], Key[Array, ""]]:
        """The batch of a step, and the key for what else is drawn in it."""
        key_batch, key = jax.random.split(key)
        return batch_of(self.X, self.batch_size, self.shares, key_batch), key


def _of_batch(w: Any, problem: Problem, key: Key[Array, ""]) -> Float[Array, ""]:
    X, key = problem.batch(key)
    return problem.value(w, X, problem.rest, key)


def shares_of(X: Any) -> int:
    """k, where the rows of X lie on k devices in equal shares; 1 where one device holds them all."""
    if not isinstance(X, jax.Array) or isinstance(X, jax.core.Tracer):
        return 1
    rows, *_ = X.sharding.shard_shape(X.shape)
    return len(X) // rows


def batch_of(X: Float[Array, "N D"], size: int, shares: int, key: Key[Array, ""]) -> Float[Array, "size D"]:
    """x_{i_1}, …, x_{i_size}, i ~ U{1 … N}: independent draws, size / shares of them from each share of the rows.

    X: [N, D], data. size: a multiple of `shares`; where it is N or more, X itself is returned. shares: `shares_of(X)`,
    asked for before compilation, because a traced array has no place. A device draws from its own rows only, so that
    no datum travels between devices and each of them computes its part of the batch.
    """
    if size >= len(X):
        return X
    rows = len(X) // shares
    chosen = jax.random.randint(key, (shares, size // shares), 0, rows)
    drawn = jax.vmap(lambda share, k: share[k])(X.reshape(shares, rows, X.shape[1]), chosen)
    return drawn.reshape(size, X.shape[1])


def _problem(value: Value, X: Any, rest: Any, batch_size: int) -> Problem:
    shares = shares_of(X)
    size = min(-(-batch_size // shares) * shares, len(X))
    return Problem(value, jnp.asarray(X, float), rest, size, shares)
