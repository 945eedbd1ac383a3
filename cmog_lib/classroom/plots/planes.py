"""Pictures of the data plane: densities, data, Gaussian blobs and rings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.text import Annotation
from mpl_toolkits.mplot3d import Axes3D

from cmog_lib.classroom import style


@dataclass(frozen=True)
class Plane:
    """A rectangle of the data plane, divided into pixels.

    Attributes:
        x1: lowest and highest x₁.
        x2: lowest and highest x₂.
        n: number of pixels along x₁ and along x₂.
    """

    x1: tuple[float, float]
    x2: tuple[float, float]
    n: tuple[int, int]

    @property
    def points(self) -> Array:
        axes = [
            lo + (hi - lo) * (np.arange(n) + 0.5) / n for (lo, hi), n in zip((self.x1, self.x2), self.n, strict=True)
        ]
        return jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2))

    def integral(self, values: ArrayLike) -> float:
        """∫ f(x) dx over the rectangle, from f at the pixel centres."""
        cell = (self.x1[1] - self.x1[0]) * (self.x2[1] - self.x2[0]) / (self.n[0] * self.n[1])
        return float(jnp.sum(values) * cell)


def plane(ax: Axes, *, title: str = "") -> None:
    """Sets the frame of a picture of the data plane: equal units, names of the coordinates.

    Args:
        ax: axes to set.
        title: of the picture.
    """
    ax.set_aspect("equal", adjustable="box")
    ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$")


def density(ax: Axes, plane: Plane, values: ArrayLike, *, darkest: float | None = None) -> None:
    """Draws a density over the plane in bands, the darker the higher; bands are legible from afar and compress well.

    Args:
        ax: axes to draw in.
        plane: the rectangle.
        values: the density at the pixel centres `plane.points`.
        darkest: the density that gets the darkest band (default: the highest value).
    """
    x1, x2 = (axis.reshape(plane.n).T for axis in np.asarray(plane.points).T)
    image = np.asarray(values).reshape(plane.n).T
    levels = np.linspace(0, 1, 10)[1:] ** 1.5 * (darkest or max(image.max(), 1e-300))
    ax.contourf(x1, x2, image, levels=levels, cmap=style.DENSITY, extend="max")
    ax.set(xlim=plane.x1, ylim=plane.x2)


def scatter(ax: Axes, X: ArrayLike, *, label: str | None = None, color_by: ArrayLike | None = None) -> None:
    """Draws data as dots, grey or shaded by a number for each.

    Args:
        ax: axes to draw in.
        X: [N, 2], data.
        label: for the legend.
        color_by: [N], the numbers; None for grey.
    """
    x1, x2 = np.asarray(X).T
    if color_by is None:
        ax.scatter(x1, x2, s=14, color=style.DATA, alpha=0.6, linewidths=0, label=label)
    else:
        ax.scatter(x1, x2, s=14, c=np.asarray(color_by), cmap="viridis", linewidths=0, label=label)


def mark(ax: Axes, x: ArrayLike | Sequence[float], *, label: str) -> tuple[Line2D, Annotation]:
    """Draws a ring and a name at one datum.

    Args:
        ax: axes to draw in.
        x: [2], the datum.
        label: its name.

    Returns:
        The ring and the name, which `move` moves.
    """
    place = _point(x)
    (ring,) = ax.plot(*place, "o", ms=13, mfc=style.HIGHLIGHT, mec="black", mew=1.5)
    card = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.85}
    return ring, ax.annotate(label, place, xytext=(11, 11), textcoords="offset points", fontweight="bold", bbox=card)


def move(marked: tuple[Line2D, Annotation], x: ArrayLike | Sequence[float]) -> None:
    """Moves a marked datum.

    Args:
        marked: as `mark` returned it.
        x: [2], the new place.
    """
    ring, name = marked
    x1, x2 = _point(x)
    ring.set_data([x1], [x2])
    name.xy = (x1, x2)
    name.stale = True


def _point(x: ArrayLike | Sequence[float]) -> tuple[float, float]:
    x1, x2 = np.asarray(x)
    return float(x1), float(x2)


def ellipses(ax: Axes, mu: ArrayLike, sigma: ArrayLike, *, sds: Sequence[int] = (1,)) -> None:
    """Draws Gaussians N(mu, diag sigma²) as rings.

    Args:
        ax: axes to draw in.
        mu: [K, 2], their means.
        sigma: [K, 2], their standard deviations.
        sds: number of standard deviations for each ring.
    """
    for centre, sd in zip(np.asarray(mu), np.asarray(sigma), strict=True):
        for k in sds:
            ax.add_patch(
                Ellipse(centre, *(2 * k * sd), fill=False, ec=style.POSTERIOR, lw=1.6, ls="-" if k == 1 else "--")
            )
        ax.plot(*centre, "+", color=style.POSTERIOR, ms=8, mew=1.6)


def gaussian_ring(ax: Axes, mean: ArrayLike, covariance: ArrayLike) -> None:
    """Draws a Gaussian in the plane as rings at one and two standard deviations, with its long axis.

    Args:
        ax: axes to draw in.
        mean: [2].
        covariance: [2, 2].
    """
    lengths, axes = np.linalg.eigh(np.asarray(covariance))
    centre = _point(mean)
    angle = np.degrees(np.arctan2(axes[1, -1], axes[0, -1]))
    for k in (1, 2):
        width, height = 2 * k * np.sqrt(lengths[::-1])
        ring = Ellipse(centre, width, height, angle=angle, fill=False, ec=style.MODEL, lw=2, ls="-" if k == 1 else "--")
        ax.add_patch(ring)
    ends = np.asarray(centre) + np.outer([-3, 3], axes[:, -1] * np.sqrt(lengths[-1]))
    ax.plot(*ends.T, color=style.MODEL, lw=1.2)


def line_with_datum(ax: Axes, X: ArrayLike, start: ArrayLike, end: ArrayLike, x: ArrayLike, guess: ArrayLike) -> None:
    """Draws data, the line μ(t), one datum x, and the point μ(m) on the line for its posterior mean m.

    Args:
        ax: axes to draw in.
        X: [N, 2], data.
        start: [2], one end of the line.
        end: [2], the other end.
        x: [2], the datum.
        guess: [2], μ(m).
    """
    scatter(ax, X)
    ax.plot(*zip(np.asarray(start), np.asarray(end), strict=True), color=style.MODEL)
    ax.plot(*zip(np.asarray(x), np.asarray(guess), strict=True), color=style.POSTERIOR, ls="--", lw=1.8)
    ax.plot(*np.asarray(guess), "s", color=style.POSTERIOR, ms=10, mec="black")
    ax.annotate(
        "μ(m)", _point(guess), xytext=(10, -16), textcoords="offset points", color=style.POSTERIOR, fontweight="bold"
    )
    mark(ax, x, label="x")


def digits_in_plane(ax: Axes, T: ArrayLike, labels: ArrayLike) -> None:
    """Draws each datum at its place in the latent plane, marked with its label.

    Args:
        ax: axes to draw in.
        T: [N, 2], the places.
        labels: [N].
    """
    T, labels = np.asarray(T), np.asarray(labels)
    for label in np.unique(labels):
        # A marker made of a numeral: one path for the whole class, drawn ten times as fast as words.
        ax.plot(*T[labels == label].T, marker=f"${label}$", ms=8, mew=0.2, ls="", color=style.INK[int(label) % 5])
    ax.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xlabel="$t_1$", ylabel="$t_2$", aspect="equal")


def cloud(ax: Axes3D, X: ArrayLike, *, color_by: ArrayLike, azimuth: float) -> None:
    """Draws a cloud of points in three dimensions, shaded by a number for each.

    Args:
        ax: three-dimensional axes to draw in.
        X: [N, 3], the points.
        color_by: [N], the numbers, from −2 to 2.
        azimuth: the direction of view, in degrees.
    """
    x1, x2, x3 = np.asarray(X).T
    ax.scatter(x1, x2, x3, c=np.asarray(color_by), cmap="viridis", vmin=-2, vmax=2, s=16, linewidths=0)
    ax.view_init(elev=18, azim=azimuth)
    ax.set_box_aspect((1, 1, 1), zoom=1.05)
    ax.set(xticklabels=[], yticklabels=[], zticklabels=[], xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), zlim=(-1.1, 1.1))
    for axis, name in zip((ax.xaxis, ax.yaxis, ax.zaxis), ("$x_1$", "$x_2$", "$x_3$"), strict=True):
        axis.set_label_text(name)
