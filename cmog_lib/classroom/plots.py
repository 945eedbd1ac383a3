"""Arrays and axes in, artists out: the pictures that several lectures share. No inference happens here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.text import Annotation

from cmog_lib.classroom import style

MARKERS = "osD^vX"
INK = colormaps["gray_r"].with_extremes(under="white", bad="#F0C987")


@dataclass(frozen=True)
class Plane:
    """A rectangle of the data plane, cut into `n` pixels: `points` [n₁ n₂, 2] are their centres."""

    x1: tuple[float, float]
    x2: tuple[float, float]
    n: tuple[int, int]

    @property
    def points(self) -> Array:
        axes = [
            lo + (hi - lo) * (np.arange(n) + 0.5) / n for (lo, hi), n in zip((self.x1, self.x2), self.n, strict=True)
        ]
        return jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2))

    def integral(self, values: Array) -> float:
        """∫ f(x) dx over the rectangle, from f at the pixel centres."""
        cell = (self.x1[1] - self.x1[0]) * (self.x2[1] - self.x2[0]) / (self.n[0] * self.n[1])
        return float(jnp.sum(values) * cell)


def plane(ax: Axes, *, title: str = "") -> None:
    """The frame of a picture of the data plane: equal units, coordinates named."""
    ax.set_aspect("equal", adjustable="box")
    ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$")


def density(ax: Axes, plane: Plane, values: Array) -> None:
    """A density over the plane in bands, the darker the higher: bands are read at a distance, and compress well."""
    x1, x2 = (axis.reshape(plane.n).T for axis in np.asarray(plane.points).T)
    image = np.asarray(values).reshape(plane.n).T
    levels = np.linspace(0, 1, 10)[1:] ** 1.5 * max(image.max(), 1e-300)
    ax.contourf(x1, x2, image, levels=levels, cmap=style.DENSITY, extend="max")
    ax.set(xlim=plane.x1, ylim=plane.x2)


def scatter(ax: Axes, X: Array, *, label: str | None = None, color_by: Array | None = None) -> None:
    """Data as dots, grey or shaded by a number for each."""
    X = np.asarray(X)
    if color_by is None:
        ax.scatter(X[:, 0], X[:, 1], s=14, color=style.DATA, alpha=0.6, linewidths=0, label=label)
    else:
        ax.scatter(X[:, 0], X[:, 1], s=14, c=np.asarray(color_by), cmap="viridis", linewidths=0, label=label)


def mark(ax: Axes, x: Array | Sequence[float], *, label: str) -> tuple[Line2D, Annotation]:
    """One datum, ringed and named. Returns the ring and the name, to be moved with `move`."""
    (ring,) = ax.plot(float(x[0]), float(x[1]), "o", ms=13, mfc=style.HIGHLIGHT, mec="black", mew=1.5)
    place = (float(x[0]), float(x[1]))
    card = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.85}
    return ring, ax.annotate(label, place, xytext=(11, 11), textcoords="offset points", fontweight="bold", bbox=card)


def move(marked: tuple[Line2D, Annotation], x: Array | Sequence[float]) -> None:
    """Put a marked datum elsewhere."""
    ring, name = marked
    ring.set_data([x[0]], [x[1]])
    name.xy = (x[0], x[1])
    name.stale = True


def ellipses(ax: Axes, mu: Array, sigma: Array, *, sds: Sequence[int] = (1,)) -> None:
    """Gaussian blobs N(mu, diag sigma²) as rings at the given numbers of standard deviations."""
    for centre, sd in zip(np.asarray(mu), np.asarray(sigma), strict=True):
        for k in sds:
            ax.add_patch(
                Ellipse(centre, *(2 * k * sd), fill=False, ec=style.POSTERIOR, lw=1.6, ls="-" if k == 1 else "--")
            )
        ax.plot(*centre, "+", color=style.POSTERIOR, ms=8, mew=1.6)


def prior(ax: Axes, t: Array, p_t: Array, *, at: float) -> None:
    """The prior density of one latent, with the chosen point on it."""
    ax.plot(t, p_t, color=style.PRIOR)
    ax.fill_between(t, p_t, color=style.PRIOR, alpha=0.12)
    ax.axvline(at, color=style.POSTERIOR, ls="--", lw=1.6)
    ax.plot(at, np.interp(at, t, p_t), "o", color=style.POSTERIOR, ms=11, mec="black")
    ax.set(title=r"$p(t) = \mathcal{N}(0, 1)$", xlabel="t", ylim=(0, 0.45), yticks=[0, 0.2, 0.4])


def histogram(ax: Axes, draws: Array, t: Array, p_t: Array) -> None:
    """Draws of one latent under the density they came from."""
    ax.hist(np.asarray(draws), bins=24, density=True, color=style.DATA, alpha=0.45, label="draws")
    ax.plot(t, p_t, color=style.PRIOR, label="$p(t)$")
    ax.legend(loc="upper left")
    ax.set(title=r"$t \sim p(t)$", xlabel="t", ylim=(0, 0.55))


def posterior(ax: Axes, t: Array, density: Array, *, prior: Array, highest: float) -> Line2D:
    """A posterior density over one latent, with the prior behind it. Returns its curve, to be given other heights."""
    ax.plot(t, prior, color=style.PRIOR, ls="--", label="$p(t)$")
    (curve,) = ax.plot(t, density, color=style.POSTERIOR, label=r"$p(t\mid x)$")
    ax.set(title="where on the path?", xlabel="t", ylim=(0, highest))
    ax.legend(loc="upper right")
    return curve


def count_humps(values: Array, at_least: float = 0.05) -> int:
    """How many local maxima reach `at_least` of the highest one."""
    values = np.asarray(values)
    inner = values[1:-1]
    return int(np.sum((inner > values[:-2]) & (inner >= values[2:]) & (inner > at_least * values.max())))


def cloud(ax: Axes, X: Array, *, color_by: Array, azimuth: float) -> None:
    """A cloud of points in three dimensions, shaded by a number for each."""
    ax.scatter(*np.asarray(X).T, c=np.asarray(color_by), cmap="viridis", vmin=-2, vmax=2, s=16, linewidths=0)
    ax.view_init(elev=18, azim=azimuth)
    ax.set_box_aspect((1, 1, 1), zoom=1.2)
    ax.set(xticklabels=[], yticklabels=[], zticklabels=[], xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), zlim=(-1.1, 1.1))
    for axis, name in zip((ax.xaxis, ax.yaxis, ax.zaxis), ("$x_1$", "$x_2$", "$x_3$"), strict=True):
        axis.set_label_text(name)


def curve_with_point(ax: Axes, x: Sequence[float], y: Sequence[float], at: float, *, log: str = "") -> None:
    """One curve, with a dot at the slider's value. log: "", "x", "y" or "both"."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    ax.plot(x, y, color=style.MODEL)
    ax.plot(at, y[x == at][0], "o", color=style.HIGHLIGHT, ms=12, mec="black", zorder=5)
    ax.set(xscale="log" if log in ("x", "both") else "linear", yscale="log" if log in ("y", "both") else "linear")
    ax.grid(alpha=0.25)


