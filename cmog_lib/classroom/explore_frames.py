"""From `draw` and slider values to encoded pictures: one state, or all of them in one compact bundle."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cmog_lib.classroom.explore_canvas import Canvas
from cmog_lib.classroom.explore_sliders import Control

MAX_BYTES = 3_000_000
CSS_PIXELS_PER_INCH = 100


@dataclass(frozen=True)
class Drawn:
    """One state: its picture as pixels and the sentence that says what it shows, or the exception in its place."""

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
    """pyplot keeps every figure and shows it below the cell: those that `draw` opened are closed again."""

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


def encode(pixels: np.ndarray, *, small: bool) -> bytes:
    """`pixels` as WebP without loss. `small` first reduces them to the 256 colours that suit them best.

    Measured on figures of 900 × 400 pixels (curves; a density): palette and WebP 21 and 29 KB in 35 ms, palette and PNG
    25 and 38 KB, plain PNG 69 and 88 KB. The quicker octree palette draws rings into a smooth density.
    """
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB") if pixels[..., 3].min() == 255 else _on_white(pixels)
    if small:
        image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=True, quality=50, method=2 if small else 0)
    return stream.getvalue()


def _on_white(pixels: np.ndarray) -> Any:
    from PIL import Image

    image = Image.fromarray(pixels)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


@dataclass
class Bundle:
    """Many states: `frames` holds each picture once, `frame_of[k]` says which one state k shows (−1: its error)."""

    frames: list[bytes] = field(default_factory=list)
    frame_of: list[int] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    errors: dict[int, Exception] = field(default_factory=dict)


def bundle(studio: Studio, states: Sequence[Sequence[int]], label: str) -> Bundle:
    """All `states`, drawn one after the other, and encoded meanwhile."""
    from tqdm.auto import tqdm

    made, seen = Bundle(), {}
    jobs: list[Future[bytes]] = []
    with ThreadPoolExecutor(2) as pool:
        for k, positions in enumerate(tqdm(states, desc=f"drawing {label}".strip(), delay=2, leave=False)):
            drawn = studio.take(positions)
            made.sentences.append(drawn.sentence)
            if drawn.pixels is None:
                assert drawn.error is not None
                made.errors[k] = drawn.error
                made.frame_of.append(-1)
                continue
            digest = hashlib.blake2b(drawn.pixels.tobytes(), digest_size=16).digest()
            if digest not in seen:
                seen[digest] = len(jobs)
                jobs.append(pool.submit(encode, drawn.pixels, small=True))
            made.frame_of.append(seen[digest])
        made.frames = [job.result() for job in jobs]
    return made


def check_size(made: Bundle, label: str) -> None:
    """Raises ValueError when the frames together exceed MAX_BYTES."""
    total = sum(map(len, made.frames))
    if total > MAX_BYTES:
        raise ValueError(
            f"explorer {label!r} must stay below {MAX_BYTES / 1e6:.0f} MB, got {total / 1e6:.1f} MB in "
            f"{len(made.frames)} pictures; give the sliders fewer values, make the figure smaller, or pass live=True"
        )
