"""An iteration of Monte Carlo EM whose M-step is a few steps of Adam, as one compiled function."""

from __future__ import annotations

from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool

from cmog_lib.engine.chains.sweep import sweep
from cmog_lib.engine.mode import scale_at
from cmog_lib.engine.optimise.faults import given_back, parameters_of
from cmog_lib.engine.optimise.stochastic import all_finite, steps_of_adam
from cmog_lib.engine.projection import projected_inside
from cmog_lib.engine.threads import one_blas_thread

Made = tuple[Array, Array, Array, Array, Array]  # what `sweep` returns


def iterated(
    rooms: Any, w: Any, X: Array, t: Array, step: Array, key: Array, **options: Any
) -> tuple[Any, Made] | None:
    """The new decoder and what `sweep` returns; None if something was not finite.

    The numbers are those of the functions that it is made of, called one after another, up to rounding. It does not
    look for the place where something is not finite: these functions do.

    Args:
        rooms: one chain's step, the state of all chains at their places, and the objective of the M-step.
        w: decoder.
        X: [N, D], data.
        t: [C, N, d], where the chains are.
        step: [C, N], their step size.
        key: random key of the chains.
        options: M, warm_up, target and leapfrogs of the chains; updates and learning_rate of the M-step.
    """
    with one_blas_thread():
        moved, made, good = _iterated(rooms, w, X, t, step, key, **options)
        finite = bool(good)
    return (given_back(eqx.combine(parameters_of(w)[1], moved)), made) if finite else None


@eqx.filter_jit
def _iterated(
    rooms: Any,
    w: Any,
    X: Array,
    t: Array,
    step: Array,
    key: Array,
    *,
    M: int,
    warm_up: int,
    target: Array,
    leapfrogs: int,
    updates: int,
    learning_rate: Array,
) -> tuple[Any, Made, Bool[Array, ""]]:
    step_of, states_at, objective = rooms
    seen, X_seen = projected_inside(w, X)
    states, scale = states_at(seen, X_seen, t), scale_at(seen, t[0])
    made = sweep(step_of, seen, X_seen, states, scale, step, key, M, warm_up, warm_up > 0, target, leapfrogs)
    draws = made[0].reshape(-1, *t.shape[1:])
    moved, good = steps_of_adam(objective, w, (X, draws), steps=updates, learning_rate=learning_rate)
    return moved, made, good & all_finite((states, scale))