def lines_with_point(
    ax: Axes, x: Sequence[float], lines: Mapping[str, Array], at: float, *, legend: str, markers: bool = True
) -> None:
    """Several curves told apart by colour, dash and marker, with a line at the slider's value."""
    for (name, y), marker in zip(lines.items(), cycle(MARKERS), strict=False):
        ax.plot(x, y, marker=marker if markers else None, ms=6, label=name)
    ax.axvline(at, color="black", lw=1.2, ls=":")
    ax.legend(loc=legend)
    ax.grid(alpha=0.25)


def error_curves(ax: Axes, x: Sequence[float], lines: Mapping[str, Array], *, floor: float) -> None:
    """Errors against cost on logarithmic axes, each named where it ends; anything below `floor` is drawn there."""
    ends = []
    for (name, y), marker in zip(lines.items(), cycle(MARKERS), strict=False):
        (line,) = ax.plot(x, np.maximum(y, floor), marker=marker, ms=7)
        ends.append((np.log10(max(y[-1], floor)), name, line.get_color()))
    ax.set(xscale="log", yscale="log", xlim=(x[0] * 0.9, x[-1] * 1.1))
    ax.set_xticks(x, [str(v) for v in x], minor=False)
    ax.minorticks_off()
    ax.grid(alpha=0.25)
    # The names stand at the lines' ends, pushed apart where the ends meet.
    height = -np.inf
    for end, name, color in sorted(ends):
        height = max(end, height + 1.1)
        ax.annotate(
            name, (1.02, 10**height), xycoords=("axes fraction", "data"), color=color, va="center", fontweight="bold"
        )


