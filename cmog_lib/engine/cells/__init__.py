"""log p(x|w) on cells that are halved where the mass is, until nothing moves: what `quadrature.exact` calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.decoders import as_module
from cmog_lib.engine.devices import by_process, gathered
from cmog_lib.engine.door import array, decoder, positive, warn

Cells = Callable[[int], tuple[np.ndarray, np.ndarray]]  # of a datum: t [S, d] and log_weight [S]


def few_latents(name: str, w: Any, given: dict[str, Any]) -> Any:
    """A decoder with one, two or three latent dimensions, as it is."""
    d = decoder(w).latent_dim
    if d > 3:
        raise ValueError(
            f"w.latent_dim must be 1, 2 or 3 for an exact sum over cells, got {d}: at 64 cells a dimension"
            f" {64.0**d:.3g} latents would be decoded and {64.0**d * 8 / 2**30:.3g} GiB held for each datum. Beyond 3,"
            f" log p(x|w) can only be estimated: log_p_x(w, X, monte_carlo({d}, M=M, key=key))"
        )
    return w


def in_double(name: str, X: Any, given: dict[str, Any]) -> Any:
    """Data in double precision, whatever the session's is."""
    with jax.enable_x64(True):
        return array(name, X, ("N", given["w"].data_dim))


def tolerance(name: str, value: Any, given: dict[str, Any]) -> float:
    """Nats that cells can reach."""
    value = positive(name, value)
    if not 1e-10 <= value <= 0.5:
        raise ValueError(f"{name} must be from 1e-10 to 0.5 nats, got {value}")
    return value


def log_p_x(w: Any, X: Any, tolerance: float) -> tuple[np.ndarray, np.ndarray, int, Cells]:
    """log p(x_i|w) and its error, how many latents this process decoded, and the cells of the i-th datum on demand.

    Equal to `quadrature.log_p_x` on a grid that is fine enough for every datum, up to the error.
    """
    from cmog_lib.engine.cells import refine

    evaluations = 0
    with jax.enable_x64(True):
        double = _here(as_module(w))

        def settled(rows: np.ndarray) -> np.ndarray:
            nonlocal evaluations
            values, error, evaluations, _ = refine.settle(double, rows.astype(float), tolerance)
            return np.stack([values, error], axis=1)

        values, error = by_process(settled, X).T

    def cells_of(i: int) -> tuple[np.ndarray, np.ndarray]:
        with jax.enable_x64(True):
            *_, cells = refine.settle(double, gathered(X[i : i + 1]).astype(float), tolerance)
        return cells

    missed = ~(error <= tolerance)
    if missed.any():
        worst = int(np.argmax(error))
        warn(
            f"exact did not reach tolerance={tolerance:g} for {missed.sum()} of {len(X)} data; the worst is"
            f" X[{worst}] with error {error[worst]:.2g}. Raise the tolerance; where the"
            f" error is inf, the decoder turns too fast or its sigma is too small for these cells"
        )
    return values, error, evaluations, cells_of


def _here(w: Any) -> Any:
    # In this process's own memory: what was learned from data over hosts lies on the devices of all.
    return jax.tree.map(lambda leaf: jnp.asarray(gathered(leaf)) if eqx.is_inexact_array(leaf) else leaf, w)
