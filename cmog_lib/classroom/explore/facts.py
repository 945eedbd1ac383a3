"""The facts on which a figure's background and layout depend. A change of any of them leads to a full drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import LayoutEngine, PlaceHolderLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.ticker import NullLocator

from cmog_lib.classroom.explore.copies import parts
from cmog_lib.classroom.explore.layers import above_axes, by_height, layer, shown_axes


def facts(figure: Figure, renderer: Any) -> list[Any] | None:
    """All facts, or None if the figure's artists cannot be drawn one by one."""
    if not _simple(figure):
        return None
    found: list[Any] = [figure.dpi, *figure.get_size_inches(), *by_height(figure)]
    found += [*_state(figure), *_state(figure.patch)]
    engine = figure.get_layout_engine()
    if isinstance(engine, PlaceHolderLayoutEngine):
        engine = None
    for axes in shown_axes(figure):
        # Not get_position(): it applies the aspect.
        found += [*axes.viewLim.extents, *axes.bbox.extents, *axes.get_position(original=True).extents, *layer(axes)]
        found += [fact for part in (axes, axes.patch, *axes.spines.values()) for fact in _state(part)]
        found += [fact for axis in (axes.xaxis, axes.yaxis) for fact in _ticks(axis)]
        found += [edge for title in _titles(axes) for edge in _place(title, engine is not None, renderer)]
    return found + ([] if engine is None else _layout(figure, engine, renderer))


def same(new: list[Any], old: list[Any]) -> bool:
    """Whether all facts are as before: the same objects, or numbers, texts and bytes that are equal."""
    plain = (str, bytes, int, float)
    return len(new) == len(old) and all(
        x is y or (isinstance(x, plain) and isinstance(y, plain) and x == y) for x, y in zip(new, old, strict=True)
    )


def settle(figure: Figure) -> None:
    """Marks the background as drawn. Matplotlib leaves empty and hidden artists stale, and would hide later changes."""
    for axes in figure.axes:
        for part in (axes.patch, *axes.spines.values(), *parts(axes.xaxis), *parts(axes.yaxis)):
            part.stale = False
    figure.patch.stale = False


def _simple(figure: Figure) -> bool:
    """Whether artists may be drawn one by one: flat axes that do not overlap, with the figure's own artists on top."""
    boxes = [axes.bbox for axes in figure.axes]
    highest = max((axes.get_zorder() for axes in figure.axes), default=0)
    return (
        type(figure).draw is Figure.draw
        and not figure.subfigs
        and all(part.get_zorder() > highest for part in above_axes(figure))
        and not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
        and all(
            type(axes).draw is Axes.draw
            and axes.name == "rectilinear"
            and not axes.child_axes
            and axes.get_agg_filter() is None
            for axes in figure.axes
        )
    )


def _titles(axes: Axes) -> list[Text]:
    return [part for part in axes.get_children() if isinstance(part, Text) and part not in axes.texts]


def _place(title: Text, laid_out: bool, renderer: Any) -> list[Any]:
    """The edges of a title that the layout or the title's own place depends on. Only a full drawing moves titles."""
    axes = title.axes
    assert axes is not None
    if not title.get_text():
        return []
    box = title.get_window_extent(renderer)
    offset = axes.yaxis.get_offset_text()
    ticks_above = (axes.xaxis.get_ticks_position(), axes.xaxis.get_label_position()) != ("bottom", "bottom")
    if ticks_above or (offset.get_visible() and offset.get_text()):  # The title makes room for ticks or for a 1e6.
        return [*box.extents]
    colour_bar = "outline" in axes.spines
    unmoved = title.get_position()[1] == 1 and box.y0 >= axes.bbox.y1 and not colour_bar
    return [] if unmoved and not laid_out else [*box.intervaly]


def _ticks(axis: Axis) -> list[Any]:
    """The state of an axis, the places of its ticks, and their labels, which a formatter may take from anywhere."""
    found = [*_state(axis), *_state(axis.label), *_state(axis.get_offset_text())]
    kinds = [(axis.get_majorticklocs(), axis.get_major_formatter(), axis.get_major_ticks)]
    if not isinstance(axis.get_minor_locator(), NullLocator):
        kinds.append((axis.get_minorticklocs(), axis.get_minor_formatter(), axis.get_minor_ticks))
    for given, formatter, ticks in kinds:
        places: Any = np.asarray(given)
        found += [*places.tolist(), *formatter.format_ticks(places), formatter.get_offset()]
        for part in (part for tick in ticks(len(places)) for part in parts(tick)):
            found += [part, part.stale]
            if isinstance(part, Text):
                found += vars(part.get_fontproperties()).values()
            elif isinstance(part, Line2D):
                found.append(np.asarray(part.get_xydata()).tobytes())
    return found


def _layout(figure: Figure, engine: LayoutEngine, renderer: Any) -> list[Any]:
    """The boxes of everything that the layout makes room for, except background and titles."""
    found = [*engine.get().values()]
    inner = [part for axes in shown_axes(figure) for part in axes.get_default_bbox_extra_artists()]
    for part in [*inner, *(part for part in above_axes(figure) if part.get_in_layout())]:
        if not isinstance(part, Spine):
            box = part.get_tightbbox(renderer)
            found += [part] if box is None else [part, *box.extents]
    return found


# Axes and figures are stale whenever anything in them is, and `set_title` makes a new transform each time.
PASSING = ("_stale", "titleOffsetTrans")

# The contents of what can be changed in place.
CONTENTS: dict[type, Callable[[Any], Iterable[Any]]] = {
    list: iter,
    dict: dict.values,
    np.ndarray: lambda array: [array.tobytes()],
    FontProperties: lambda font: vars(font).values(),
    Path: lambda path: [path.vertices.tobytes(), path.codes],
}


def _state(owner: Any) -> list[Any]:
    """All attributes, and the contents of those that can be changed in place."""
    passing = PASSING if isinstance(owner, (Axes, Figure)) else ()
    found = [value for name, value in vars(owner).items() if name not in passing]
    for value in tuple(found):
        read = CONTENTS.get(type(value))
        if read is not None:
            found += read(value)
    return found
