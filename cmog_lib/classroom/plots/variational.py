"""Pictures of the best q of a family over the true posterior, of the nats it loses, and of two gradients' noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes

from cmog_lib.classroom import style

Numbers = ArrayLike | Sequence[float]
ONE_RING, TWO_RINGS = 1 - np.exp(-0.5), 1 - np.exp(-2.0)  # of a Gaussian in the plane: mass within one s, within two


def mass_rings(ax: Axes, n: int, half_width: float, *, color: str = style.BOUND) -> Callable[[Numbers], None]:
    """Draws a q of any shape as two contours: 39 % of its mass is within the inner one, 86 % within the dashed one.

    For a Gaussian these are the rings at one s and two.

    Args:
        ax: axes to draw in.
        n: number of nodes per dimension.
        half_width: the plane is [-half_width, half_width]².
        color: of the lines.

    Returns:
        A function of weights [n²] on `quadrature.grid(2, n, half_width)` that draws another q.
    """
    centre = half_width * (2 * np.arange(n) + 1 - n) / n
    drawn: list = []

    def show(weight: Numbers) -> None:
        for lines in drawn:
            lines.remove()
        height = np.asarray(weight).reshape(-1)
        order = np.argsort(-height)
        within = np.cumsum(height[order]) / height.sum()
        inner, outer = (
            height[order[min(np.searchsorted(within, share), n * n - 1)]] for share in (ONE_RING, TWO_RINGS)
        )
        table = height.reshape(n, n).T
        # Two calls: the levels of one must rise, and those of a q on few nodes may coincide.
        drawn[:] = [
            ax.contour(centre, centre, table, levels=[level], colors=[color], linewidths=2.4, linestyles=[ls])
            for level, ls in ((inner, "-"), (outer, "--"))
        ]

    return show


def bars_of_nats(ax: Axes, names: Sequence[str], *, most: float) -> Callable[[Numbers, str | None], None]:
    """Draws a bar for each q: the nats that it loses.

    Args:
        ax: axes to draw in.
        names: of the q's.
        most: the end of the axis; a longer bar is cut off there, but its number stays legible.

    Returns:
        A function of the nats, one for each name, and of the name of the q that is shown, which it marks.
    """
    bars = ax.barh(range(len(names)), np.zeros(len(names)), height=0.62, fc="white", ec=style.BOUND, lw=2)
    texts = [ax.text(0, k, "", va="center") for k in range(len(names))]
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(0, most), title="nats lost")
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.25)

    def set_to(nats: Numbers, shown: str | None = None) -> None:
        for name, bar, text, value in zip(names, bars, texts, np.asarray(nats, float), strict=True):
            bar.set(
                width=max(value, 0), hatch="//" if name == shown else "", fc=style.BOUND if name == shown else "white"
            )
            text.set_text(f" {abs(value):.3f}")
            text.set_x(min(max(value, 0), 0.78 * most))
            text.set_fontweight("bold" if name == shown else "normal")
            card = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"} if value > 0.78 * most else None
            text.set_bbox(card)

    return set_to


def nats_lost(ax: Axes, kl: Numbers, least: float, *, floor: float = 1e-4) -> Callable[[Numbers, float, int], None]:
    """Draws KL(q‖p) after every update, with the smallest KL that the family can reach.

    Args:
        ax: axes to draw in, with a logarithmic scale.
        kl: KL(q‖p) after each update, in nats; its length sets the axis.
        least: the smallest KL of the family, in nats.
        floor: values below it are drawn there.

    Returns:
        A function of kl, least and k that shows the values up to the k-th update.
    """
    updates = np.arange(len(np.asarray(kl)))
    (line,) = ax.plot([0], [1], color=style.BOUND, ls="-", marker="o", ms=6, label=r"$\log p(x|w) - \mathcal{L}(w,q)$")
    rest = ax.axhline(max(least, floor), color=style.TRUTH, ls="--", lw=1.6, label="the least that a product can lose")
    ax.set(yscale="log", xlim=(-0.5, len(updates) - 0.5), xlabel="update", title="nats lost")
    ax.legend(loc="upper right")
    ax.grid(alpha=0.25)

    def show(kl: Numbers, least: float, k: int) -> None:
        line.set_data(updates[: k + 1], np.maximum(np.asarray(kl)[: k + 1], floor))
        rest.set_ydata([max(least, floor)] * 2)

    return show


def clouds(ax: Axes, names: Mapping[str, str]) -> Callable[[Mapping[str, Numbers], Numbers], None]:
    """Draws estimates of a gradient in the plane, a marker for each estimator, around the true gradient.

    Args:
        ax: axes to draw in.
        names: estimator ↦ marker.

    Returns:
        A function of estimator ↦ estimates [S, 2] and of the true gradient [2]; the frame follows the widest cloud.
    """
    colors = (style.POSTERIOR, style.MODEL)
    drawn = {
        name: ax.plot([], [], marker, ms=5, mfc="none", mec=color, label=name)[0]
        for (name, marker), color in zip(names.items(), colors, strict=True)
    }
    (true,) = ax.plot([], [], "P", color=style.TRUTH, ms=14, mec="white", label="the truth", zorder=5)
    ax.set(xlabel=r"$\partial\mathcal{L}/\partial m_1$", ylabel=r"$\partial\mathcal{L}/\partial m_2$")
    ax.legend(loc="upper right", handlelength=1.2)
    ax.locator_params(nbins=5)

    def show(estimates: Mapping[str, Numbers], truth: Numbers) -> None:
        at = np.asarray(truth, float)
        reach = max(3 * float(np.asarray(rows).std(axis=0).max()) for rows in estimates.values())
        for name, line in drawn.items():
            line.set_data(*np.asarray(estimates[name]).T)
        true.set_data(*at[:, None])
        ax.set(xlim=(at[0] - reach, at[0] + reach), ylim=(at[1] - reach, at[1] + reach))

    return show


def noise(ax: Axes, s: Numbers, deviations: Mapping[str, Numbers]) -> Callable[[float], None]:
    """Draws the standard deviation of a gradient from one draw against the width of q, a line for each estimator.

    Args:
        ax: axes to draw in.
        s: widths of q, in units of the best one.
        deviations: estimator ↦ standard deviation, for each of s; at most three estimators.

    Returns:
        A function of one width that marks it.
    """
    looks = (style.POSTERIOR, "--", "s"), (style.MODEL, "-", "o"), (style.PRIOR, ":", "^")
    for (name, values), (color, ls, marker) in zip(deviations.items(), looks, strict=False):
        ax.plot(np.asarray(s), np.asarray(values), color=color, ls=ls, marker=marker, ms=6, label=name)
    now = ax.axvline(1, color="black", lw=1.4, ls=":")
    ax.set(xscale="log", yscale="log", xlabel="s, in units of the best one")
    ax.minorticks_off()
    ax.legend(loc="lower right")
    ax.grid(alpha=0.25)

    def mark(at: float) -> None:
        now.set_xdata([at, at])

    return mark