def images(
    ax: Axes, X: Array, image_shape: tuple[int, int], *, columns: int, limits: tuple[float, float] = (0, 1)
) -> None:
    """Images in rows of `columns`, ink dark on light; pixels that are NaN, missing ones, are tinted."""
    X = np.asarray(X)
    rows = -(-len(X) // columns)
    (height, width), gap = image_shape, max(1, image_shape[0] // 8)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), -np.inf)
    for k, image in enumerate(X):
        top, left = (k // columns) * (height + gap), (k % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image.reshape(image_shape)
    ax.imshow(sheet, cmap=INK, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set_axis_off()


def row_names(ax: Axes, names: Sequence[str]) -> None:
    """Names to the left of the rows of a sheet made by `images`."""
    for k, name in enumerate(names):
        place = (-0.02, 1 - (k + 0.5) / len(names))
        ax.annotate(name, place, xycoords="axes fraction", ha="right", va="center", annotation_clip=False)


def signed_image(ax: Axes, values: Array, image_shape: tuple[int, int]) -> None:
    """An image of numbers of either sign: white is zero."""
    ax.imshow(np.asarray(values).reshape(image_shape), cmap="RdBu_r", vmin=-0.25, vmax=0.25, interpolation="nearest")
    ax.set_axis_off()


def heat(ax: Axes, picture: Array, *, label: str, limits: tuple[float, float]) -> None:
    """An image of positive numbers with their scale; what is not a number stays empty."""
    ax.imshow(np.asarray(picture), cmap="cividis", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.figure.colorbar(ax.images[0], ax=ax, shrink=0.9, label=label)


def digits_in_plane(ax: Axes, T: Array, labels: Array) -> None:
    """Each datum's place in the latent plane, written as its label."""
    for t, label in zip(np.asarray(T), np.asarray(labels), strict=True):
        ax.text(*t, str(label), color=f"C{int(label) % 5}", fontsize=11, ha="center", va="center", clip_on=True)
    ax.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xlabel="$t_1$", ylabel="$t_2$", aspect="equal")


def line_with_datum(ax: Axes, X: Array, start: Array, end: Array, x: Array, guess: Array) -> None:
    """Data, the line μ(t), one datum x, and the point of the line that the posterior mean takes it to."""
    scatter(ax, X)
    ax.plot(*zip(np.asarray(start), np.asarray(end), strict=True), color=style.MODEL)
    ax.plot(*zip(np.asarray(x), np.asarray(guess), strict=True), color=style.POSTERIOR, ls="--", lw=1.8)
    ax.plot(*np.asarray(guess), "s", color=style.POSTERIOR, ms=10, mec="black")
    ax.annotate("μ(m)", guess, xytext=(10, -16), textcoords="offset points", color=style.POSTERIOR, fontweight="bold")
    mark(ax, x, label="x")


def gaussian_ring(ax: Axes, mean: Array, covariance: Array) -> None:
    """A Gaussian in the plane as rings at one and two standard deviations, with its long axis."""
    lengths, axes = np.linalg.eigh(np.asarray(covariance))
    mean = np.asarray(mean)
    angle = np.degrees(np.arctan2(axes[1, -1], axes[0, -1]))
    for k in (1, 2):
        width, height = 2 * k * np.sqrt(lengths[::-1])
        ring = Ellipse(mean, width, height, angle=angle, fill=False, ec=style.MODEL, lw=2, ls="-" if k == 1 else "--")
        ax.add_patch(ring)
    ends = mean + np.outer([-3, 3], axes[:, -1] * np.sqrt(lengths[-1]))
    ax.plot(*ends.T, color=style.MODEL, lw=1.2)


def staircase(ax: Axes, log_likelihood: Array, bound: Array, maximum: float, *, steps: int, lowest: float) -> None:
    """log p(X|w) and L(w, q) after every half-step of EM, up to now, under the maximum."""
    x = np.arange(len(bound))
    ax.axhline(maximum, color=style.TRUTH, ls=":", lw=1.8)
    ax.annotate("maximum, closed form", (steps - 1, maximum), xytext=(0, 6), textcoords="offset points", ha="right")
    ax.plot(x, log_likelihood, color=style.MODEL, marker="o", ms=7, label=r"$\log p(X|w)$")
    ax.plot(x, bound, color=style.BOUND, marker="s", ms=6, ls="--", label=r"$\mathcal{L}(w, q)$")
    ax.plot(x[-1:].repeat(2), [bound[-1], log_likelihood[-1]], color="black", lw=1)
    ax.set(title="nats per datum", xlabel="half-steps", xlim=(-0.5, steps - 0.5))
    ax.set_ylim(lowest - 0.1, maximum + 0.1 * (maximum - lowest))
    ax.legend(loc="lower right")
    ax.grid(alpha=0.25)


def spectrum(ax: Axes, eigenvalues: Array, kept: int, sigma_squared: float) -> None:
    """The eigenvalues, the first `kept` of them filled, with σ² at the mean of the others."""
    eigenvalues = np.asarray(eigenvalues)
    x = np.arange(1, len(eigenvalues) + 1)
    ax.plot(x[:kept], eigenvalues[:kept], "o", color=style.MODEL, ms=6, label="kept")
    ax.plot(x[kept:], eigenvalues[kept:], "o", color=style.DATA, mfc="white", ms=6, label="discarded")
    ax.plot([kept + 0.5, x[-1]], [sigma_squared] * 2, color=style.POSTERIOR, ls="--", label="their mean, σ²")
    ax.set(yscale="log", title="eigenvalues of S", xlabel="j", ylim=(1e-4, 2))
    ax.legend(loc="lower left", handlelength=1.2)
