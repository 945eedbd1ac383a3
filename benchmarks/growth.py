"""How cost grows with N, D, d and M: seconds at doubled sizes, and the slope they have on logarithmic axes.

`make bench ARGS=growth` measures, prints the slopes beside those that the formulas have, and draws docs/growth.png. A
slope is fitted to the upper half of the sizes: below, what any call costs counts too. Each point is the shortest of
REPEATS calls, all compiled before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib import bound, decoders, model, posteriors, ppca

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "growth.png"
REPEATS = 7
COLOURS = ("#0072B2", "#D55E00", "#007A5C", "#8C4A84")


class Growth(NamedTuple):
    """What is called, at which sizes of what, and the slope that its formula has."""

    name: str
    symbol: str
    what: str
    sizes: tuple[int, ...]
    theory: float
    why: str
    prepared: Callable[[int], Callable[[], Any]]


def doubled(first: int, times: int) -> tuple[int, ...]:
    """first, 2 first, 4 first …"""
    return tuple(first * 2**k for k in range(times))


def normal(*shape: int) -> Any:
    """Numbers."""
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def table(N: int) -> Callable[[], Any]:
    """log p(x_i|t_k,w) for N data."""
    w, X, T = decoders.MLP(2, 784, key=jax.random.key(0)), normal(N, 784), normal(1024, 2)
    return lambda: model.log_p_x_given_t_table(w, X, T)


def spectrum(D: int) -> Callable[[], Any]:
    """Every latent dimension of PPCA, in D dimensions."""
    X = normal(2048, D)
    return lambda: ppca.fit_all(X).log_likelihood


def observed(d: int) -> Callable[[], Any]:
    """log p(x_observed|w), d latents: an own posterior covariance for each datum."""
    w = decoders.Linear(normal(784, d) / 28, jnp.zeros(784), jnp.zeros(()))
    X = normal(128, 784)
    log_p_x = jax.jit(jax.vmap(partial(ppca.log_p_x_observed, w)))
    return lambda: log_p_x(X)


def importance(M: int) -> Callable[[], Any]:
    """The importance-weighted bound with M draws."""
    w = decoders.MLP(2, 784, key=jax.random.key(0))
    q, x = posteriors.Gaussian(jnp.zeros(2), jnp.zeros(2)), normal(784)
    weighted = jax.jit(lambda key: bound.importance(w, q, x, M=M, key=key))
    return lambda: weighted(jax.random.key(0))


GROWTH = (
    Growth("model.log_p_x_given_t_table", "N", "data", doubled(256, 8), 1, "2 N S D", table),
    Growth("ppca.fit_all", "D", "dimensions", doubled(32, 7), 2, "N D², then D³", spectrum),
    Growth("ppca.log_p_x_observed", "d", "latents", doubled(8, 6), 2, "D d² per datum", observed),
    Growth("bound.importance", "M", "draws", doubled(2048, 7), 1, "M decoder calls", importance),
)


def seconds(call: Callable[[], Any]) -> float:
    """The shortest of REPEATS calls."""
    jax.block_until_ready(call())
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times)


def slope(sizes: tuple[int, ...], taken: list[float]) -> float:
    """Of log seconds against log size, over the upper half."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(taken[half:]), 1)[0])


def measured() -> list[list[float]]:
    """Seconds, for every growth at every size."""
    from tqdm import tqdm

    with tqdm(total=sum(len(each.sizes) for each in GROWTH), unit="size") as bar:

        def one(each: Growth, size: int) -> float:
            bar.set_postfix_str(f"{each.name}, {each.symbol} = {size}")
            taken = seconds(each.prepared(size))
            bar.update()
            return taken

        return [[one(each, size) for size in each.sizes] for each in GROWTH]


def as_table(taken: list[list[float]]) -> str:
    """In Markdown."""
    lines = ["| function | grows with | cost | expected slope | measured slope |", "|---|---|---|---|---|"]
    for each, times in zip(GROWTH, taken, strict=True):
        found = slope(each.sizes, times)
        sizes = f"{each.symbol}, the number of {each.what}, up to {each.sizes[-1]}"
        lines.append(f"| `{each.name}` | {sizes} | {each.why} | {each.theory} | {found:.2f} |")
    return "\n".join(lines)


def draw(taken: list[list[float]]) -> None:
    """The picture in the README."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 12, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.9), layout="constrained")
    for axis, each, times, colour in zip(axes, GROWTH, taken, COLOURS, strict=True):
        half = len(each.sizes) // 2
        sizes, found = np.asarray(each.sizes, float), slope(each.sizes, times)
        middle = np.exp(np.mean(np.log(times[half:])))
        expected = middle * (sizes / np.exp(np.mean(np.log(sizes[half:])))) ** each.theory
        axis.loglog(
            sizes, np.multiply(times, 1e3), "o", color=colour, markersize=7, label=f"measured: slope {found:.2f}"
        )
        axis.loglog(
            sizes[half - 1 :], 1e3 * expected[half - 1 :], "--", color="#4D4D4D", label=f"expected: slope {each.theory}"
        )
        axis.set(title=each.name, xlabel=f"{each.symbol}, {each.what}")
        axis.set_xticks(sizes[::2], [f"{size:.0f}" for size in sizes[::2]])
        axis.minorticks_off()
        axis.legend(frameon=False, loc="upper left", fontsize=11)
        axis.set_ylim(top=axis.get_ylim()[1] * 4)
    axes[0].set_ylabel("milliseconds")
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


def run() -> str:
    """Measures, draws, and returns the table."""
    taken = measured()
    draw(taken)
    return as_table(taken)
