"""A figure that is made once and changed by each call of `draw` shows what a new figure would show, at every state."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle, PathPatch
from matplotlib.path import Path
from matplotlib.transforms import Affine2D
from PIL import Image

from cmog_lib.classroom.explore import explore
from cmog_lib.classroom.explore.canvas import Canvas

Change = Callable[[int], Any]
UNIT = Normalize(0, 1)
X = np.linspace(0, 1, 20)


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def overwrite(array: Any, values: Any) -> None:
    array[...] = values


def pcolormesh_set_array(axes: Axes) -> Change:
    mesh = axes.pcolormesh(np.eye(4), norm=UNIT)
    return lambda k: mesh.set_array(random(k, 4, 4))


def pcolormesh_in_place(axes: Axes) -> Change:
    mesh = axes.pcolormesh(np.eye(4), norm=UNIT)
    return lambda k: overwrite(mesh.get_array(), random(k, 4, 4))


def scatter_set_array(axes: Axes) -> Change:
    points = axes.scatter(*random(9, 2, 5), c=np.zeros(5), norm=UNIT)
    return lambda k: points.set_array(random(k, 5))


def scatter_set_offsets(axes: Axes) -> Change:
    points = axes.scatter(X[:5], X[:5])
    return lambda k: points.set_offsets(random(k, 5, 2))


def scatter_offsets_in_place(axes: Axes) -> Change:
    points = axes.scatter(X[:5], X[:5])
    return lambda k: overwrite(points.get_offsets(), random(k, 5, 2))


def scatter_set_sizes(axes: Axes) -> Change:
    points = axes.scatter(*random(9, 2, 5))
    return lambda k: points.set_sizes(200 * random(k, 5))


def scatter_facecolors_in_place(axes: Axes) -> Change:
    points = axes.scatter(*random(9, 2, 5), facecolors=np.eye(5)[:, :3])
    return lambda k: overwrite(points.get_facecolor()[:, :3], random(k, 5, 3))


def scatter_set_facecolor(axes: Axes) -> Change:
    points = axes.scatter(*random(9, 2, 5), facecolors=np.eye(5)[:, :3])
    return lambda k: points.set_facecolor(random(k, 5, 3))


def segments(axes: Axes) -> LineCollection:
    lines = LineCollection([[(0, 0), (1, 1)], [(0, 1), (1, 0)]], array=[0.0, 1.0], norm=UNIT, linewidths=4)
    axes.add_collection(lines)
    return lines


def line_collection_set_segments(axes: Axes) -> Change:
    lines = segments(axes)
    return lambda k: lines.set_segments([random(k, 3, 2), random(k + 9, 2, 2)])


def line_collection_set_array(axes: Axes) -> Change:
    lines = segments(axes)
    return lambda k: lines.set_array(random(k, 2))


def tripcolor_set_array(axes: Axes) -> Change:
    mesh = axes.tripcolor([0, 1, 1, 0], [0, 0, 1, 1], [[0, 1, 2], [0, 2, 3]], facecolors=[0.0, 1.0], norm=UNIT)
    return lambda k: mesh.set_array(random(k, 2))


def hexbin_set_array(axes: Axes) -> Change:
    hexagons = axes.hexbin(*random(0, 2, 50), gridsize=4, norm=UNIT)
    return lambda k: hexagons.set_array(random(k, len(hexagons.get_array())))


def fill_in_place(axes: Axes) -> Change:
    filled = axes.fill_between(X, X)
    return lambda k: overwrite(filled.get_paths()[0].vertices[2:8, 1], 0.2 + 0.3 * k)


def table_text(axes: Axes) -> Change:
    table = axes.table([["a", "b"]], loc="center")
    return lambda k: table[0, 0].get_text().set_text(str(k))


def imshow_in_place(axes: Axes) -> Change:
    image = axes.imshow(np.eye(4), norm=UNIT)
    return lambda k: overwrite(image.get_array(), random(k, 4, 4))


def imshow_colours_in_place(axes: Axes) -> Change:
    image = axes.imshow(np.zeros((4, 4, 3)))
    return lambda k: overwrite(image.get_array(), random(k, 4, 4, 3))


def pcolorfast_in_place(axes: Axes) -> Change:
    image = axes.pcolorfast([0, 0.2, 1], [0, 0.7, 1], np.eye(2), norm=UNIT)
    return lambda k: overwrite(image.get_array(), random(k, 2, 2))


def line(axes: Axes, **options: Any) -> Change:
    (line,) = axes.plot(X, X, **options)
    return lambda k: line.set_ydata(random(k, 20))


def steps(axes: Axes) -> Change:
    return line(axes, drawstyle="steps-pre")


def long_line(axes: Axes) -> Change:
    (line,) = axes.plot(np.linspace(0, 1, 2000), np.linspace(0, 1, 2000))
    return lambda k: line.set_xdata(np.linspace(k, 1 + 5 * k, 2000) / 5)


def line_in_place(axes: Axes) -> Change:
    (line,) = axes.plot(X, X)
    return lambda k: overwrite(line.get_ydata(), random(k, 20))


def line_points_in_place(axes: Axes) -> Change:
    (line,) = axes.plot(X, X)
    return lambda k: overwrite(line.get_ydata(orig=False), random(k, 20))


def line_points_in_place_on_a_log_scale(axes: Axes) -> Change:
    (line,) = axes.semilogy(X, X + 0.1)
    axes.set_ylim(0.1, 1)
    return lambda k: overwrite(line.get_ydata(orig=False), random(k, 20))


def steps_in_place(axes: Axes) -> Change:
    (line,) = axes.step(X, X)
    return lambda k: overwrite(line.get_ydata(orig=False), random(k, 20))


def long_line_in_place(axes: Axes) -> Change:
    (line,) = axes.plot(np.linspace(0, 1, 2000), np.linspace(0, 1, 2000))
    return lambda k: overwrite(line.get_xdata(orig=False), np.linspace(k, 1 + 5 * k, 2000) / 5)


def transform_in_place(axes: Axes) -> Change:
    turn = Affine2D()
    axes.plot(X, X / 2, transform=turn + axes.transData)
    return lambda k: turn.clear().rotate_deg(20 * k)


def matrix_in_place(axes: Axes) -> Change:
    turn = Affine2D()
    axes.plot(X, X / 2, transform=turn + axes.transData)
    return lambda k: overwrite(turn.get_matrix()[0, 2:], 0.2 * k)


def patch_changed(axes: Axes) -> Change:
    circle = axes.add_patch(Circle((0.5, 0.5), 0.1))
    return lambda k: setattr(circle, "radius", 0.1 * k + 0.1)


def path_in_place(axes: Axes) -> Change:
    patch = axes.add_patch(PathPatch(Path(random(9, 5, 2))))
    return lambda k: overwrite(patch.get_path().vertices, random(k, 5, 2))


def clip_path_in_place(axes: Axes) -> Change:
    image, path = axes.imshow(random(9, 4, 4), extent=(0, 1, 0, 1)), Path(random(9, 5, 2))
    image.set_clip_path(path, axes.transData)
    return lambda k: overwrite(path.vertices, random(k, 5, 2))


def annotation(axes: Axes) -> Change:
    note = axes.annotate("here", (0.5, 0.5), (0.1, 0.9), arrowprops={"arrowstyle": "->"})
    return lambda k: setattr(note, "xy", (0.9, 0.3 * k))


def twin_axes(axes: Axes) -> Change:
    return scatter_set_array(axes.twinx())


def inset_axes(axes: Axes) -> Change:
    return pcolormesh_set_array(axes.inset_axes((0.3, 0.3, 0.5, 0.5)))


def colour_bar_that_follows(axes: Axes) -> Change:
    image = axes.imshow(np.eye(4))
    axes.get_figure().colorbar(image)
    return lambda k: (image.set_data((k + 1) * random(k, 4, 4)), image.autoscale())


def tick_labels_from_elsewhere(axes: Axes) -> Change:
    unit = [1.0]
    axes.xaxis.set_major_formatter(lambda value, _: f"{value * unit[0]:.1f}")
    return lambda k: unit.__setitem__(0, k + 1.0)


def tick_font_in_place(axes: Axes) -> Change:
    return lambda k: axes.get_xticklabels()[0].get_fontproperties().set_size(5 + 2 * k)


KINDS: list[Callable[[Axes], Change]] = [
    value for value in list(globals().values()) if getattr(value, "__annotations__", {}).get("return") == "Change"
]


# Matplotlib itself does not show these changes in place; the same change by a `set_…` tells what is right.
SET: dict[Callable[[Axes], Change], Callable[[Axes], Change]] = {
    scatter_facecolors_in_place: scatter_set_facecolor,
    line_in_place: line,
    line_points_in_place: line,
    steps_in_place: steps,
    long_line_in_place: long_line,
}


def made(kind: Callable[[Axes], Change]) -> tuple[Figure, Change]:
    figure = Figure(figsize=(2, 1.6))
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure, kind(axes)


def decoded(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_reused_figure_shows_at_every_state_what_a_new_one_shows(kind: Callable[[Axes], Change]) -> None:
    new = [made(SET.get(kind, kind)) for _ in range(3)]
    for k in (1, 2):  # State 0 is the figure as it was made.
        new[k][1](k)
    expected = [Canvas().pixels(figure)[..., :3].astype(int) for figure, _ in new]
    for live in (True, False):
        figure, change = made(kind)

        def draw(k: int, figure: Figure = figure, change: Change = change) -> Figure:
            if k > 0:
                change(k)
            return figure

        explorer = explore(draw, k=range(3), live=live)
        seen = [decoded(explorer.picture(k=k)) for k in range(3)]
        if live:
            np.testing.assert_array_equal(seen, expected)
        else:  # Its palette of 255 colours is not exact, so the nearest of the expected pictures counts.
            assert [int(np.argmin([np.abs(one - each).sum() for each in expected])) for one in seen] == [0, 1, 2]


@pytest.mark.parametrize("original", [True, False], ids=["given", "drawn"])
def test_an_array_that_the_reader_holds_is_read_again_at_every_state(original: bool) -> None:
    figure, _ = made(line_in_place)
    held = figure.axes[0].lines[0].get_ydata(orig=original)

    def draw(k: int) -> Figure:
        held[:] = random(k, 20)
        return figure

    explorer = explore(draw, k=range(4), live=True)
    assert len({explorer.picture(k=k) for k in range(1, 4)}) == 3


def test_two_figures_in_turn_each_show_their_own_changes() -> None:
    both = [made(imshow_in_place), made(line_in_place)]

    def draw(k: int) -> Figure:
        figure, change = both[k % 2]
        change(k)
        return figure

    explorer = explore(draw, k=range(6), live=True)
    assert len({explorer.picture(k=k) for k in range(6)}) == 6
