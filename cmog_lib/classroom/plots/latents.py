"""Pictures of the latent plane: posteriors, a movable q, the bars of the bound, the steps of EM."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Ellipse, Rectangle

from cmog_lib.classroom import style
from cmog_lib.classroom.plots.curves import MARKERS

Numbers = ArrayLike | Sequence[float]


def peaks(weight: ArrayLike, n: int, at_least: float = 0.02) -> np.ndarray:
    """Indices of the local maxima of weights on a grid, highest first. A maximum is higher than all eight neighbours.

    Args:
        weight: [n²], row by row.
        n: number of nodes per dimension.
        at_least: maxima below this share of the highest do not count.

    Returns:
        [humps], indices into weight.
    """
    height = np.asarray(weight).reshape(n, n)
    padded = np.pad(height, 1, constant_values=-np.inf)
    around = [padded[1 + i : n + 1 + i, 1 + j : n + 1 + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    found = np.flatnonzero((height > np.max(around, axis=0)) & (height > at_least * height.max()))
    return found[np.argsort(-height.reshape(-1)[found])]


def shades(weight: ArrayLike, n: int) -> np.ndarray:
    """Weights of a grid as the image that `latent_density` shows: t₁ to the right, t₂ upwards.

    Args:
        weight: [n²], row by row.
        n: number of nodes per dimension.

    Returns:
        [n, n], from 0 to 1.
    """
    height = np.asarray(weight).reshape(n, n).T
    # The root: a second hump at a twentieth of the first is still seen.
    return np.sqrt(height / height.max())


def latent_density(ax: Axes, weight: ArrayLike, n: int, half_width: float, *, title: str = "") -> AxesImage:
    """Draws a density over the latent plane, shaded by its square root.

    Args:
        ax: axes to draw in.
        weight: [n²], weights on `quadrature.grid(2, n, half_width)`.
        n: number of nodes per dimension.
        half_width: the plane is [-half_width, half_width]².
        title: of the picture.

    Returns:
        The image; `set_data(shades(...))` shows another density in its place.
    """
    side = (-half_width, half_width)
    shown = ax.imshow(
        shades(weight, n),
        cmap=style.DENSITY,
        vmin=0,
        vmax=1,
        origin="lower",
        extent=(*side, *side),
        interpolation="bilinear",
    )
    ax.set(title=title, xlabel="$t_1$", ylabel="$t_2$", aspect="equal")
    return shown


def rings(ax: Axes) -> Callable[[Numbers, Numbers], None]:
    """Draws a factorised Gaussian q as rings at one s and, dashed, two s.

    Args:
        ax: axes to draw in.

    Returns:
        A function of m [2] and s [2] that moves the rings there.
    """
    drawn = [Ellipse((0, 0), 1, 1, fill=False, ec=style.BOUND, lw=2.4, ls=ls) for ls in ("-", "--")]
    for ring in drawn:
        ax.add_patch(ring)
    (centre,) = ax.plot([0], [0], "+", color=style.BOUND, ms=12, mew=2.4)

    def move_to(m: Numbers, s: Numbers) -> None:
        (m1, m2), (s1, s2) = np.asarray(m, float), np.asarray(s, float)
        for k, ring in enumerate(drawn, 1):
            ring.set(center=(m1, m2), width=2 * k * s1, height=2 * k * s2)
        centre.set_data([m1], [m2])

    return move_to


def three_bars(ax: Axes, log_p_x: float, *, depth: float, above: float) -> Callable[[float, float], None]:
    """Draws L(w, q) with KL(q‖p) on top of it, beside log p(x|w): the bars end at one height.

    Args:
        ax: axes to draw in.
        log_p_x: log p(x|w), in nats.
        depth: how many nats the axis reaches below log p(x|w); a lower bound is outside of the picture.
        above: how many nats it reaches above.

    Returns:
        A function of L and KL, in nats, that sets the bars and writes the two numbers.
    """
    floor, top = log_p_x - depth, log_p_x + above
    bound = Rectangle((0.1, floor), 0.8, 1, fc=style.BOUND, ec="black", hatch="//")
    gap = Rectangle((0.1, floor), 0.8, 1, fc="white", ec=style.POSTERIOR, lw=2, hatch="..")
    for bar in (bound, gap, Rectangle((1.1, floor), 0.8, depth, fc=style.TRUTH)):
        ax.add_patch(bar)
    ax.axhline(log_p_x, color="black", lw=1, ls=":")
    ax.set(xlim=(0, 2), ylim=(floor, top), xticks=[0.5, 1.5], title="nats")
    ax.set_xticklabels([r"$\mathcal{L}(w,q)\,+\,\mathrm{KL}$", r"$\log p(x|w)$"], fontsize=14)
    ax.grid(axis="y", alpha=0.25)
    card = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": "none", "alpha": 0.95}
    label_bound, label_gap = (
        ax.text(0.5, floor, "", ha="center", va="center", color=color, fontweight="bold", bbox=card)
        for color in (style.BOUND, style.INK[1])
    )

    def set_to(bound_nats: float, kl_nats: float) -> None:
        seen = max(bound_nats, floor)
        bound.set_height(seen - floor)
        gap.set(y=seen, height=log_p_x - seen)
        label_bound.set_text(f"L = {bound_nats:.2f}".replace("-", "−"))
        label_bound.set_y(floor + max(0.5 * (seen - floor), 0.06 * depth))
        label_gap.set_text(f"KL = {kl_nats:.2f}")
        label_gap.set_y(min(max(0.5 * (seen + log_p_x), floor + 0.2 * depth), log_p_x + 0.5 * above))

    return set_to


def half_steps(ax: Axes, log_p_x: Numbers, bound: Numbers, *, color: str = style.MODEL) -> Callable[[int | None], None]:
    """Draws log p(X|w) and L(w, q) after every half-step of EM.

    Args:
        ax: axes to draw in; several runs can share them.
        log_p_x: log p(X|w) / N after each half-step, in nats.
        bound: L(w, q) / N after each half-step, in nats.
        color: of the line of log p(X|w).

    Returns:
        A function of k that shows both up to the k-th half-step, or hides both if k is None.
    """
    above, below = np.asarray(log_p_x), np.asarray(bound)
    x = np.arange(len(below))
    (upper,) = ax.plot(x, above, color=color, ls="-", marker="o", ms=8, label=r"$\log p(X|w)\,/\,N$")
    (lower,) = ax.plot(x, below, color=style.BOUND, ls="--", marker="s", ms=5, label=r"$\mathcal{L}(w, q)\,/\,N$")
    (gap,) = ax.plot([0, 0], [below[0], above[0]], color="black", ls="-", lw=1.5)
    ax.set(title="nats per image", xlim=(-0.5, len(x) - 0.5))
    ax.set_xticks(x, [("E", "M")[k % 2] + (f"\n{k // 2 + 1}" if k % 2 == 0 else "") for k in x])
    ax.set_xlabel("half-steps")
    ax.grid(alpha=0.25)
    if len(ax.lines) == 3:
        ax.legend(loc="lower right")

    def show(k: int | None) -> None:
        for line, y in ((upper, above), (lower, below)):
            line.set_visible(k is not None)
            line.set_data(x[: (k or 0) + 1], y[: (k or 0) + 1])
        gap.set_visible(k is not None)
        gap.set_data([k or 0] * 2, [below[k or 0], above[k or 0]])

    return show


def moving_digits(ax: Axes, T: Numbers, labels: Numbers) -> Callable[[Numbers], None]:
    """Draws each datum at its place in the latent plane, marked with its label.

    Args:
        ax: axes to draw in.
        T: [N, 2], the places.
        labels: [N].

    Returns:
        A function of T [N, 2] that moves the data.
    """
    labels = np.asarray(labels)
    drawn = {}
    for label in np.unique(labels):
        (drawn[label],) = ax.plot([], [], marker=f"${label}$", ms=8, mew=0.2, ls="", color=style.INK[int(label) % 5])
    ax.set(xlim=(-2.9, 2.9), ylim=(-2.9, 2.9), xlabel="$t_1$", ylabel="$t_2$", aspect="equal")

    def move_to(T: Numbers) -> None:
        for label, line in drawn.items():
            line.set_data(*np.asarray(T)[labels == label].T)

    move_to(T)
    return move_to


def numbers(ax: Axes, most: int) -> Callable[[Numbers], None]:
    """Writes the numbers 1, 2, … beside places of the latent plane.

    Args:
        ax: axes to draw in.
        most: the largest number of places.

    Returns:
        A function of places [k, 2], k ≤ most, that moves the numbers there.
    """
    card = {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": style.POSTERIOR, "lw": 1.5}
    texts = [
        ax.annotate(
            str(k + 1), (0, 0), xytext=(16, 16), textcoords="offset points", ha="center", va="center", bbox=card
        )
        for k in range(most)
    ]

    def move_to(places: Numbers) -> None:
        at = np.asarray(places)
        for k, text in enumerate(texts):
            text.set_visible(k < len(at))
            if k < len(at):
                text.xy = (float(at[k, 0]), float(at[k, 1]))
            text.stale = True

    return move_to


def against_cost(ax: Axes, runs: Mapping[str, tuple[Numbers, Numbers]], *, xlabel: str) -> None:
    """Draws nats against cost, one line for each method.

    Args:
        ax: axes to draw in.
        runs: name of the method ↦ (cost, nats). A method without values still takes up its colour, so that the colours
            of the others do not change.
        xlabel: name of the cost.
    """
    for (name, (cost, nats)), marker in zip(runs.items(), cycle(MARKERS), strict=False):
        ax.plot(cost, nats, marker=marker, ms=6, label=name if len(np.asarray(cost)) else None)
    ax.set_xlabel(xlabel)
    ax.legend(loc="lower right")
    ax.grid(alpha=0.25)


def wall(ax: Axes, dims: Sequence[int], seconds: Numbers, ages: Mapping[str, float]) -> Callable[[int], None]:
    """Draws seconds against the latent dimension, with well-known ages as horizontal lines.

    Args:
        ax: axes to draw in.
        dims: latent dimensions.
        seconds: time of one E-step, for each of dims.
        ages: name ↦ seconds.

    Returns:
        A function of d that marks one of dims.
    """
    time = np.asarray(seconds, float)
    ax.plot(dims, time, color=style.MODEL)
    for name, age in ages.items():
        ax.axhline(age, color=style.DATA, lw=1.2, ls="--")
        ax.annotate(name, (dims[0], age), xytext=(0, 3), textcoords="offset points", fontsize=12)
    (point,) = ax.plot(dims[:1], time[:1], "o", color=style.HIGHLIGHT, ms=14, mec="black", zorder=5)
    ax.set(
        yscale="log", xlabel="latent dimension d", title="seconds for one E-step", xlim=(dims[0] - 0.5, dims[-1] + 0.5)
    )
    ax.minorticks_off()
    ax.grid(alpha=0.25)

    def move_to(d: int) -> None:
        k = list(dims).index(d)
        point.set_data([d], [time[k]])

    return move_to


def in_math(text: str) -> str:
    """Powers of ten, written as 10^21, as a figure typesets them."""
    return re.sub(r"10\^(\d+)", r"$10^{\1}$", text)
