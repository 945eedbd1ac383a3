"""Stochastic: steps along noisy gradients, compiled in chunks; between two chunks the bar and Ctrl-C are served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from cmog_lib.engine import door
from cmog_lib.engine.door import full_precision
from cmog_lib.engine.optimise.checkpoint import Checkpoint
from cmog_lib.engine.optimise.faults import Ascent, NotFinite, T, given_back, observed, parameters_of, scalar
from cmog_lib.engine.optimise.interrupts import interruptible, look


@full_precision
@interruptible
def ascend(
    objective: Callable[[Any, Any, Key[Array, ""]], Float[Array, ""]],
    w: T,
    data: PyTree | Iterator[PyTree],
    *,
    steps: int,
    key: Key[Array, ""],
    optimiser: Any = None,
    learning_rate: float = 1e-3,
    chunk: int = 50,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> Ascent[T]:
    """w ← w + step(∇_w objective(w, data, key)), stochastic, `steps` times: maximises the objective's expectation.

    Args:
        objective: returns a scalar; it gets a new key at every step. A function that is defined once, not anew for each
            call, is compiled once.
        w: any pytree, whose floating-point arrays are moved.
        data: any pytree of arrays, passed to the objective. Or an iterator over such pytrees, for example `pieces`:
            each chunk of steps gets the next element, and the ascent ends with the iterator.
        steps: number of steps.
        key: a typed key.
        optimiser: from optax, built as for minimising; by default Adam with `learning_rate`.
        learning_rate: of the default optimiser.
        chunk: number of steps between two updates of the bar. Ctrl-C takes effect then, and the result so far is
            returned with `interrupted` set.
        progress: show the bar.
        checkpoint: a file that is written after every chunk. If it exists already, the same call continues from it and
            ends with the numbers of an uninterrupted run. All numbers of the data identify the run; for an iterator,
            its first element and `chunk` do. Of several processes the first writes the file, and all must be able to
            read it.

    Returns:
        w, and the value before every step taken.

    Raises:
        NotFinite: if the value or w is not finite, or a gradient from which the optimiser made such a w.
        ValueError: for an invalid argument, and for a checkpoint that is damaged or belongs to another run.
    """
    from tqdm.auto import tqdm

    steps, chunk, key = door.count("steps", steps), door.count("chunk", chunk), door.key(key)
    parameters, rest = parameters_of(w)
    door.function("objective", objective)
    rate, default = jnp.asarray(door.positive("learning_rate", learning_rate), float), optimiser is None
    optimiser = _adam() if default else optimiser
    if not (callable(getattr(optimiser, "init", None)) and callable(getattr(optimiser, "update", None))):
        raise ValueError(f"optimiser must be one of optax's, with init and update, got {type(optimiser).__name__}")
    state = optimiser.init(parameters)
    if default:
        state.hyperparams["learning_rate"] = rate
    reached: tuple[Any, list[np.ndarray]] = ((parameters, state, jnp.asarray(-1)), [np.zeros(0)])
    done, file, streamed = 0, None, isinstance(data, Iterator)
    if checkpoint is not None:
        start, seen = reached[0], [data]
        if streamed:  # a piece is a sample of rows, drawn by a key: of other data it is another
            seen = list(islice(data, 1))
            data = chain(seen, data)
        file = Checkpoint(checkpoint, key, seen, chunk if streamed else None, rest, start)
        if found := file.load(lambda step: (start, [np.zeros(step)])):
            done, reached = found
            door.count("steps", steps, done, why=f"the checkpoint {file.path} holds so many")
    interrupted, each = False, islice(data, -(-done // chunk), None) if streamed else repeat(data)
    with tqdm(total=steps, initial=done, desc="compiling", disable=not progress, unit="step", leave=False) as bar:
        try:
            for first, piece in zip(range(done, steps, chunk), each, strict=False):
                now = (rest, piece, key, jnp.arange(first, first + chunk), jnp.asarray(steps))
                carry, values, taken, good = _chunk(objective, optimiser, False, reached[0], *now)
                if not good:  # once more, looking at every step, to name the one that failed and to keep what was good
                    carry, values, taken, _ = _chunk(objective, optimiser, True, reached[0], *now)
                values, step = np.asarray(values)[: int(taken)], first + int(taken)
                reached = (carry, [*reached[1], values])  # in one go, for a second Ctrl-C may come at any time
                if (cause := int(carry[2])) >= 0:
                    value, slope = _value_and_gradient(objective, carry[0], rest, piece, key, jnp.asarray(step))
                    length = f"the learning rate ({float(rate):g})" if default else "the optimiser's learning rate"
                    said = observed(cause, value, slope, parameters, carry[0], step, piece, length)
                    good = Ascent(given_back(eqx.combine(rest, carry[0])), np.concatenate(reached[1]))
                    raise NotFinite(f"step {step}: {said}", step, good)
                if file is not None:
                    file.save(step, (carry, [np.concatenate(reached[1])]))
                bar.set_description_str("", refresh=False)
                bar.update(len(values))
                bar.set_postfix(value=f"{values.mean():.6g}")
                look()
        except KeyboardInterrupt:
            interrupted = True
    return Ascent(given_back(eqx.combine(rest, reached[0][0])), np.concatenate(reached[1]), interrupted)


@lru_cache(maxsize=1)
def _adam() -> Any:
    # One object for all calls, with the learning rate in its state: another rate compiles nothing anew.
    import optax  # type: ignore[import-untyped]

    return optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)


def _objective_at(objective, rest, data, key, index):
    """objective(w, data, key of this step) as a function of the parameters of w alone."""
    return lambda parameters: scalar(objective(eqx.combine(parameters, rest), data, jax.random.fold_in(key, index)))


@eqx.filter_jit
def _value_and_gradient(objective, parameters, rest, data, key, index):
    return jax.value_and_grad(_objective_at(objective, rest, data, key, index))(parameters)


@eqx.filter_jit
def _chunk(objective, optimiser, watched, carry, rest, data, key, indices, steps):
    """The carry after a chunk, the values, how many steps they are of, and whether all of it is finite.

    watched: stop where something is not, with the last good state; to look at every number costs a fifth of a step.
    """

    def step(carry, index):
        parameters, state, _ = carry
        value, gradient = jax.value_and_grad(_objective_at(objective, rest, data, key, index))(parameters)
        # Optimisers descend.
        updates, state_new = optimiser.update(jax.tree.map(jnp.negative, gradient), state, parameters)
        moved = jax.tree.map(lambda old, update: old + update.astype(old.dtype), parameters, updates)
        if not watched:
            return (moved, state_new, carry[2]), value
        # As they are numbered in faults.
        causes = jnp.stack([~jnp.isfinite(value), ~all_finite(gradient), ~all_finite(moved)])
        good = ~causes.any()
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), (moved, state_new), (parameters, state))
        return (*kept, jnp.where(good, -1, jnp.argmax(causes))), jnp.where(good, value, 0)

    def guarded(carry, index):
        # Past the last step, and after the first failure, nothing moves: one compiled chunk serves every length.
        blank = eqx.filter_eval_shape(step, carry, index)[1]
        runs = (index < steps) & (carry[2] < 0)
        carry, value = jax.lax.cond(runs, step, lambda carry, _: (carry, jnp.zeros((), blank.dtype)), carry, index)
        return carry, (value, runs & (carry[2] < 0))

    last, (values, taken) = jax.lax.scan(guarded, carry, indices)
    # What was not finite at one step is not at the next: Adam's averages keep it.
    return last, values, taken.sum(), all_finite((last[0], values))


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every number is finite."""
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def steps_of_adam(
    objective: Callable[..., Any], w: PyTree, data: PyTree, *, steps: int, learning_rate: Array
) -> tuple[PyTree, Bool[Array, ""]]:
    """`ascend(objective, w, data, steps=steps, learning_rate=learning_rate, …)` inside a compiled function.

    Returns the floating-point arrays of w, moved, and whether they and all values are finite.
    """
    parameters, rest = parameters_of(w)
    state = _adam().init(parameters)
    state.hyperparams["learning_rate"] = learning_rate
    begun, indices = (parameters, state, jnp.asarray(-1)), jnp.arange(steps)
    key = jax.random.key(0)  # of an objective without any draws
    (moved, *_), _, _, good = _chunk(objective, _adam(), False, begun, rest, data, key, indices, jnp.asarray(steps))
    return moved, good
