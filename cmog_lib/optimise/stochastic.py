"""Stochastic: steps along noisy gradients, compiled in chunks, with a look at the bar and at Ctrl-C between two."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from cmog_lib import _validate
from cmog_lib.optimise.faults import CAUSES, Ascent, NotFinite, parameters_of, scalar


def ascend(
    objective: Callable[[Any, Any, Key[Array, ""]], Float[Array, ""]],
    w: PyTree,
    data: PyTree,
    *,
    steps: int,
    key: Key[Array, ""],
    optimiser: Any = None,
    learning_rate: float = 1e-3,
    chunk: int = 50,
    progress: bool = True,
) -> Ascent:
    """w ← w + step(∇_w objective(w, data, key)), stochastic, `steps` times: maximises the objective's expectation.

    objective: returns a scalar; a function defined once, not anew for each call, is compiled once. It gets a fresh key
    at every step. w: any pytree, whose floating-point arrays are moved. data: any pytree of arrays, handed through.
    optimiser: from optax, built as for minimising; by default Adam with `learning_rate`. chunk: steps between two
    looks at the bar and at Ctrl-C, which returns what there is, with `interrupted` set. progress: show the bar.
    Raises NotFinite when the value or w is not finite, or a gradient of which the optimiser made such a w; ValueError
    for any argument that is no such thing.
    """
    from tqdm.auto import tqdm

    steps, chunk, key = _validate.count("steps", steps), _validate.count("chunk", chunk), _validate.key(key)
    parameters, rest = parameters_of(w)
    rate, default = jnp.asarray(_validate.positive("learning_rate", learning_rate), float), optimiser is None
    optimiser = _adam() if default else optimiser
    state = optimiser.init(parameters)
    if default:
        state.hyperparams["learning_rate"] = rate
    carry = (parameters, state, jnp.asarray(-1))
    trace: list[np.ndarray] = [np.zeros(0)]
    interrupted = False
    with tqdm(total=steps, desc="compiling", disable=not progress, unit="step", leave=False) as bar:
        for first in range(0, steps, chunk):
            try:
                now = (rest, data, key, jnp.arange(first, first + chunk), jnp.asarray(steps))
                carry_new, values, good = _chunk(objective, optimiser, False, carry, *now)
                if not good:  # once more, looking at every step, to name the one that failed and to keep what was good
                    carry_new, values, _ = _chunk(objective, optimiser, True, carry, *now)
                values = np.asarray(values)[: steps - first]
            except KeyboardInterrupt:
                interrupted = True
                break
            carry, cause = carry_new, int(carry_new[2])
            trace.append(values[~np.isnan(values)] if cause >= 0 else values)
            if cause >= 0:
                step, ascent = first + len(trace[-1]), Ascent(eqx.combine(carry[0], rest), np.concatenate(trace))
                raise NotFinite(f"step {step}: {CAUSES[cause]}", step, ascent)
            bar.set_description_str("", refresh=False)
            bar.update(len(values))
            bar.set_postfix(value=f"{values.mean():.6g}")
    return Ascent(eqx.combine(carry[0], rest), np.concatenate(trace), interrupted)


@lru_cache(maxsize=1)
def _adam() -> Any:
    # One object for all calls, with the learning rate in its state: another rate compiles nothing anew.
    import optax  # type: ignore[import-untyped]

    return optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)


@eqx.filter_jit
def _chunk(objective, optimiser, watched, carry, rest, data, key, indices, steps):
    """The carry after a chunk, the values, and whether all of both are finite.

    watched: stop where something is not, with the last good state; to look at every number costs a fifth of a step.
    """

    def finite(tree: PyTree) -> Bool[Array, ""]:
        return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))

    def step(carry, index):
        parameters, state, _ = carry

        def value_at(parameters):
            return scalar(objective(eqx.combine(parameters, rest), data, jax.random.fold_in(key, index)))

        value, gradient = jax.value_and_grad(value_at)(parameters)
        # Optimisers descend.
        updates, state_new = optimiser.update(jax.tree.map(jnp.negative, gradient), state, parameters)
        moved = jax.tree.map(lambda old, update: old + update.astype(old.dtype), parameters, updates)
        if not watched:
            return (moved, state_new, carry[2]), value
        causes = jnp.stack([~jnp.isfinite(value), ~finite(gradient), ~finite(moved)])
        good = ~causes.any()
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), (moved, state_new), (parameters, state))
        return (*kept, jnp.where(good, -1, jnp.argmax(causes))), jnp.where(good, value, jnp.nan)

    def guarded(carry, index):
        # Past the last step, and after the first failure, nothing moves: one compiled chunk serves every length.
        blank = eqx.filter_eval_shape(step, carry, index)[1]
        runs = (index < steps) & (carry[2] < 0)
        return jax.lax.cond(runs, step, lambda carry, _: (carry, jnp.full((), jnp.nan, blank.dtype)), carry, index)

    last, values = jax.lax.scan(guarded, carry, indices)
    # What was not finite at one step is not at the next: Adam's averages keep it. NaN stands for steps not taken.
    return last, values, finite(last[0]) & jnp.all(jnp.isfinite(values) | (indices >= steps))
