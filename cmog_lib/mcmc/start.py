"""The start of chains: the arguments that every sampler checks, and its first states."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder, projected
from cmog_lib.engine.devices import gathered
from cmog_lib.engine.door import array, in_session, positive
from cmog_lib.mcmc.chains import Chains
from cmog_lib.mcmc.steps import State, state_at
from cmog_lib.posteriors import FullGaussian


class Start(NamedTuple):
    """Arguments that have been checked, and C chains for each of N data: states, their scale [N, d, d], step [C, N].

    w and X are `decoders.projected`, so log_p of the states is log p(x,t|w) up to a constant.
    """

    w: Any
    X: Float[Array, "N D"]
    states: State
    scale: Float[Array, "N d d"]
    step: Float[Array, "C N"]
    target: Float[Array, ""]
    key: Key[Array, ""]


def begin(
    w: Decoder,
    X: Array,
    start: Any,
    target: float,
    chains: int,
    key: Key[Array, ""],
    *,
    slopes: bool,
) -> Start:
    """The first states; arguments as in `metropolis`. slopes: whether the sampler needs ∇log p(x,t|w).

    Raises ValueError for a start at which log p or, with slopes, its gradient is not finite.
    """
    # The chains need p(x,t|w) only up to a factor without t: x enters through its sufficient statistic for t.
    w, X, _ = projected(w, X)
    key, key_start = jax.random.split(key)
    t, scale, step = _places(start, w, X, chains, key_start)
    states = states_at(w, X, t)
    for what, values in {"log p(x,t|w)": states.log_p, "∇log p(x,t|w)": states.gradient if slopes else None}.items():
        if values is None or bool(jnp.isfinite(values).all()):
            continue
        came = gathered(values)
        c, i = np.argwhere(~np.isfinite(came))[0][:2].tolist()
        raise ValueError(
            f"start must be where {what} is finite, got {came[c, i].tolist()} for chain {c} of X[{i}],"
            f" at t = {gathered(t)[c, i].round(6).tolist()}; start elsewhere (laplace)"
            + (", or look for √0, a norm at 0, or the untaken branch of a `where` in w" if came.ndim == 3 else "")
        )
    return Start(w, X, states, scale, step, jnp.asarray(target, X.dtype), key)


@eqx.filter_jit
def states_at(w: Any, X: Float[Array, "N D"], t: Float[Array, "C N d"]) -> State:
    """`state_at` for every chain of every datum."""
    over_data = jax.vmap(state_at, in_axes=(None, 0, 0))
    return jax.vmap(over_data, in_axes=(None, None, 0))(w, X, t)


def _places(start: Any, w: Any, X: Array, chains: int, key: Array) -> tuple[Array, Array, Array]:
    """t [C, N, d], scale [N, d, d], step [C, N]."""
    N, d = len(X), w.latent_dim
    if isinstance(start, Chains):
        return start.last, start.scale, start.step
    if isinstance(start, FullGaussian):
        t, scale = start.sample(M=chains, key=key), start.L
    else:
        t, scale = start, jnp.broadcast_to(jnp.eye(d, dtype=start.dtype), (N, d, d))
    return t, scale, jnp.full(t.shape[:2], d**-0.25, t.dtype)


def place(name: str, start: Any, given: dict[str, Any]) -> Any:
    """Checks `start`: other chains, a Gaussian for each datum, or points."""
    (N, d), start = (len(given["X"]), given["w"].latent_dim), in_session(start)
    if isinstance(start, Chains):
        array(f"{name}.last", start.last, ("C", N, d))
    elif isinstance(start, FullGaussian):
        array(f"{name}.m", start.m, (N, d))
    else:
        return array(name, start, ("C", N, d))
    return start


def acceptance(name: str, target: Any, given: dict[str, Any]) -> float:
    """Checks the target of a warm-up: an acceptance between 0 and 1."""
    if not positive(name, target) < 1:
        raise ValueError(f"{name} must be an acceptance between 0 and 1, got {target}")
    return target
