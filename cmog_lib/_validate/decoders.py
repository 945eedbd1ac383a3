"""Of decoders, a reader's own among them: the parts, the shapes they return, and finite numbers."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib._validate.numbers import count
from cmog_lib._validate.precision import in_session


def decoder(w: Any) -> Any:
    """Checks that w is a decoder: `latent_dim`, `data_dim` and `mu, sigma = w(t)`, both of shape [data_dim].

    Returns w, its arrays in the session's precision. Raises ValueError when a part is missing or the shapes are wrong.
    """
    missing = [part for part in ("latent_dim", "data_dim", "__call__") if not hasattr(w, part)]
    if missing:
        raise ValueError(
            f"w must be a decoder with latent_dim, data_dim and mu, sigma = w(t); "
            f"got {type(w).__name__} without {', '.join(missing)}"
        )
    d, D = count("w.latent_dim", w.latent_dim), count("w.data_dim", w.data_dim)
    expected = (
        f"w(t) must return mu and sigma, each floating-point of shape [{D}] (w.data_dim), for t of shape [{d}]"
        f" (w.latent_dim)"
    )
    try:
        output = called(w, d)
    except Exception as error:  # whatever a class written in a notebook may raise
        raise ValueError(f"{expected}; got none: it raised {type(error).__name__}: {error}") from error
    parts = jax.tree.leaves(output)
    fits = all(part.shape == (D,) and jnp.issubdtype(part.dtype, jnp.floating) for part in parts)
    if not isinstance(output, tuple) or len(parts) != 2 or not fits:
        came = ", ".join(f"{part.dtype}{list(part.shape)}" for part in parts)
        kind = "array" if isinstance(output, jax.ShapeDtypeStruct) else type(output).__name__
        raise ValueError(f"{expected}; got {kind} of {came or 'nothing'}")
    return in_session(w)


def called(f: Any, width: int) -> Any:
    """What f(x) returns for x [width], as shapes."""
    known = getattr(f, "output_shapes", None)  # of a `decoders.Plain`, which was called when it was made
    return known or jax.eval_shape(lambda x: f(x), jax.ShapeDtypeStruct((width,), jnp.result_type(float)))


def decoded(w: Any, T: jax.Array) -> None:
    """That `w(t)` gives finite mu and finite, positive sigma at every row of `T`.

    Raises ValueError naming the first latent and the first entry where it does not.
    """
    mu, sigma = (np.asarray(part) for part in _decode(w, T))
    for name, value, good in (("mu", mu, np.isfinite(mu)), ("sigma", sigma, np.isfinite(sigma) & (sigma > 0))):
        if not good.all():
            k, j = (int(i) for i in np.argwhere(~good)[0])
            expected = "finite" if name == "mu" else "finite and positive"
            raise ValueError(
                f"w must return {expected} {name}, got {name}[{j}] = {value[k, j]} at t = {np.asarray(T[k]).tolist()}"
                f" ({int((~good).any(axis=1).sum())} of {len(good)} latents tried)"
            )


@eqx.filter_jit
def _decode(w: Any, T: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(lambda t: w(t))(T)
