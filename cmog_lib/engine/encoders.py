"""Of encoders, a reader's own among them: the parts, the q that they return, and finite numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from cmog_lib.engine import door
from cmog_lib.engine.door import full_precision
from cmog_lib.engine.modules import traced
from cmog_lib.posteriors import Gaussian

SEEN = 1024  # number of data to inspect if a bound is not finite
FAR, WIDE = 1e3, 10.0  # m(x) or s(x) too large for any posterior under p(t) = N(0, I); standard deviation of raw data


@full_precision
def checked(encoder: Any, w: Any = None) -> Any:
    """The encoder as a module; raises ValueError where a part is missing or does not fit, or is not that of w."""
    missing = [part for part in ("latent_dim", "data_dim", "__call__") if not hasattr(encoder, part)]
    if missing:
        raise ValueError(
            "encoder must have latent_dim, data_dim and q = encoder(x);"
            f" got {type(encoder).__name__} without {', '.join(missing)}"
        )
    for part in ("latent_dim", "data_dim"):
        its = door.count(f"encoder.{part}", getattr(encoder, part))
        ours = its if w is None else getattr(w, part)
        if ours != its:
            raise ValueError(f"encoder.{part} must be the decoder's, w.{part} = {ours}, got {its}")
    expected = f"encoder(x) must be a posteriors.Gaussian over t of shape [{encoder.latent_dim}]"
    try:
        encoder = traced(encoder, "data_dim")
        q = door.called(encoder, encoder.data_dim)
    except Exception as error:  # whatever a class written in a notebook may raise
        raise ValueError(f"{expected}, got none: it raised {type(error).__name__}: {error}") from error
    if not isinstance(q, Gaussian) or q.m.shape != (encoder.latent_dim,):
        came = f"{type(q).__name__}" + (f" over t of shape {list(q.m.shape)}" if isinstance(q, Gaussian) else "")
        raise ValueError(f"{expected}, got {came}")
    return encoder


def finite(function: Callable[[Any, Array], Gaussian]) -> Callable[[Any, Array], Gaussian]:
    """A function of an encoder and X that raises ValueError where m or log s of a datum is no number."""

    @functools.wraps(function)
    def looked_at(encoder: Any, X: Array) -> Gaussian:
        q = function(encoder, X)
        good = (jnp.isfinite(q.m) & jnp.isfinite(q.log_s)).all(axis=1)
        if not isinstance(good, jax.core.Tracer) and not bool(good.all()):
            i = int(jnp.argmin(good))
            came = f"m = {q.m[i].tolist()} and log s = {q.log_s[i].tolist()}"
            raise ValueError(f"encoder must return a finite m and log s, got {came} for X[{i}]")
        return q

    return looked_at


def described(w: Any, encoder: Any, X: Any, key: Key[Array, ""]) -> str:
    """What encoder and decoder return for the first data, in words: for the message when a bound is not finite."""
    X = jnp.asarray(X[:SEEN])
    q = _encode(encoder, X)
    for name, part in (("m", q.m), ("log s", q.log_s)):
        if not bool(jnp.isfinite(part).all()):
            i = int(jnp.argmin(jnp.isfinite(part).all(axis=1)))
            return f"the encoder's {name}(x) is {part[i].tolist()} for X[{i}]"
    spread = float(jnp.std(X))
    said = f"the encoder's log s(x) reaches {float(q.log_s.max()):.3g} and |m(x)| {float(jnp.abs(q.m).max()):.3g}"
    if not bool((jnp.maximum(jnp.abs(q.m), q.s) < FAR).all()):
        said += f", where p(t) has a standard deviation of 1; the data have one of {spread:.3g}"
        return f"{said}: scale them, X / {spread:.3g}" if spread > WIDE else said
    return f"{said}; {door.described(w, q.sample(M=1, key=key)[0], X)}"


@eqx.filter_jit
def _encode(encoder: Any, X: Array) -> Gaussian:
    return jax.vmap(encoder)(X)
