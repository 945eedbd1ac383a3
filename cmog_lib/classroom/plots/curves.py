"""Curves over a slider's values, over a latent, over a cost."""

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
    """Draws the prior density of one latent, with the chosen point on it.

    Args:
        ax: axes to draw in.
        t: latents.
        p_t: the density there.
        at: the chosen latent.
    """
    ax.plot(t, p_t, color=style.PRIOR)
    ax.fill_between(t, p_t, color=style.PRIOR, alpha=0.12)
    ax.axvline(at, color=style.POSTERIOR, ls="--", lw=1.6)
    ax.plot(at, np.interp(at, np.asarray(t), np.asarray(p_t)), "o", color=style.POSTERIOR, ms=11, mec="black")
    ax.set(title=r"$p(t) = \mathcal{N}(0, 1)$", xlabel="t", ylim=(0, 0.45), yticks=[0, 0.2, 0.4])


def histogram(ax: Axes, draws: ArrayLike, t: ArrayLike, p_t: ArrayLike) -> None:
    """Draws a histogram of draws of one latent, and the density from which they were drawn.

    Args:
        ax: axes to draw in.
        draws: the draws.
        t: latents.
        p_t: the density there.
    """
    ax.hist(np.asarray(draws), bins=24, density=True, color=style.DATA, alpha=0.45, label="draws")
    ax.plot(t, p_t, color=style.PRIOR, label="$p(t)$")
    ax.legend(loc="upper left")
    ax.set(title=r"$t \sim p(t)$", xlabel="t", ylim=(0, 0.55))


def posterior(ax: Axes, t: ArrayLike, density: ArrayLike, *, prior: ArrayLike, highest: float) -> Line2D:
    """Draws a posterior density over one latent, with the prior behind it.

    Args:
        ax: axes to draw in.
        t: latents.
        density: the posterior density there.
        prior: the prior density there.
        highest: end of the vertical axis.

    Returns:
        The posterior's curve; `set_ydata` gives it other values.
    """
    ax.plot(t, prior, color=style.PRIOR, ls="--", label="$p(t)$")
    (curve,) = ax.plot(t, density, color=style.POSTERIOR, label=r"$p(t\mid x)$")
    ax.set(title="where on the path?", xlabel="t", ylabel="density", ylim=(0, highest))
    ax.legend(loc="upper right")
    return curve


def count_humps(values: ArrayLike, at_least: float = 0.02) -> int:
    """The number of local maxima of a curve.

    Args:
        values: the curve.
        at_least: maxima below this share of the highest value do not count.
    """
    height = np.asarray(values)
    inner = height[1:-1]
    return int(np.sum((inner > height[:-2]) & (inner >= height[2:]) & (inner > at_least * height.max())))


def curve_with_point(ax: Axes, x: Sequence[float], y: Sequence[float], at: float, *, log: str = "") -> None:
    """Draws one curve, with a dot at the slider's value.

    Args:
        ax: axes to draw in.
        x: the slider's values.
        y: the curve there.
        at: the slider's value, one of x.
        log: which axes are logarithmic: "", "x", "y" or "both".
    """
    ax.plot(x, y, color=style.MODEL)
    ax.plot(at, y[list(x).index(at)], "o", color=style.HIGHLIGHT, ms=12, mec="black", zorder=5)
    ax.set(xscale="log" if log in ("x", "both") else "linear", yscale="log" if log in ("y", "both") else "linear")
    ax.minorticks_off()
    ax.grid(alpha=0.25)


def lines_with_point(
    ax: Axes, x: Sequence[float], lines: Mapping[str, ArrayLike], at: float, *, legend: Corner, markers: bool = True
) -> None:
    """Draws several curves that differ in colour, dash and marker, with a line at the slider's value.

    Args:
        ax: axes to draw in.
        x: the slider's values.
        lines: name ↦ curve.
        at: the slider's value.
        legend: its corner.
        markers: whether to draw markers.
    """
    for (name, y), marker in zip(lines.items(), cycle(MARKERS), strict=False):
        ax.plot(x, y, marker=marker if markers else None, ms=6, label=name)
    ax.axvline(at, color="black", lw=1.2, ls=":")
    ax.legend(loc=legend)
    ax.grid(alpha=0.25)


def lines_with_moving_point(
    ax: Axes, x: Sequence[float], lines: Mapping[str, ArrayLike], *, legend: Corner
) -> Callable[[float], None]:
    """Draws the curves of `lines_with_point` once, with a line that can be moved and a ring on each curve.

    Args:
        ax: axes to draw in.
        x: the slider's values.
        lines: name ↦ curve.
        legend: its corner.

    Returns:
        A function of the slider's value, one of x, that moves the line and the rings.
    """
    lines_with_point(ax, x, lines, x[0], legend=legend)
    line = ax.lines[-1]
    (rings,) = ax.plot([x[0]] * len(lines), [np.nan] * len(lines), "o", ms=14, mfc="none", mec="black", mew=1.8)

    def move_to(at: float) -> None:
        line.set_xdata([at, at])
        rings.set_data([at] * len(lines), [float(np.asarray(y)[list(x).index(at)]) for y in lines.values()])

    return move_to


def traces(ax: Axes, lines: Mapping[str, ArrayLike], *, every: int) -> None:
    """Draws noisy traces over steps, averaged over blocks of steps.

    Args:
        ax: axes to draw in.
        lines: name ↦ trace.
        every: number of steps in a block.
    """
    for name, y in lines.items():
        trace = np.asarray(y)
        values = trace[: len(trace) // every * every].reshape(-1, every).mean(axis=1)
        ax.plot(every * (np.arange(len(values)) + 0.5), values, label=name)
    ax.legend(loc="center right", ncols=2)
    ax.grid(alpha=0.25)


def scores(ax: Axes, names: Sequence[str], rows: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draws a marker at the mean for each name and row, with an error bar of two standard errors.

    Args:
        ax: axes to draw in.
        names: of the horizontal axis.
        rows: row ↦ (mean, standard error) for each name.
    """
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
    """Draws errors on logarithmic axes.

    Args:
        ax: axes to draw in.
        x: values of the horizontal axis.
        lines: name ↦ errors.
        floor: values below it are drawn there.
        at: the slider's value, at which a line is drawn, or None.
    """
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
    """Draws log p(X|w) and L(w, q) after every half-step of EM so far, under the maximum.

    Args:
        ax: axes to draw in.
        log_likelihood: log p(X|w) after each half-step so far, in nats per datum.
        bound: L(w, q) likewise.
        maximum: of log p(X|w), in closed form.
        steps: length of the axis, in half-steps.
        lowest: the lowest value that the picture shows.
    """
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
    """Draws the eigenvalues of S, with σ² at the mean of the discarded ones.

    Args:
        ax: axes to draw in.
        eigenvalues: in descending order.
        kept: how many are kept; they are filled.
        sigma_squared: σ².
    """
    y = np.asarray(eigenvalues)
    x = np.arange(1, len(y) + 1)
    ax.plot(x[:kept], y[:kept], "o", color=style.MODEL, ms=6, label="kept")
    ax.plot(x[kept:], y[kept:], "o", color=style.DATA, mfc="white", ms=6, label="discarded")
    ax.plot([kept + 0.5, x[-1]], [sigma_squared] * 2, color=style.POSTERIOR, ls="--", label="their mean, σ²")
    ax.set(yscale="log", title="eigenvalues of S", xlabel="j", ylim=(1e-5, 2 * float(y.max())))
    ax.minorticks_off()
    ax.legend(loc="lower left", handlelength=1.2)
