"""Curves over a slider's values, over a latent, over cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Literal

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cmog_lib.classroom import style

MARKERS = "osD^vX"
Corner = Literal["upper left", "upper right", "lower left", "lower right"]


def prior(ax: Axes, t: ArrayLike, p_t: ArrayLike, *, at: float) -> None:
    """The prior density of one latent, with the chosen point on it."""
    ax.plot(t, p_t, color=style.PRIOR)
    ax.fill_between(t, p_t, color=style.PRIOR, alpha=0.12)
    ax.axvline(at, color=style.POSTERIOR, ls="--", lw=1.6)
    ax.plot(at, np.interp(at, np.asarray(t), np.asarray(p_t)), "o", color=style.POSTERIOR, ms=11, mec="black")
    ax.set(title=r"$p(t) = \mathcal{N}(0, 1)$", xlabel="t", ylim=(0, 0.45), yticks=[0, 0.2, 0.4])


def histogram(ax: Axes, draws: ArrayLike, t: ArrayLike, p_t: ArrayLike) -> None:
    """Draws of one latent under the density they came from."""
    ax.hist(np.asarray(draws), bins=24, density=True, color=style.DATA, alpha=0.45, label="draws")
    ax.plot(t, p_t, color=style.PRIOR, label="$p(t)$")
    ax.legend(loc="upper left")
    ax.set(title=r"$t \sim p(t)$", xlabel="t", ylim=(0, 0.55))


def posterior(ax: Axes, t: ArrayLike, density: ArrayLike, *, prior: ArrayLike, highest: float) -> Line2D:
    """A posterior density over one latent, with the prior behind it. Returns its curve, to be given other heights."""
    ax.plot(t, prior, color=style.PRIOR, ls="--", label="$p(t)$")
    (curve,) = ax.plot(t, density, color=style.POSTERIOR, label=r"$p(t\mid x)$")
    ax.set(title="where on the path?", xlabel="t", ylabel="density", ylim=(0, highest))
    ax.legend(loc="upper right")
    return curve


def count_humps(values: ArrayLike, at_least: float = 0.02) -> int:
    """How many local maxima reach `at_least` of the highest one."""
    height = np.asarray(values)
    inner = height[1:-1]
    return int(np.sum((inner > height[:-2]) & (inner >= height[2:]) & (inner > at_least * height.max())))


def curve_with_point(ax: Axes, x: Sequence[float], y: Sequence[float], at: float, *, log: str = "") -> None:
    """One curve, with a dot at the slider's value. log: "", "x", "y" or "both"."""
    ax.plot(x, y, color=style.MODEL)
    ax.plot(at, y[list(x).index(at)], "o", color=style.HIGHLIGHT, ms=12, mec="black", zorder=5)
    ax.set(xscale="log" if log in ("x", "both") else "linear", yscale="log" if log in ("y", "both") else "linear")
    ax.minorticks_off()
    ax.grid(alpha=0.25)


def lines_with_point(
    ax: Axes, x: Sequence[float], lines: Mapping[str, ArrayLike], at: float, *, legend: Corner, markers: bool = True
) -> None:
    """Several curves told apart by colour, dash and marker, with a line at the slider's value."""
    for (name, y), marker in zip(lines.items(), cycle(MARKERS), strict=False):
        ax.plot(x, y, marker=marker if markers else None, ms=6, label=name)
    ax.axvline(at, color="black", lw=1.2, ls=":")
    ax.legend(loc=legend)
    ax.grid(alpha=0.25)


def lines_with_moving_point(
    ax: Axes, x: Sequence[float], lines: Mapping[str, ArrayLike], *, legend: Corner
) -> Callable[[float], None]:
    """As `lines_with_point`, drawn once: the function that comes back moves the line and rings each curve there."""
    lines_with_point(ax, x, lines, x[0], legend=legend)
    line = ax.lines[-1]
    (rings,) = ax.plot([x[0]] * len(lines), [np.nan] * len(lines), "o", ms=14, mfc="none", mec="black", mew=1.8)

    def move_to(at: float) -> None:
        line.set_xdata([at, at])
        rings.set_data([at] * len(lines), [float(np.asarray(y)[list(x).index(at)]) for y in lines.values()])

    return move_to


