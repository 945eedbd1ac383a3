"""Sheets of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.image import AxesImage

# Ink on paper: missing pixels are tinted, the gaps between the images are white.
BETWEEN = -9.0  # below any limits, and finite: infinities would count as missing
INK = colormaps["gray_r"].with_extremes(under="white", bad="#F0C987")


def images(
    ax: Axes, X: ArrayLike, image_shape: tuple[int, int], *, columns: int, limits: tuple[float, float] = (0, 1)
) -> AxesImage:
    """Draws images side by side in rows, ink dark on light; missing pixels (NaN) are tinted.

    Args:
        ax: axes to draw in.
        X: [N, D], the images.
        image_shape: height and width of one image.
        columns: number of images in a row.
        limits: the values that are white and black.

    Returns:
        The picture; `set_data(sheet(...))` puts other images in their place.
    """
    paper = sheet(X, image_shape, columns=columns)
    picture = ax.imshow(paper, cmap=INK, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set_axis_off()
    return picture


def sheet(X: ArrayLike, image_shape: tuple[int, int], *, columns: int) -> np.ndarray:
    """The array that `images` shows.

    Args:
        X: [N, D], the images.
        image_shape: height and width of one image.
        columns: number of images in a row.

    Returns:
        One array, with a gap between the images.
    """
    pictures = np.asarray(X)
    rows = -(-len(pictures) // columns)
    (height, width), gap = image_shape, max(1, image_shape[0] // 8)
    paper = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), BETWEEN)
    for k, image in enumerate(pictures):
        top, left = (k // columns) * (height + gap), (k % columns) * (width + gap)
        paper[top : top + height, left : left + width] = image.reshape(image_shape)
    return paper


def row_names(ax: Axes, names: Sequence[str]) -> None:
    """Writes names to the left of the rows of a sheet made by `images`.

    Args:
        ax: the axes of the sheet.
        names: one for each row.
    """
    for k, name in enumerate(names):
        place = (-0.02, 1 - (k + 0.5) / len(names))
        ax.annotate(name, place, xycoords="axes fraction", ha="right", va="center", annotation_clip=False)


def column_names(ax: Axes, names: Sequence[str]) -> None:
    """Writes names above the columns of a sheet made by `images`.

    Args:
        ax: the axes of the sheet.
        names: one for each column.
    """
    for k, name in enumerate(names):
        place = ((k + 0.5) / len(names), 1.02)
        ax.annotate(name, place, xycoords="axes fraction", ha="center", va="bottom", annotation_clip=False)


def signed_image(ax: Axes, values: ArrayLike, image_shape: tuple[int, int]) -> None:
    """Draws an image of numbers of either sign, with zero in white.

    Args:
        ax: axes to draw in.
        values: [D]; the colours end at −0.3 and 0.3.
        image_shape: height and width.
    """
    ax.imshow(np.asarray(values).reshape(image_shape), cmap="RdBu_r", vmin=-0.3, vmax=0.3, interpolation="nearest")
    ax.set_axis_off()


def heat(ax: Axes, picture: ArrayLike, *, label: str, limits: tuple[float, float], log: bool = False) -> AxesImage:
    """Draws an image of positive numbers with a colour bar; a value that is not a number stays empty.

    Args:
        ax: axes to draw in.
        picture: [height, width].
        label: of the colour bar.
        limits: the numbers at the ends of the scale.
        log: whether the scale is logarithmic.

    Returns:
        The picture; `set_data` gives it other numbers.
    """
    norm = (LogNorm if log else Normalize)(*limits)
    shown = ax.imshow(np.asarray(picture), cmap="cividis", norm=norm, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.figure.colorbar(shown, ax=ax, shrink=0.9, label=label)
    return shown
