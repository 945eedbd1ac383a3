"""The order in which a figure's artists are drawn, and which of them are drawn at each state.

The rest is the background: the patches, and the ticks with their labels unless something is drawn below them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxBase

THICK = 30  # pixels by which lines and markers may stick out of the box of their points

Boxes = dict[Artist, BboxBase]


def moving(figure: Figure, boxes: Boxes, renderer: Any) -> list[Artist] | None:
    """The artists that are drawn at each state, bottom up.

    Args:
        boxes: the pixels that each axis and each axis label cover, from `axis_boxes`.

    Returns:
        The artists, or None if one of them reaches into axes whose patch must cover it.
    """
    found: list[Artist] = []
    below: list[BboxBase | None] = []
    shown = shown_axes(figure)
    for axes in shown:
        if any(_meet(box, axes.bbox) for box in below):
            return None
        covering = {part for part in boxes if any(_meet(box, boxes[part]) for box in below)}
        own = list(_moving(axes, covering))
        found += own
        if axes is not shown[-1]:
            below += [axes.bbox, *(_box(part, boxes, renderer) for part in own if _leaves(part))]
    return found + above_axes(figure)


def axis_boxes(figure: Figure, renderer: Any) -> Boxes:
    """For each axis the box of its ticks, and for its label another."""
    found: Boxes = {}
    for axis in (axis for axes in shown_axes(figure) if axes.axison for axis in (axes.xaxis, axes.yaxis)):
        with left_out(figure, [axis.label]):
            box = axis.get_tightbbox(renderer)
        if box is not None:
            found[axis] = box
        if axis.label.get_visible() and axis.label.get_text():
            found[axis.label] = axis.label.get_window_extent(renderer)
    return found


@contextlib.contextmanager
def left_out(figure: Figure, artists: Sequence[Artist]) -> Iterator[None]:
    """Leaves visible artists out of the drawings of a figure, and leaves everything else in its place."""
    # A full drawing skips what is animated, but for the label of an axis: that is hidden.
    labels = [axis.label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    hidden = [label for label in labels if label in artists and label.get_visible()]
    animated = [artist for artist in artists if artist not in labels]
    try:
        for label in hidden:
            label.set_visible(False)
        for artist in animated:
            artist.set_animated(True)
        yield
    finally:
        for label in hidden:
            label.set_visible(True)
        for artist in animated:
            artist.set_animated(False)


def by_height(figure: Figure) -> list[Artist]:
    """Everything in the figure except its patch, bottom up."""
    found = [part for part in figure.get_children() if part is not figure.patch and not part.get_animated()]
    return sorted(found, key=lambda part: part.get_zorder())


def shown_axes(figure: Figure) -> list[Axes]:
    """The visible axes, bottom up."""
    return [part for part in by_height(figure) if isinstance(part, Axes) and part.get_visible()]


def above_axes(figure: Figure) -> list[Artist]:
    """What the figure itself holds: titles, texts and legends."""
    return [part for part in by_height(figure) if not isinstance(part, Axes)]


def layer(axes: Axes) -> list[Artist]:
    """The artists of axes without their patch, bottom up."""
    found = [part for part in axes.get_children() if part is not axes.patch and not part.get_animated()]
    if not (axes.axison and axes.get_frame_on()):
        found = [part for part in found if part not in axes.spines.values()]
    if not axes.axison:
        found = [part for part in found if not isinstance(part, Axis)]
    return sorted(found, key=lambda part: part.get_zorder())


def _moving(axes: Axes, covering: set[Artist]) -> Iterator[Artist]:
    """The layer without each axis that covers nothing: all below it is clipped to the axes, and the axis is outside."""
    nothing, inside = True, True
    for part in layer(axes):
        if not isinstance(part, Axis):
            nothing, inside = False, inside and (not part.get_visible() or _inside(part))
            yield part
        elif part in covering or not (nothing or (inside and _outside(part))):
            yield part
        elif part.label in covering:
            yield part.label


def _inside(artist: Artist) -> bool:
    """Whether an artist is clipped to its axes. Tables and legends are not, whatever their clip box."""
    box = artist.get_clip_box()
    return (
        isinstance(artist, (Line2D, Patch, Collection, AxesImage))
        and artist.get_clip_on()
        and isinstance(box, BboxBase)
        and isinstance(artist.axes, Axes)
        and np.array_equal(box.extents, artist.axes.bbox.extents)
    )


def _outside(axis: Axis) -> bool:
    """Whether an axis draws nothing in its axes."""
    ticks: list[Any] = [*axis.majorTicks, *axis.minorTicks]
    return not any(tick.gridline.get_visible() or tick.get_tickdir() != "out" or tick.get_pad() < 0 for tick in ticks)


def _leaves(part: Artist) -> bool:
    """Whether an artist may draw outside of its axes."""
    return part.get_visible() and not _inside(part) and not (isinstance(part, Text) and not part.get_text())


def _box(part: Artist, boxes: Boxes, renderer: Any) -> BboxBase | None:
    """The pixels that an artist covers, or None if they are unknown."""
    if isinstance(part, Axis):
        return Bbox.union([boxes[one] for one in (part, part.label) if one in boxes] or [Bbox.null()])
    if isinstance(part, Spine):  # its own `get_window_extent` includes the ticks, and updates them
        return Patch.get_window_extent(part, renderer).padded(part.get_linewidth())
    if type(part).get_window_extent is Artist.get_window_extent:
        return None
    box = part.get_window_extent(renderer)
    thick = isinstance(part, (Line2D, Patch, Collection)) or part.get_path_effects()
    return box.padded(THICK) if thick else box


def _meet(a: BboxBase | None, b: BboxBase) -> bool:
    """Whether two boxes share a pixel. A box that is unknown or not finite meets every other."""
    return a is None or not (a.x1 + 1 < b.x0 or b.x1 + 1 < a.x0 or a.y1 + 1 < b.y0 or b.y1 + 1 < a.y0)
