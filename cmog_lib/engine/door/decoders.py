"""Of decoders, a reader's own among them: the parts, the shapes they return, and finite numbers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.engine.door.numbers import count
from cmog_lib.engine.door.precision import in_session


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
    known = getattr(f, "output_shapes", None)  # of a `modules.Plain`, which was called when it was made
    return known or (_traced if is_known(f) else _traced_anew)(f, width)


def _traced_anew(f: Any, width: int) -> Any:
    return jax.eval_shape(lambda x: f(x), jax.ShapeDtypeStruct((width,), jnp.result_type(float)))


def _traced(f: Any, width: int) -> Any:
    # One trace of a network takes a tenth of a second, and every public function asks for one.
    leaves, structure = jax.tree.flatten(f)
    try:
        return _of_shapes(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves), width, jnp.result_type(float))
    except TypeError:  # a static field that cannot be hashed
        return _traced_anew(f, width)


@lru_cache(maxsize=256)
def _of_shapes(structure: Any, shapes: tuple[Any, ...], width: int, dtype: Any) -> Any:
    leaves = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    return jax.eval_shape(
        lambda leaves, x: jax.tree.unflatten(structure, leaves)(x), leaves, jax.ShapeDtypeStruct((width,), dtype)
    )


def is_known(f: Any) -> bool:
    """Whether f is made of arrays and of classes of this library: then its shapes decide what it returns."""

    def foreign(node: Any) -> bool:
        return isinstance(node, eqx.Module) and type(node).__module__.partition(".")[0] not in ("cmog_lib", "equinox")

    return isinstance(f, eqx.Module) and all(map(eqx.is_array, jax.tree.leaves(f, is_leaf=foreign)))


def decoded(w: Any, T: jax.Array) -> None:
    """That `w(t)` gives finite mu and finite, positive sigma at every row of `T`.

    Raises ValueError naming the first latent and the first entry where it does not.
    """
    if wrong := undecoded(w, T):
        raise ValueError(wrong)


def undecoded(w: Any, T: jax.Array) -> str:
    """What `decoded` would say of `T`; nothing if mu and sigma are as they must be at every row."""
    mu, sigma = (np.asarray(part) for part in _decode(w, T))
    for name, value, good in (("mu", mu, np.isfinite(mu)), ("sigma", sigma, np.isfinite(sigma) & (sigma > 0))):
        if not good.all():
            k, j = (int(i) for i in np.argwhere(~good)[0])
            expected = "finite" if name == "mu" else "finite and positive"
            return (
                f"w must return {expected} {name}, got {name}[{j}] = {value[k, j]} at t = {np.asarray(T[k]).tolist()}"
                f" ({int((~good).any(axis=1).sum())} of {len(good)} latents tried)"
            )
    return ""


def described(w: Any, T: jax.Array, X: jax.Array) -> str:
    """What w makes of the latents `T` beside the data `X`, in words: which number is none, or how large all are."""
    if wrong := undecoded(w, T):
        return wrong
    mu, sigma = (np.asarray(part, np.float64) for part in _decode(w, T))
    x, most = np.asarray(X, np.float64), float(jnp.finfo(X.dtype).max)
    said = (
        f"mu(t) reaches {np.abs(mu).max():.3g}, sigma(t) goes from {sigma.min():.3g} to {sigma.max():.3g}, the data"
        f" reach {np.abs(x).max():.3g} with a standard deviation of {x.std():.3g}"
    )
    far = (np.abs(x).max() + np.abs(mu).max()) / sigma.min()
    if far**2 * x.shape[1] < most:
        return said
    return (
        f"{said}: (x - mu)/sigma is too large to be squared in {X.dtype}. Scale the data, or begin with a larger sigma"
    )


def at_modes(w: Any, T: jax.Array, log_p: jax.Array, widths: jax.Array) -> None:
    """That every search for a mode ended where log p(x,t|w) and w's slopes are finite: T [..., N, d], log_p [..., N].

    widths: [..., N, d] or [..., N, d, d], computed from the slopes at T. Raises ValueError naming the datum, the
    latent and what is not finite there.
    """
    if isinstance(log_p, jax.core.Tracer):
        return
    axes = tuple(range(log_p.ndim, widths.ndim))
    for value, good in ((log_p, jnp.isfinite(log_p)), (widths, jnp.isfinite(widths).all(axis=axes))):
        if bool(good.all()):
            continue
        at = tuple(int(i) for i in np.unravel_index(int(jnp.argmin(good)), good.shape))
        decoded(w, T[at][None])
        place = f"X[{at[-1]}] at t = {np.asarray(T[at]).tolist()}"
        if value is log_p:
            raise ValueError(
                f"w must make log p(x,t|w) finite somewhere, got {log_p[at]} for {place}, the best latent that was"
                f" found: in {log_p.dtype} (x - mu)/sigma is too large to be squared. Scale the data, or begin with a"
                " larger sigma"
            )
        raise ValueError(
            f"w must have finite slopes where the search for a mode ends, got dmu/dt or dsigma/dt that is not, for"
            f" {place}: look for √0, a norm at 0, or the untaken branch of a `where`"
        )


@eqx.filter_jit
def _decode(w: Any, T: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(lambda t: w(t))(T)
