"""Sheets of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike
from matplotlib import colormaps
from matplotlib.axes import Axes

# Ink on paper; what is missing is tinted, what lies between the images is paper.
INK = colormaps["gray_r"].with_extremes(under="white", bad="#F0C987")


def images(
    ax: Axes, X: ArrayLike, image_shape: tuple[int, int], *, columns: int, limits: tuple[float, float] = (0, 1)
) -> None:
    """Images in rows of `columns`, ink dark on light; pixels that are NaN, missing ones, are tinted."""
    pictures = np.asarray(X)
    rows = -(-len(pictures) // columns)
    (height, width), gap = image_shape, max(1, image_shape[0] // 8)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), limits[0] - 1.0)
    for k, image in enumerate(pictures):
        top, left = (k // columns) * (height + gap), (k % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image.reshape(image_shape)
    ax.imshow(sheet, cmap=INK, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set_axis_off()


def row_names(ax: Axes, names: Sequence[str]) -> None:
    """Names to the left of the rows of a sheet made by `images`."""
    for k, name in enumerate(names):
        place = (-0.02, 1 - (k + 0.5) / len(names))
        ax.annotate(name, place, xycoords="axes fraction", ha="right", va="center", annotation_clip=False)


def signed_image(ax: Axes, values: ArrayLike, image_shape: tuple[int, int]) -> None:
    """An image of numbers of either sign: white is zero."""
    ax.imshow(np.asarray(values).reshape(image_shape), cmap="RdBu_r", vmin=-0.3, vmax=0.3, interpolation="nearest")
    ax.set_axis_off()


def heat(ax: Axes, picture: ArrayLike, *, label: str, limits: tuple[float, float]) -> None:
    """An image of positive numbers with their scale; what is not a number stays empty."""
    ax.imshow(np.asarray(picture), cmap="cividis", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.figure.colorbar(ax.images[0], ax=ax, shrink=0.9, label=label)
