"""Calls `draw` for one position of the sliders and takes the picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cmog_lib.classroom.explore.canvas import Canvas
from cmog_lib.classroom.explore.sliders import Control

CSS_PIXELS_PER_INCH = 100


@dataclass(frozen=True)
class Drawn:
    """One state: its picture as pixels and the sentence that describes it, or the exception in its place."""

    sentence: str
    pixels: np.ndarray | None = None
    error: Exception | None = None


class Studio:
    """Calls `draw` and takes the picture. All pictures of one studio have one size."""

    def __init__(self, draw: Callable[..., Any], controls: Sequence[Control]) -> None:
        self.draw, self.controls = draw, controls
        self.size: tuple[int, int] | None = None  # in CSS pixels
        self.sentences_given = False
        self._shape: tuple[int, ...] | None = None
        self._canvas = Canvas()

    def take(self, positions: Sequence[int]) -> Drawn:
        """The state at `positions`. An exception of `draw` is kept in what is returned.

        Raises ValueError when `draw` returns no figure or one of another size than before.
        """
        pairs = list(zip(self.controls, positions, strict=True))
        sentence = ", ".join(f"{control.label} {control.texts[k]}" for control, k in pairs)
        with _no_figure_left_open() as close:
            try:
                result = self.draw(**{control.name: control.values[k] for control, k in pairs})
            except Exception as error:
                return Drawn(sentence, error=error)
            figure, sentence = self._figure_and_sentence(result, sentence)
            close(figure)
            try:
                pixels = self._canvas.pixels(figure)
            except Exception as error:
                return Drawn(sentence, error=error)
        if self._shape not in (None, pixels.shape):
            old, new = (f"{shape[1]} × {shape[0]}" for shape in (self._shape or (0, 0), pixels.shape))
            raise ValueError(f"draw must return figures of one size, got {new} pixels after {old} ({sentence})")
        width, height = figure.get_size_inches()
        self._shape = pixels.shape
        self.size = (round(width * CSS_PIXELS_PER_INCH), round(height * CSS_PIXELS_PER_INCH))
        return Drawn(sentence, pixels)

    def _figure_and_sentence(self, result: Any, sentence: str) -> tuple[Figure, str]:
        figure, words = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        if not isinstance(figure, Figure) or not (words is None or isinstance(words, str)):
            came = f"({type(figure).__name__}, {type(words).__name__})" if words is not None else type(result).__name__
            raise ValueError(
                f"draw must return a matplotlib Figure or a pair (figure, sentence), got {came} ({sentence})"
            )
        self.sentences_given |= words is not None
        return figure, sentence if words is None else words


class _no_figure_left_open:
    """Closes the figures that `draw` opened: pyplot keeps every figure and shows it below the cell."""

    def __enter__(self) -> Callable[[Figure], None]:
        self._before = set(self._open())
        return self._close

    def __exit__(self, *exception: object) -> None:
        for number in set(self._open()) - self._before:
            self._close(number)

    def _open(self) -> list[int]:
        pyplot = sys.modules.get("matplotlib.pyplot")
        return pyplot.get_fignums() if pyplot else []

    def _close(self, figure: Any) -> None:
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close(figure)
