"""A figure's pixels, again and again: everything in it is drawn each time, except the axes' ticks and labels.

Matplotlib marks only some of the changes of an artist (a collection's `set_array` is not marked), so all artists are
drawn at each state. Ticks and their labels take most of the time of a drawing and seldom change. The picture of them is
kept while all that they depend on is as before (`facts.py`); if anything there has changed, the whole figure is
drawn. In every case the pixels are those of a full drawing; tests compare them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cmog_lib.classroom.explore.copies import Copies
from cmog_lib.classroom.explore.facts import facts, same, settle
from cmog_lib.classroom.explore.layers import axis_boxes, left_out, moving


class Canvas:
    """Draws figures to pixels of shape [height, width, 4]; quick when it is given the same figure again."""

    def __init__(self) -> None:
        self._figure: Figure | None = None
        self._agg: FigureCanvasAgg
        self._copies = Copies()
        self.full_draws = 0

    def pixels(self, figure: Figure) -> np.ndarray:
        """What `figure` looks like now. The array is the caller's own."""
        if self._copies.renew(figure) or figure is not self._figure or figure.canvas is not self._agg:
            self._figure, self._agg = figure, FigureCanvasAgg(figure)
            # Most figures never come back, so nothing more is computed of them until they do.
            self._facts: list[Any] | None = None
            self._background: Any = None
            self._draw_all()
        else:
            self._draw_again(figure)
        self._copies.remember(figure)
        return np.array(self._agg.buffer_rgba())

    def _draw_all(self) -> None:
        self._agg.draw()
        self.full_draws += 1

    def _draw_again(self, figure: Figure) -> None:
        renderer, before, draws = self._agg.get_renderer(), self._facts, self.full_draws
        self._facts = facts(figure, renderer)
        unchanged = self._facts is not None and (before is None or same(self._facts, before))
        if not (unchanged and self._draw_moving(figure, renderer)):
            self._background = None
            self._draw_all()
        if self.full_draws > draws:
            settle(figure)
            self._facts = facts(figure, renderer)

    def _draw_moving(self, figure: Figure, renderer: Any) -> bool:
        """Draws over the background what is drawn at each state; returns False if the figure cannot be drawn so."""
        if self._background is None:
            figure.draw_without_rendering()  # Layout, aspects and titles take their places.
            self._boxes, self._moving = axis_boxes(figure, renderer), None
        artists = moving(figure, self._boxes, renderer)
        if artists is None:
            return False
        if artists != self._moving:
            self._draw_without(figure, artists)
            self._background, self._moving = self._agg.copy_from_bbox(figure.bbox), artists
        else:
            self._agg.restore_region(self._background)
        for artist in artists:
            artist.draw(renderer)
        if any(isinstance(artist, Axis) for artist in artists):
            settle(figure)
        return True

    def _draw_without(self, figure: Figure, artists: list[Artist]) -> None:
        # The layout stays: without these artists it would close the gaps.
        engine = figure.get_layout_engine()
        if engine is not None:
            figure.set_layout_engine("none")
        try:
            with left_out(figure, artists):
                self._draw_all()
        finally:
            if engine is not None:
                figure.set_layout_engine(engine)
