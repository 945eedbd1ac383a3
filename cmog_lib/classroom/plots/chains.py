"""Pictures of Markov chains over the latent plane, of their traces, and of Monte Carlo EM beside exact EM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes

from cmog_lib.classroom import style
from cmog_lib.classroom.plots.curves import MARKERS

# Told apart by dash and shade; black is kept for the truth.
CHAINS = [(style.MODEL, "-"), (style.POSTERIOR, "--"), (style.PRIOR, "-."), (style.BOUND, ":")]


def chain_walk(ax: Axes) -> Callable[[ArrayLike, ArrayLike, ArrayLike], None]:
    """Draws one chain over a density in the latent plane.

    Args:
        ax: axes to draw in.

    Returns:
        A function of the states [k + 1, d], from the start on, the path [k, L, d] of each move, and whether each was
        accepted [k]; it draws the chain up to its k-th move.
    """
    (visited,) = ax.plot([], [], color=style.POSTERIOR, ls="-", lw=0.9, marker="o", ms=4, alpha=0.75, label="the chain")
    (refused,) = ax.plot([], [], "x", color=style.DATA, ms=6, mew=1.2, label="rejected")
    (way,) = ax.plot([], [], color="black", ls="-", lw=1.6, marker=".", ms=5, label="last try")
    (here,) = ax.plot([], [], "o", color=style.HIGHLIGHT, ms=12, mec="black", zorder=5, label="now")
    ax.legend(loc="upper right", handlelength=1.2)

    def show(states: ArrayLike, paths: ArrayLike, accepted: ArrayLike) -> None:
        t, tries, taken = np.asarray(states), np.asarray(paths), np.asarray(accepted)
        visited.set_data(*t.T)
        refused.set_data(*tries[~taken, -1].T)
        way.set_data(*np.concatenate([t[-2:-1], tries[-1]]).T)
        here.set_data(*t[-1:].T)

    return show


def chain_traces(ax: Axes, mean: float, deviation: float, draws: int) -> Callable[[ArrayLike], None]:
    """Draws one latent over the draws, a line for each chain; a band of two standard deviations around the mean.

    Args:
        ax: axes to draw in.
        mean: of the latent.
        deviation: its standard deviation.
        draws: length of the axis.

    Returns:
        A function of t [C, draws] that draws the traces.
    """
    ax.axhspan(mean - 2 * deviation, mean + 2 * deviation, color=style.DATA, alpha=0.18, lw=0)
    lines = [ax.plot([], [], color=color, ls=ls, lw=1.1)[0] for color, ls in CHAINS]
    ax.axhline(mean, color=style.HIGHLIGHT, lw=2.4)
    ax.set(xlim=(0, draws), ylim=(mean - 5 * deviation, mean + 5 * deviation), xlabel="draw")

    def show(t: ArrayLike) -> None:
        for line, values in zip(lines, np.asarray(t), strict=False):
            line.set_data(np.arange(1, len(values) + 1), values)

    return show


def running_means(ax: Axes, mean: float, deviation: float, draws: int) -> Callable[[ArrayLike, int], None]:
    """Draws the mean of all draws so far of one latent, a line for each chain, and the posterior's mean in black.

    The band is one posterior standard deviation to either side.

    Args:
        ax: axes to draw in.
        mean: of the posterior.
        deviation: its standard deviation.
        draws: length of the axis.

    Returns:
        A function of t [C, draws] and of the number of one draw, which it marks.
    """
    ax.axhspan(mean - deviation, mean + deviation, color=style.DATA, alpha=0.18, lw=0)
    ax.axhline(mean, color=style.TRUTH, lw=1.6)
    lines = [ax.plot([], [], color=color, ls=ls, lw=2)[0] for color, ls in CHAINS]
    (now,) = ax.plot([], [], "o", color=style.HIGHLIGHT, ms=10, mec="black", zorder=5)
    ax.set(xlim=(0, draws), ylim=(mean - 2.5 * deviation, mean + 2.5 * deviation), xlabel="draw")

    def show(t: ArrayLike, at: int) -> None:
        values = np.asarray(t)
        means = np.cumsum(values, axis=1) / np.arange(1, values.shape[1] + 1)
        for line, so_far in zip(lines, means, strict=False):
            line.set_data(np.arange(1, values.shape[1] + 1), so_far)
        now.set_data([at], means[:1, at - 1])

    return show


def efficiency(ax: Axes, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, xlabel: str) -> None:
    """Draws the efficiency of a draw against the step size, a curve for each sampler; both axes are logarithmic.

    Args:
        ax: axes to draw in.
        curves: sampler ↦ (step sizes, efficiencies).
        xlabel: name of the horizontal axis.
    """
    for (name, (step, value)), marker in zip(curves.items(), cycle(MARKERS), strict=False):
        ax.plot(np.asarray(step), np.asarray(value), marker=marker, ms=7, label=name)
    ax.set(xscale="log", yscale="log", xlabel=xlabel)
    ax.minorticks_off()
    ax.grid(alpha=0.25)


def one_legend(axes: Sequence[Axes]) -> None:
    """Draws one legend below panels that show the same curves.

    Args:
        axes: the panels.
    """
    fig = axes[0].get_figure(root=True)
    assert fig is not None
    fig.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=2, handlelength=3)


def spots(ax: Axes, chains: int) -> Callable[[ArrayLike, ArrayLike], None]:
    """Draws several chains over a density, a marker for each chain, with the mean of their draws and the true mean.

    Args:
        ax: axes to draw in.
        chains: number of chains.

    Returns:
        A function of t [C, M, 2] and of the true mean [2]; it shows every fifth draw.
    """
    drawn = [
        ax.plot([], [], marker, ms=5, mfc="none", mec=CHAINS[c % len(CHAINS)][0], mew=1)[0]
        for c, marker in zip(range(chains), cycle("osD^"), strict=False)
    ]
    (theirs,) = ax.plot([], [], "X", color=style.HIGHLIGHT, ms=15, mec="black", label="mean of the draws", zorder=5)
    (true,) = ax.plot([], [], "P", color=style.TRUTH, ms=15, mec="white", label="true mean", zorder=5)
    ax.legend(loc="upper right", handlelength=1.2)

    def show(t: ArrayLike, mean: ArrayLike) -> None:
        points = np.asarray(t)
        for line, chain in zip(drawn, points, strict=True):
            line.set_data(*chain[::5].T)  # only some of them, so that the density behind stays visible
        theirs.set_data(*points.mean(axis=(0, 1))[:, None])
        true.set_data(*np.asarray(mean)[:, None])

    return show


def climbs(
    ax: Axes, exact: Sequence[float], others: Mapping[str, Sequence[float]]
) -> Callable[[Sequence[float], int], None]:
    """Draws log p(X|w) over the iterations: exact EM, all other runs faint behind it, and one of them in full.

    Args:
        ax: axes to draw in.
        exact: log p(X|w) of exact EM, in nats per training image.
        others: run ↦ log p(X|w) likewise.

    Returns:
        A function of the values of one run and of k that draws it up to the k-th iteration.
    """
    x = np.arange(len(exact))
    for values in others.values():
        ax.plot(x, values, color=style.DATA, ls="-", lw=0.8, alpha=0.5)
    ax.plot(x, exact, color=style.TRUTH, ls="--", marker="s", ms=6, label="exact EM")
    (line,) = ax.plot([], [], color=style.MODEL, ls="-", marker="o", ms=7, label="Monte Carlo EM")
    ax.set(title="nats per training image", xlabel="iteration", xticks=x)
    ax.legend(loc="lower right")
    ax.grid(alpha=0.25)

    def show(values: Sequence[float], k: int) -> None:
        line.set_data(x[: k + 1], np.asarray(values)[: k + 1])

    return show


def shortfalls(ax: Axes, lines: Mapping[int, ArrayLike]) -> None:
    """Draws how far below the maximum each iteration of Monte Carlo EM is, from the first on, one line for each M.

    Args:
        ax: axes to draw in.
        lines: M ↦ distance from the maximum, in nats per image.
    """
    for (M, values), marker in zip(lines.items(), cycle(MARKERS), strict=False):
        below = np.asarray(values)
        ax.plot(np.arange(1, len(below)), below[1:], marker=marker, ms=4, lw=1.4, label=f"M = {M}")
    ax.set(yscale="log", xlabel="iteration", title="nats per image below the maximum")
    ax.locator_params(axis="x", integer=True)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    ax.grid(alpha=0.25)
