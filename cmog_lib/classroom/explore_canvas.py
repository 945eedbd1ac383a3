"""A figure's pixels, again and again: where only some artists have changed, only those are drawn.

Matplotlib marks an artist that was changed as stale. The picture without the stale artists (and without what lies
above them) is kept, put back and painted over. Whatever else has changed, be it a limit, a tick, an artist more or
less, leads to a full drawing, and the pixels are those of a full drawing in every case; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.text import Text


class Canvas:
    """Draws figures to pixels of shape [height, width, 4]; quick when it is given the same figure again."""

    def __init__(self) -> None:
        self._figure: Figure | None = None
        self._agg: FigureCanvasAgg
        self.full_draws = 0

    def pixels(self, figure: Figure) -> np.ndarray:
        """What `figure` looks like now. The array is the caller's own."""
        if figure is not self._figure or figure.canvas is not self._agg:
            self._figure, self._agg = figure, FigureCanvasAgg(figure)
            self._draw_all()
        else:
            changed = self._changed()
            if changed is None:
                self._draw_all()
            elif changed:
                self._draw_some(changed)
        return np.array(self._agg.buffer_rgba())

    def _draw_all(self) -> None:
        assert self._figure is not None
        self._agg.draw()
        self.full_draws += 1
        self._background: Any = None
        self._moving: set[Artist] = set()
        self._structure = _structure(self._figure)
        self._visible = {artist for artist in _all_layers(self._figure) if artist.get_visible()}
        self._watched = list(_watched(self._figure))
        self._settle()

    def _settle(self) -> None:
        # Empty texts, hidden artists and annotations stay stale when drawn; all start from a clean slate here.
        for _, part in self._watched:
            part.stale = False
        assert self._figure is not None
        for axes in self._figure.axes:
            axes.stale = False
        self._figure.stale = False

    def _changed(self) -> set[Artist] | None:
        """The artists that have to be drawn again, or None where only a full drawing will do."""
        assert self._figure is not None
        figure, structure = self._figure, _structure(self._figure)
        if not _same(structure, self._structure) or not _simple(figure):
            return None
        stale = {owner for owner, part in self._watched if part.stale}
        explained = {artist.axes for artist in stale}
        if any(axes.stale and axes not in explained for axes in figure.axes):
            return None
        layers = set(_all_layers(figure))
        if any(artist not in layers or isinstance(artist, Axis) for artist in stale):
            return None
        visible = {artist for artist in layers if artist.get_visible()}
        changed = stale & (visible | self._visible)
        self._visible = visible
        engine = figure.get_layout_engine()
        laid_out = engine is not None and not isinstance(engine, PlaceHolderLayoutEngine)
        if laid_out and any(isinstance(artist, Text) or not artist.get_clip_on() for artist in changed):
            return None
        # A title dodges ticks that stand above the axes, and does so in a full drawing only.
        for axes in figure.axes:
            if axes.xaxis.get_ticks_position() != "bottom" and changed & {axes.title}:
                return None
        return changed

    def _draw_some(self, changed: set[Artist]) -> None:
        assert self._figure is not None
        moving = [artist for layers in _layers(self._figure) for artist in _from_first(layers, changed | self._moving)]
        if self._background is None or not set(moving) <= self._moving:
            self._draw_without(moving)
            self._background = self._agg.copy_from_bbox(self._figure.bbox)
            self._moving = set(moving)
        else:
            self._agg.restore_region(self._background)
        renderer = self._agg.get_renderer()
        for artist in moving:
            artist.draw(renderer)
        self._settle()

    def _draw_without(self, moving: list[Artist]) -> None:
        assert self._figure is not None
        # The layout stays: it would close the gaps that the absent artists leave.
        engine = self._figure.get_layout_engine()
        if engine is not None:
            self._figure.set_layout_engine("none")
        try:
            for artist in moving:
                artist.set_animated(True)
            self._agg.draw()
        finally:
            for artist in moving:
                artist.set_animated(False)
            if engine is not None:
                self._figure.set_layout_engine(engine)
        self.full_draws += 1


def _layers(figure: Figure) -> Iterator[list[Artist]]:
    """What is drawn, bottom up: one list for each axes, and one for what the figure itself holds above them."""
    children = sorted(figure.get_children(), key=lambda artist: artist.get_zorder())
    for axes in children:
        if isinstance(axes, Axes):
            parts = [part for part in axes.get_children() if part is not axes.patch and not part.get_animated()]
            if not (axes.axison and axes.get_frame_on()):
                parts = [part for part in parts if part not in axes.spines.values()]
            if not axes.axison:
                parts = [part for part in parts if not isinstance(part, Axis)]
            yield sorted(parts, key=lambda artist: artist.get_zorder())
    yield [artist for artist in children if not isinstance(artist, Axes) and artist is not figure.patch]


def _all_layers(figure: Figure) -> list[Artist]:
    return [artist for layer in _layers(figure) for artist in layer]


def _from_first(layer: list[Artist], changed: set[Artist]) -> list[Artist]:
    """The layer from its lowest changed artist on, less an axis that stands outside all of it."""
    first = next((k for k, artist in enumerate(layer) if artist in changed), len(layer))
    above = layer[first:]
    inside = all(not artist.get_visible() or artist.get_clip_on() for artist in above if artist in changed)
    return [artist for artist in above if not (inside and isinstance(artist, Axis) and _stands_outside(artist))]


def _stands_outside(axis: Axis) -> bool:
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return not any(tick.gridline.get_visible() or tick.get_tickdir() != "out" or _label_inside(tick) for tick in ticks)


def _label_inside(tick: Any) -> bool:
    return tick.get_pad() < 0


def _simple(figure: Figure) -> bool:
    """Whether artists may be drawn one by one: flat axes that do not overlap, and nothing of the figure's beneath."""
    boxes = [axes.bbox for axes in figure.axes]
    return (
        all(axes.name == "rectilinear" and not axes.child_axes for axes in figure.axes)
        and not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
        and not figure.subfigs
        and all(
            part.get_zorder() > 0
            for part in figure.get_children()
            if part is not figure.patch and part not in figure.axes
        )
    )


def _structure(figure: Figure) -> list[Any]:
    """What, when it changes, changes more than a few artists."""
    facts: list[Any] = [figure.dpi, *figure.get_size_inches()]
    for axes in figure.axes:
        # Not get_position(): it applies the aspect, and marks the axes as stale in doing so.
        facts += [*axes.viewLim.extents, *axes.bbox.extents, axes.get_aspect(), axes.get_visible()]
        facts += [axes.axison, getattr(axes, "_frameon", None)]
    return facts + _all_layers(figure)


def _same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(x is y or (not isinstance(x, Artist) and x == y) for x, y in zip(a, b, strict=True))


def _watched(figure: Figure) -> Iterator[tuple[Artist, Artist]]:
    """(artist, part of it): every part whose change makes the artist look different."""
    for artist in [*_all_layers(figure), figure.patch, *(axes.patch for axes in figure.axes)]:
        yield from ((artist, part) for part in _parts(artist))


def _parts(artist: Artist) -> Iterator[Artist]:
    yield artist
    for child in artist.get_children():
        yield from _parts(child)