def traces(ax: Axes, lines: Mapping[str, ArrayLike], *, every: int) -> None:
    """Noisy traces over steps, each averaged over `every` steps."""
    for name, y in lines.items():
        trace = np.asarray(y)
        values = trace[: len(trace) // every * every].reshape(-1, every).mean(axis=1)
        ax.plot(every * (np.arange(len(values)) + 0.5), values, label=name)
    ax.legend(loc="center right", ncols=2)
    ax.grid(alpha=0.25)


def scores(ax: Axes, names: Sequence[str], rows: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """One mark for each name and row, at (mean, standard error), with its error bar of two standard errors."""
    for (row, values), marker in zip(rows.items(), cycle(MARKERS), strict=False):
        mean, error = np.asarray(values).T
        ax.errorbar(range(len(names)), mean, yerr=2 * error, fmt=marker, ms=9, capsize=5, label=row)
    ax.set_xticks(range(len(names)), names)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.legend(loc="lower right")
    ax.grid(axis="y", alpha=0.25)


def error_curves(
    ax: Axes, x: Sequence[float], lines: Mapping[str, ArrayLike], *, floor: float, at: float | None = None
) -> None:
    """Errors on logarithmic axes; anything below `floor` is drawn there. at: a line at the slider's value."""
    for (name, y), marker in zip(lines.items(), cycle(MARKERS), strict=False):
        ax.plot(x, np.maximum(np.asarray(y), floor), marker=marker, ms=7, label=name)
    if at is not None:
        ax.axvline(at, color="black", lw=1.2, ls=":")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(x, [f"{value:g}" for value in x], minor=False)
    ax.minorticks_off()
    ax.legend(loc="upper right")
    ax.grid(alpha=0.25)


def staircase(
    ax: Axes, log_likelihood: ArrayLike, bound: ArrayLike, maximum: float, *, steps: int, lowest: float
) -> None:
    """log p(X|w) and L(w, q) after every half-step of EM, up to now, under the maximum."""
    below, above = np.asarray(bound), np.asarray(log_likelihood)
    x = np.arange(len(below))
    ax.axhline(maximum, color=style.TRUTH, ls=":", lw=1.8)
    ax.annotate("maximum, closed form", (steps - 1, maximum), xytext=(0, 6), textcoords="offset points", ha="right")
    ax.plot(x, above, color=style.MODEL, marker="o", ms=7, label=r"$\log p(X|w)$")
    ax.plot(x, below, color=style.BOUND, marker="s", ms=6, ls="--", label=r"$\mathcal{L}(w, q)$")
    ax.plot(x[-1:].repeat(2), [below[-1], above[-1]], color="black", lw=1)
    ax.set(title="nats per datum", xlabel="half-steps", xlim=(-0.5, steps - 0.5))
    ax.locator_params(axis="x", integer=True)
    ax.set_ylim(lowest - 0.1, maximum + 0.1 * (maximum - lowest))
    ax.legend(loc="lower right")
    ax.grid(alpha=0.25)


def spectrum(ax: Axes, eigenvalues: ArrayLike, kept: int, sigma_squared: float) -> None:
    """The eigenvalues, the first `kept` of them filled, with σ² at the mean of the others."""
    y = np.asarray(eigenvalues)
    x = np.arange(1, len(y) + 1)
    ax.plot(x[:kept], y[:kept], "o", color=style.MODEL, ms=6, label="kept")
    ax.plot(x[kept:], y[kept:], "o", color=style.DATA, mfc="white", ms=6, label="discarded")
    ax.plot([kept + 0.5, x[-1]], [sigma_squared] * 2, color=style.POSTERIOR, ls="--", label="their mean, σ²")
    ax.set(yscale="log", title="eigenvalues of S", xlabel="j", ylim=(1e-5, 2 * float(y.max())))
    ax.minorticks_off()
    ax.legend(loc="lower left", handlelength=1.2)
