"""Data that were changed in place, where matplotlib would draw from a copy that it made before the change.

An image keeps its colours, a line its points, a transform its matrix. Even a full drawing shows such a copy. `Copies`
compares the data with those of the last drawing; where they differ, matplotlib has to read them again.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import PcolorImage
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Bbox, TransformedPath, TransformNode

LONG_LINE = 1000  # points; of a longer line matplotlib keeps the sorted x, to draw only what is in view

Copy = tuple[Any, Callable[[], object]]  # data, and the function that makes matplotlib read them again


class Copies:
    """The data of the figures that were drawn, as they were then."""

    def __init__(self) -> None:
        # An object stays in here, so that its id is not given to another one.
        self._drawn: weakref.WeakKeyDictionary[Figure, dict[int, tuple[Any, bytes]]] = weakref.WeakKeyDictionary()

    def remember(self, figure: Figure) -> None:
        """Keeps the data of a figure that has just been drawn."""
        watched = [data for data, _ in (*_given(figure), *_copied(figure))]
        self._drawn[figure] = {id(data): (data, _content(data)) for data in watched}

    def renew(self, figure: Figure) -> bool:
        """Makes matplotlib read again what was changed in place since the figure was drawn.

        If the figure has not been drawn here, it reads everything again except the data that lines were given: those
        may be older than the points that were made of them.

        Returns:
            Whether a clipping path has changed. A canvas keeps its mask, so only a new canvas shows the change.
        """
        drawn, clipped = self._drawn.get(figure), False
        if drawn is None:
            for _, read_again in list(_copied(figure)):
                read_again()
            return False
        clips = {id(artist.get_clip_path()) for artist in parts(figure)}
        for data, read_again in [*_given(figure), *_copied(figure)]:
            if id(data) in drawn and drawn[id(data)][1] != _content(data):
                read_again()
                clipped |= id(data) in clips
        return clipped


def _given(figure: Figure) -> Iterator[Copy]:
    """The data that lines were given."""
    for artist in parts(figure):
        if isinstance(artist, Line2D):
            for data in (artist.get_xdata(), artist.get_ydata()):
                yield data, functools.partial(artist.recache, always=True)


def _copied(figure: Figure) -> Iterator[Copy]:
    """Everything else that matplotlib copies."""
    nodes: dict[int, TransformNode] = {}
    for artist in parts(figure):
        if isinstance(artist, PcolorImage):
            yield artist.get_array(), artist.changed
        if isinstance(artist, Line2D):
            # Most changes of the points are seen in the nodes below. Steps and long lines are copied once more.
            x, y = (np.asarray(data) for data in artist.get_data(orig=False))
            steps = artist.get_drawstyle() != "default"
            if steps or len(x) > LONG_LINE:
                yield x, artist.recache
            if steps:
                yield y, artist.recache
        _collect(artist, nodes)
    for node in nodes.values():
        yield node, node.invalidate


def _collect(owner: Any, nodes: dict[int, TransformNode]) -> None:
    """Adds to `nodes` all transforms, boxes and transformed paths that the owner's attributes lead to."""
    for value in vars(owner).values():
        if isinstance(value, TransformNode) and id(value) not in nodes:
            nodes[id(value)] = value
            _collect(value, nodes)


def _content(data: Any) -> bytes:
    if isinstance(data, Affine2D):
        return data.get_matrix().tobytes()
    if isinstance(data, Bbox):
        return data.get_points().tobytes()
    if isinstance(data, TransformedPath):
        return b"".join(
            np.asarray(value.vertices).tobytes() for value in vars(data).values() if isinstance(value, Path)
        )
    if isinstance(data, TransformNode):
        return b""  # It depends on others alone, and these are here too.
    values = np.ma.asarray(data)
    return values.data.tobytes() + np.ma.getmaskarray(values).tobytes()


def parts(artist: Artist) -> Iterator[Artist]:
    """The artist and all that is in it, except ticks and their labels."""
    yield artist
    for child in artist.get_children():
        if not isinstance(child, Axis):
            yield from parts(child)
