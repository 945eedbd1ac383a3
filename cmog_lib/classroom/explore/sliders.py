"""The ways to write a slider: each becomes a Control, a numbered list of values with their texts."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_VALUES = 10_000  # more than pixels on a screen: a slip of the step, not a slider


@dataclass(frozen=True, eq=False)
class Slider:
    """One row of values along which a handle moves.

    Attributes:
        values: numbers or strings, each once.
        label: the text beside the slider (default: the argument's name).
        start: the value shown first (default: the first).
        format: how a value is written, as in "{:.2f}".
    """

    values: Any
    label: str | None = None
    start: Any = None
    format: str | None = None


@dataclass(frozen=True, eq=False)
class Pad:
    """A point (t1, t2) that is dragged in the plane, for latent planes; `draw` gets it as an array of shape [2].

    Attributes:
        x: (lowest, highest, number of values).
        y: likewise.
        label: the text beside the pad (default: the argument's name).
        start: where the point begins; it is moved to the nearest grid point.
        format: how a coordinate is written.
        names: the names of the two axes (default: the argument's name with ₁ and ₂).
    """

    x: Sequence[Any]
    y: Sequence[Any]
    label: str | None = None
    start: Sequence[Any] = (0.0, 0.0)
    format: str = "{:.2f}"
    names: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class Control:
    """A slider or a pad, ready for use: position k holds values[k], written as texts[k]."""

    name: str
    label: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]
    start: int
    axes: tuple[tuple[str, ...], tuple[str, ...]] | None = None  # a pad's ticks, x fastest in `values`
    names: tuple[str, str] = ("", "")
    cross: tuple[float, float] = (0.0, 0.0)  # where the pad's zeros stand, as shares of its sides

    def position(self, value: Any) -> int:
        """The k with values[k] = value. Raises ValueError when the control has no such value."""
        for k, own in enumerate(self.values):
            if np.array_equal(own, value):
                return k
        raise ValueError(f"{self.name} must be one of {_some(self.values)}, got {value!r}")


def control(name: str, spec: Any) -> Control:
    """The Control that `spec` describes.

    Args:
        name: of the slider.
        spec: a range, a list or array, (lowest, highest[, step]), a Slider or a Pad.

    Raises:
        ValueError: if the slider is empty, repeats a value, starts at another value, or is none of these; naming it.
    """
    if isinstance(spec, Pad):
        return _pad(name, spec)
    slider = spec if isinstance(spec, Slider) else Slider(spec)
    values = _values(name, slider.values)
    texts = _texts(name, values, slider.format)
    label = name.replace("_", " ") if slider.label is None else slider.label
    start = 0
    if slider.start is not None:
        matches = [k for k, value in enumerate(values) if value == slider.start]
        if not matches:
            raise ValueError(f"start of slider {name} must be one of {_some(values)}, got {slider.start!r}")
        start = matches[0]
    return Control(name, label, values, texts, start)


def sweep_positions(control: Control, count: int) -> list[int]:
    """About `count` positions spread evenly over a control, with its start; for a pad, over the row of its start."""
    low, number = 0, len(control.values)
    if control.axes is not None:
        number = len(control.axes[0])
        low = control.start - control.start % number
    spread = np.linspace(low, low + number - 1, min(count, number)).round().astype(int)
    if control.start not in spread:
        spread[np.abs(spread - control.start).argmin()] = control.start
    return [int(k) for k in spread]


def restricted(control: Control, positions: Sequence[int]) -> Control:
    """A slider over some of a control's positions, its start among them."""
    values, texts = (tuple(all_[k] for k in positions) for all_ in (control.values, control.texts))
    return Control(control.name, control.label, values, texts, list(positions).index(control.start))


def _values(name: str, spec: Any) -> tuple[Any, ...]:
    if isinstance(spec, tuple) and all(_is_number(part) for part in spec) and len(spec) in (2, 3):
        spec = _steps(name, *spec)
    if isinstance(spec, (str, bytes)) or not (isinstance(spec, Sequence) or hasattr(spec, "__array__")):
        raise ValueError(
            f"slider {name} must be a range, a list or array of values, (lowest, highest[, step]), a Slider or a Pad, "
            f"got {spec!r}"
        )
    if not isinstance(spec, Sequence):
        spec = np.asarray(spec)
        if spec.ndim != 1:
            raise ValueError(f"slider {name} must be a row of values, got an array of shape {list(spec.shape)}")
    values = tuple(value.item() if isinstance(value, np.generic) else value for value in spec)
    strange = [value for value in values if not isinstance(value, str) and not _is_number(value)]
    if strange:
        raise ValueError(f"slider {name} must hold finite numbers or strings, got {strange[0]!r}")
    if not values:
        raise ValueError(f"slider {name} must have at least one value, got none")
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise ValueError(f"slider {name} must have each value once, got {twice!r} {values.count(twice)} times")
    return values


def _steps(name: str, low: Any, high: Any, step: Any = None) -> list[Any]:
    """low, low + step, … up to high, as ipywidgets.interact counts them."""
    if step is None:
        step = 1 if isinstance(low, int) and isinstance(high, int) else 0.1
    if not (low < high and step > 0):
        raise ValueError(f"slider {name} must be (lowest, highest[, step]) going up, got {(low, high, step)}")
    count = int(np.floor((high - low) / step + 1e-9)) + 1
    if count > MOST_VALUES:
        raise ValueError(
            f"slider {name} must have at most {MOST_VALUES} values, got {(low, high, step)}: {count} values"
        )
    # Rounding takes away the dust of 0.1 + 0.2, which would be read out beside the slider.
    return [value if isinstance(value, int) else round(value, 12) for value in (low + k * step for k in range(count))]


def _texts(name: str, values: Sequence[Any], pattern: str | None) -> tuple[str, ...]:
    patterns = (
        ["{}"] if any(isinstance(value, (str, int)) for value in values) else [f"{{:.{n}g}}" for n in range(3, 18)]
    )
    for pattern_ in patterns if pattern is None else [pattern]:
        texts = _written(f"slider {name}", values, pattern_)
        if len(set(texts)) == len(texts):
            break
    return tuple(texts)


def _written(owner: str, values: Sequence[Any], pattern: Any) -> list[str]:
    """The values as texts, with a true minus sign. Raises ValueError if the pattern cannot write them."""
    expected = 'such as "{:.2f}" for floats or "{:d}" for integers'
    texts, value = [], values[0]
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None]
        for value in values:
            text = pattern.format(value)
            texts.append(text if isinstance(value, str) else text.replace("-", "−"))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"format of {owner} must be a format string that suits its values, {expected}, got {pattern!r}, which "
            f"cannot write {value!r} ({type(value).__name__}): {error}"
        ) from error
    if not fields:
        raise ValueError(f"format of {owner} must have a place for the value, {expected}, got {pattern!r}")
    return texts


def _pad(name: str, pad: Pad) -> Control:
    for axis, spec in zip("xy", (pad.x, pad.y), strict=True):
        if not (_are_numbers(spec, 3) and spec[0] < spec[1] and int(spec[2]) == spec[2] and spec[2] >= 2):
            raise ValueError(f"{axis} of pad {name} must be (lowest, highest, number of values ≥ 2), got {spec!r}")
    if not _are_numbers(pad.start, 2):
        raise ValueError(f"start of pad {name} must be a point (x, y), got {pad.start!r}")
    ticks = []
    for axis, spec, start in zip("xy", (pad.x, pad.y), pad.start, strict=True):
        if not spec[0] <= start <= spec[1]:
            raise ValueError(f"start of pad {name} must lie on the pad, {axis} in {list(spec[:2])}, got {pad.start!r}")
        ticks.append(np.linspace(spec[0], spec[1], int(spec[2])).round(12) + 0.0)
    x, y = ticks
    points = [np.array([a, b]) for b in y for a in x]
    for point in points:
        point.flags.writeable = False
    texts_x, texts_y = (tuple(_written(f"pad {name}", axis.tolist(), pad.format)) for axis in ticks)
    near_x, near_y = (int(np.abs(axis - s).argmin()) for axis, s in zip(ticks, pad.start, strict=True))
    return Control(
        name,
        name.replace("_", " ") if pad.label is None else pad.label,
        tuple(points),
        tuple(f"({a}, {b})" for b in texts_y for a in texts_x),
        near_y * len(x) + near_x,
        (texts_x, texts_y),
        pad.names or (f"{name}₁", f"{name}₂"),
        tuple(float(np.clip(-axis[0] / (axis[-1] - axis[0]), 0, 1)) for axis in ticks),  # type: ignore[arg-type]
    )


def _are_numbers(values: Any, count: int) -> bool:
    return hasattr(values, "__len__") and len(values) == count and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and bool(np.isfinite(value))


def _some(values: Sequence[Any]) -> str:
    shown = [repr(value) for value in values[:6]]
    return ", ".join(shown) + (f", … ({len(values)} values)" if len(values) > 6 else "")
