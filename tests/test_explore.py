"""The explorer without a browser: its states, what it refuses, what it shows of an error, and the pixels it draws."""

from __future__ import annotations

import gc
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from cmog_lib.classroom.explore import Pad, Slider, explore, failures, frames, made
from cmog_lib.classroom.explore.canvas import Canvas
from cmog_lib.classroom.explore.sliders import control

X = np.linspace(-3, 3, 100)
HOSTILE = '</script><script>alert("1")</script>\'&<b>'


def curve(height: float = 1.0, size: tuple[float, float] = (3.0, 2.0)) -> Figure:
    figure = Figure(figsize=size)
    figure.subplots().plot(X, height * np.sin(X))
    return figure


def decoded(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


@pytest.mark.parametrize(
    ("spec", "values", "texts"),
    [
        (range(1, 4), (1, 2, 3), ("1", "2", "3")),
        ([0.5, -1.25], (0.5, -1.25), ("0.5", "−1.25")),
        (np.array([1.0, 2.0]), (1.0, 2.0), ("1", "2")),
        (["a-b", "c"], ("a-b", "c"), ("a-b", "c")),
        ((1, 3), (1, 2, 3), ("1", "2", "3")),
        ((0.0, 0.3), (0.0, 0.1, 0.2, 0.3), ("0", "0.1", "0.2", "0.3")),
        ((0.0, 1.0, 0.5), (0.0, 0.5, 1.0), ("0", "0.5", "1")),
        ([1.0001, 1.0002], (1.0001, 1.0002), ("1.0001", "1.0002")),
        (Slider([1, 2], format="{:.1f}"), (1, 2), ("1.0", "2.0")),
    ],
)
def test_a_slider_is_a_list_of_values_with_texts(spec: Any, values: tuple, texts: tuple) -> None:
    one = control("latent_dim", spec)
    assert (one.values, one.texts, one.label, one.start) == (values, texts, "latent dim", 0)


def test_slider_starts_where_it_is_told_and_carries_its_label() -> None:
    one = control("d", Slider(range(1, 9), label="latent dimension d", start=3))
    assert (one.label, one.values[one.start]) == ("latent dimension d", 3)


def test_pad_holds_the_grid_with_x_fastest_and_starts_at_the_nearest_point() -> None:
    pad = control("t", Pad((-1, 1, 3), (-2, 2, 5), start=(0.9, 0.2)))
    assert len(pad.values) == 15 and pad.names == ("t₁", "t₂") and pad.cross == (0.5, 0.5)
    np.testing.assert_array_equal(pad.values[:4], [[-1, -2], [0, -2], [1, -2], [-1, -1]])
    np.testing.assert_array_equal(pad.values[pad.start], [1, 0])


@pytest.mark.parametrize(
    ("sliders", "words"),
    [
        ({}, "at least one slider"),
        ({"d": []}, "slider d must have at least one value"),
        ({"d": range(0)}, "slider d must have at least one value"),
        ({"d": [1, 2, 1]}, "slider d must have each value once, got 1 2 times"),
        ({"d": [1.0, float("nan")]}, "slider d must hold finite numbers or strings, got nan"),
        ({"d": [[1], [2]]}, "slider d must hold finite numbers"),
        ({"d": np.zeros((2, 2))}, r"slider d must be a row of values, got an array of shape \[2, 2\]"),
        ({"d": 3}, "slider d must be a range, .* got 3"),
        ({"d": "abc"}, "slider d must be a range"),
        ({"d": {1, 2}}, "slider d must be a range"),
        ({"d": (3, 1)}, "slider d must be .* going up"),
        ({"d": (0, 1, 0)}, "slider d must be .* going up"),
        ({"d": Slider([1, 2], start=5)}, "start of slider d must be one of 1, 2, got 5"),
        ({"d": Slider([1, 2], format="{:q}")}, "format of slider d must be a format string that suits .* got '{:q}'"),
        ({"d": Slider([0.5, 1], format="{:d}")}, r"format of slider d .* got '{:d}', which cannot write 0.5 \(float\)"),
        ({"d": Slider([1, 2], format="{}{}")}, "format of slider d"),
        ({"d": Slider([1, 2], format="{x}")}, "format of slider d"),
        ({"d": Slider([1, 2], format="{0.x}")}, "format of slider d"),
        ({"d": Slider([1, 2], format="two")}, "format of slider d must have a place for the value, .* got 'two'"),
        ({"t": Pad((-1, 1, 3), (-1, 1, 3), format="{:d}")}, r"format of pad t .* got '{:d}', which cannot write -1.0"),
        ({"t": Pad((-1, 1, 3), (-1, 1, 3), format="")}, "format of pad t must have a place for the value"),
        ({"t": Pad((0, 1, 2), ("a", "b", 2))}, "y of pad t must be"),
        ({"t": Pad((0, float("inf"), 2), (0, 1, 2))}, "x of pad t must be"),
        ({"t": Pad((0, 1), (0, 1, 2))}, r"x of pad t must be \(lowest, highest, number of values ≥ 2\), got \(0, 1\)"),
        ({"t": Pad((0, 1, 2), (0, 1, 2), start=(0,))}, r"start of pad t must be a point \(x, y\), got \(0,\)"),
        ({"t": Pad((0, 1, 1), (0, 1, 2))}, "x of pad t"),
        ({"t": Pad((0, 1, 2), (1, 0, 2))}, "y of pad t"),
        ({"t": Pad((1, 2, 2), (-1, 1, 3))}, "start of pad t must lie on the pad"),
    ],
)
def test_bad_sliders_are_refused_by_name(sliders: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explore(lambda **values: curve(), **sliders)


def test_draw_must_return_a_figure_and_always_of_one_size() -> None:
    with pytest.raises(ValueError, match=r"draw must return a matplotlib Figure .* got NoneType"):
        explore(lambda d: None, d=[1])
    with pytest.raises(ValueError, match=r"got \(Figure, int\)"):
        explore(lambda d: (curve(), 3), d=[1])
    with pytest.raises(ValueError, match="one size, got 400 × 200 pixels after 300 × 200"):
        explore(lambda d: curve(size=(d, 2.0)), d=[3, 4])


def test_states_are_all_combinations_and_each_has_its_picture() -> None:
    explorer = explore(lambda a, b: curve(a * b), a=[1, 2], b=[3, 4, 5])
    assert list(explorer.states())[:2] == [{"a": 1, "b": 3}, {"a": 1, "b": 4}] and not explorer.live
    pictures = [decoded(explorer.picture(**values)) for values in explorer.states()]
    assert len(pictures) == 6 and all(picture.shape == (200, 300, 3) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 6
    with pytest.raises(ValueError, match="a must be one of 1, 2, got 7"):
        explorer.picture(a=7)
    with pytest.raises(ValueError, match="values must name sliders of this explorer, got c"):
        explorer.picture(c=1)


def test_a_picture_out_of_the_bundle_is_the_figure_to_within_its_256_colours() -> None:
    explorer = explore(lambda d: curve(d), d=[0.2, 0.5, 1.0])
    figure = curve(0.5)
    expected = Canvas().pixels(figure)[..., :3].astype(int)
    off = np.abs(decoded(explorer.picture(d=0.5)) - expected)
    # A palette of 255 colours keeps the edges of text and lines to a few grey levels.
    assert off.mean() < 0.5 and np.percentile(off, 99.9) <= 24


def test_equal_pictures_are_held_once() -> None:
    explorer = explore(lambda d: curve(d % 2), d=range(10))
    assert len(explorer.widget.spec["lengths"]) == 1 + 2
    assert explorer.widget.spec["frameOf"] == [0, 1] * 5


def test_more_than_200_states_are_live_and_the_author_may_choose() -> None:
    def bare(height: float) -> Figure:  # without axes, which take nearly all of a drawing's time
        figure = Figure(figsize=(1, 1))
        figure.add_artist(Line2D([0, 1], [0, height]))
        return figure

    assert not explore(lambda d: bare(d / 200), d=range(200)).live
    explorer = explore(lambda a, b: bare(a * b / 200), a=range(15), b=range(15))
    assert explorer.live and len(list(explorer.states())) == 225
    assert explore(lambda d: curve(d), d=[1, 2], live=True).live


def test_too_many_bytes_are_refused_with_size_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match=r"'big' must stay below .* MB in 40 pictures; give the sliders fewer values"):
        explore(lambda d: curve(d), label="big", d=range(40))


def test_sentences_come_from_draw_or_are_made_of_labels_and_values() -> None:
    explorer = explore(lambda d: (curve(d), f"error {1 / d:.2f}"), d=[2, 4])
    assert explorer.widget.spec["sentences"] == ["error 0.50", "error 0.25"] and explorer.widget.spec["sentencesGiven"]
    explorer = explore(
        lambda d, t: curve(d), d=Slider([2], label="dimension"), t=Pad((-1, 1, 2), (0, 1, 2), start=(-1, 0))
    )
    assert explorer.widget.spec["sentences"][1] == "dimension 2, t (1.00, 0.00)"


def failing(n: int) -> Figure:
    if n == 1:
        raise ZeroDivisionError(f"no\n{HOSTILE}")
    return curve(n)


def test_an_exception_stands_at_its_state_and_in_the_registry() -> None:
    before = len(failures())
    explorer = explore(failing, label="broken", n=range(3))
    spec = explorer.widget.spec
    assert spec["frameOf"] == [0, -1, 1] and spec["errors"] == {"1": f"ZeroDivisionError: no {HOSTILE}"}
    (failure,) = failures()[before:]
    assert (failure.label, failure.values) == ("broken", {"n": 1}) and explorer.errors == [failure]
    assert "explorer 'broken' at {'n': 1}: ZeroDivisionError" in str(failure)
    with pytest.raises(ZeroDivisionError):
        explorer.picture(n=1)
    assert decoded(explorer.picture(n=2)).shape == (200, 300, 3)


def test_strict_mode_raises_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMOG_STRICT", "1")
    with pytest.raises(ZeroDivisionError):
        explore(failing, n=range(3))


def test_an_explorer_all_of_whose_states_fail_still_shows_why() -> None:
    explorer = explore(lambda n: 1 / 0, n=range(3))
    assert "ZeroDivisionError: division by zero" in explorer.html() and len(explorer.errors) == 3


def test_made_finds_the_explorers_that_are_alive() -> None:
    explorer = explore(lambda n: curve(n), label="found", n=range(3))
    assert made()[-1] is explorer
    del explorer
    gc.collect()
    assert not any(each.label == "found" for each in made())
    explore(lambda n: curve(n), label="shown", n=range(3))._repr_mimebundle_()
    gc.collect()
    assert made()[-1].label == "shown"  # It is on the page, so it is found.


def test_live_answers_a_question_with_its_own_number_and_the_picture() -> None:
    explorer = explore(lambda a, b: curve(a * b), a=range(1, 16), b=range(1, 16))
    sent: list[tuple[dict, list]] = []
    explorer.widget.send = lambda content, buffers=None: sent.append((content, buffers))
    for question, positions in enumerate([[3, 4], [0, 0], [14, 14]]):
        explorer.widget._handle_custom_msg({"view": "v", "question": question, "positions": positions}, [])
    assert [content["question"] for content, _ in sent] == [0, 1, 2]
    assert sent[0][0] == {"sentence": "a 4, b 5", "view": "v", "question": 0}
    np.testing.assert_array_equal(decoded(sent[0][1][0]), Canvas().pixels(curve(20))[..., :3])
    explorer.widget._handle_custom_msg({"view": "v", "question": 3, "positions": [0, 0], "near": True}, [])
    assert sum(map(len, sent[3][1])) == 100_000 and decoded(sent[3][1][0]).shape == (200, 300, 3)


def test_live_answers_every_question_even_when_draw_fails_or_returns_no_figure() -> None:
    def draw(n: int) -> Any:
        return failing(n) if n < 2 else None

    explorer = explore(draw, n=range(3), live=True)
    assert "ZeroDivisionError" in explorer._answer([1])[0]["error"]
    assert "draw must return a matplotlib Figure" in explorer._answer([2])[0]["error"]
    assert len(explorer.errors) == 2
    assert explorer._answer([0])[1]


def test_every_mime_form_is_there() -> None:
    data, _ = explore(lambda n: curve(n), n=range(3))._repr_mimebundle_()
    assert {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"} <= set(data)


@pytest.mark.parametrize("live", [False, True])
def test_html_form_stands_alone_and_lets_nothing_out_of_its_strings(live: bool) -> None:
    explorer = explore(
        lambda n, s: (curve(n), HOSTILE),
        label=HOSTILE,
        n=Slider(range(5), label=HOSTILE),
        s=Slider([HOSTILE, "b"], label=HOSTILE),
        live=live,
    )
    page = explorer.html()
    assert page.count("<script") == page.count("</script>") == 1 and "<b>" not in page
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|src=\"(?!data:)", page)
    assert explorer.html().split('id="')[1][:20] != page.split('id="')[1][:20]
    spec = json.loads(re.search(r"const spec = ({.*);\n", page).group(1))
    assert spec["label"] == HOSTILE and spec["controls"][0]["label"] == HOSTILE


def test_html_form_of_a_live_explorer_sweeps_the_first_slider_and_says_so() -> None:
    explorer = explore(lambda a, b: curve(a * b), a=Slider(range(100), start=41), b=range(10))
    spec = json.loads(re.search(r"const spec = ({.*);\n", explorer.html()).group(1))
    (slider,) = spec["controls"]
    assert slider["count"] == len(spec["frameOf"]) <= 25 and slider["texts"][slider["start"]] == "41"
    assert (slider["texts"][0], slider["texts"][-1]) == ("0", "99")
    assert "of 1000 positions, at b = 0; run the notebook" in spec["note"]


def test_no_figure_is_left_open_for_pyplot_to_show() -> None:
    plt.close("all")
    mine = plt.figure()

    def draw(n: int) -> Figure:
        figure, axes = plt.subplots(figsize=(3, 2))
        plt.figure()
        axes.plot(X, n * X)
        if n == 1:
            raise RuntimeError("after the figure was opened")
        return figure

    explorer = explore(draw, n=range(4))
    explore(draw, n=range(4), live=True)._answer([3])
    assert plt.get_fignums() == [mine.number] and len(explorer.errors) == 1
    plt.close(mine)


def full(figure: Figure) -> np.ndarray:
    """The figure drawn from nothing, the way it is saved."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


def scene() -> tuple[Figure, dict[str, Any]]:
    figure = Figure(figsize=(6, 2.5))
    left, right = figure.subplots(1, 2)
    parts = {"left": left, "right": right, "title": left.set_title("height 1"), "over": figure.suptitle("all")}
    (parts["line"],) = left.plot(X, np.sin(X), label="sin")
    (parts["thick"],) = left.plot(X, np.cos(X), linewidth=6, zorder=2.2)
    (parts["hidden"],) = left.plot(X, X, visible=False)
    left.set(xlim=(-3, 3), ylim=(-1.5, 1.5))
    left.locator_params(nbins=3)  # few ticks, which take most of a drawing's time
    parts["legend"] = left.legend(loc="upper right")
    parts["note"] = left.annotate("here", (0, 0), (1, -1), arrowprops={"arrowstyle": "->"})
    left.set_xlabel("x")
    unit = parts["unit"] = [1.0]
    right.yaxis.set_major_formatter(lambda value, _: f"{value * unit[0]:g}")
    parts["image"] = right.imshow(np.arange(12.0).reshape(3, 4), vmin=0, vmax=12)
    right.locator_params(nbins=3)
    parts["points"] = right.scatter([0, 1, 2], [0, 1, 2], color="w")
    return figure, parts


BLITTED: dict[str, Callable[[dict[str, Any], int], Any]] = {
    "a line": lambda p, k: p["line"].set_ydata(np.sin(X * k)),
    "a line past the frame": lambda p, k: p["line"].set_data(X * 2, 9 * np.sin(X * k)),
    "an image": lambda p, k: p["image"].set_data(np.arange(12.0).reshape(3, 4) * k / 5),
    "an image and points": lambda p, k: (
        p["image"].set_data(np.full((3, 4), k)),
        p["points"].set_offsets([[k / 3, 1]]),
    ),
    "a title": lambda p, k: p["title"].set_text(f"height {k}"),
    "a title above all": lambda p, k: (p["over"].set_text(f"all {k}"), p["line"].set_color(f"C{k}")),
    "points' colours": lambda p, k: p["points"].set_facecolor(f"C{k}"),
    "a legend's text": lambda p, k: p["legend"].get_texts()[0].set_text(f"sin {k}"),
    "an annotation's arrow": lambda p, k: p["note"].set(text=f"here {k}"),
    "a line that appears": lambda p, k: p["hidden"].set_visible(k % 2 == 0),
    "one thing after the other": lambda p, k: BLITTED[list(BLITTED)[k]](p, k),
}
REDRAWN: dict[str, Callable[[dict[str, Any], int], Any]] = {
    "limits": lambda p, k: p["left"].set_xlim(-k, k),
    "limits by autoscale": lambda p, k: (p["line"].set_xdata(X * k), p["left"].relim(), p["left"].autoscale()),
    "an axis label": lambda p, k: p["left"].set_xlabel(f"x {k}"),
    "an artist more": lambda p, k: p["left"].axvline(k / 3),
    "an artist less": lambda p, k: p["line"].remove() if k == 1 else p["thick"].set_color(f"C{k}"),
    "axes cleared": lambda p, k: (p["left"].clear(), p["left"].plot(X, k * X)),
    "a background": lambda p, k: p["left"].set_facecolor(f"C{k}"),
    "ticks and a line": lambda p, k: (p["left"].tick_params(labelcolor=f"C{k}"), p["line"].set_color(f"C{k}")),
    "one tick label": lambda p, k: (p["left"].get_xticklabels()[0].set_color(f"C{k}"), p["line"].set_color(f"C{k}")),
    "a grid": lambda p, k: p["left"].grid(k % 2 == 0),
    "order": lambda p, k: p["line"].set_zorder(2 + k % 2),
    "aspect": lambda p, k: p["left"].set_aspect(1 + k),
    "a title of two lines": lambda p, k: p["title"].set_text("high\nheight" if k % 2 else "height"),
    "a text that reaches the other axes": lambda p, k: p["note"].set_text("far away " * k),
    "tick labels from elsewhere": lambda p, k: p["unit"].__setitem__(0, k),
    "the number of ticks": lambda p, k: p["left"].xaxis.get_major_locator().set_params(nbins=k + 1),
    "the font of a tick": lambda p, k: p["left"].get_xticklabels()[0].get_fontproperties().set_size(6 + k),
    "the place of a label": lambda p, k: setattr(p["left"].xaxis, "labelpad", 2 * k),
    "a spine": lambda p, k: p["left"].spines["left"].set_linewidth(k),
    "hidden axes": lambda p, k: (p["left"].set_visible(k % 2 == 0), p["line"].set_color(f"C{k}")),
    "position": lambda p, k: p["left"].set_position([0.1, 0.1, 0.3, 0.1 * k]),
}


@pytest.mark.parametrize("name", [*BLITTED, *REDRAWN])
@pytest.mark.parametrize("grid", [False, True], ids=["plain", "grid"])
def test_drawing_only_what_changed_equals_a_full_drawing_pixel_for_pixel(name: str, grid: bool) -> None:
    change = (BLITTED | REDRAWN)[name]
    figure, parts = scene()
    twin, twin_parts = scene()
    for each in (parts, twin_parts):
        if grid:
            each["left"].grid(True)
            each["right"].grid(True)
            each["right"].tick_params(direction="in")
    canvas = Canvas()
    canvas.pixels(figure)
    for k in range(1, 6):
        change(parts, k)
        change(twin_parts, k)
        np.testing.assert_array_equal(canvas.pixels(figure), full(twin), err_msg=f"{name}, step {k}")
    assert name in REDRAWN or name == "one thing after the other" or canvas.full_draws <= 3


@pytest.mark.parametrize("name", ["a line", "an image", "a title", "points' colours"])
def test_what_moves_again_and_again_costs_two_full_drawings_in_all(name: str) -> None:
    figure, parts = scene()
    canvas = Canvas()
    for k in range(1, 9):
        BLITTED[name](parts, k)
        canvas.pixels(figure)
    assert canvas.full_draws == 2


@pytest.mark.parametrize("kind", ["twin", "inset", "3d", "polar", "constrained", "colorbar"])
def test_figures_that_cannot_be_taken_apart_are_drawn_in_full(kind: str) -> None:
    def build() -> tuple[Figure, Any]:
        figure = Figure(figsize=(4, 3), layout="constrained" if kind == "constrained" else None)
        axes = figure.add_subplot(projection={"3d": "3d", "polar": "polar"}.get(kind))
        (line,) = axes.plot(X, np.sin(X))
        if kind == "twin":
            axes.twinx().plot(X, X, linewidth=9)
        if kind == "inset":
            axes.inset_axes([0.3, 0.3, 0.4, 0.4]).plot(X, X)
        if kind == "colorbar":
            image = axes.imshow(np.eye(3))
            figure.colorbar(image)
            return figure, lambda k: image.set_clim(0, k)
        if kind == "constrained":
            return figure, lambda k: (axes.set_title("\n".join("abc"[:k])), line.set_ydata(np.sin(k * X)))
        return figure, lambda k: line.set_ydata(np.sin(k * X))

    (figure, change), (twin, twin_change) = build(), build()
    canvas = Canvas()
    canvas.pixels(figure)
    full(twin)
    for k in (1, 2, 3):
        change(k)
        twin_change(k)
        np.testing.assert_array_equal(canvas.pixels(figure), full(twin))


@pytest.fixture
def persistent() -> Iterator[tuple[Figure, Any]]:
    figure = curve()
    yield figure, figure.axes[0].lines[0]


def test_one_figure_changed_again_and_again_gives_each_state_its_picture(persistent: tuple[Figure, Any]) -> None:
    figure, line = persistent

    def draw(height: float) -> Figure:
        line.set_ydata(height * np.sin(X))
        return figure

    explorer = explore(draw, height=[0.2, 0.6, 1.0])
    fresh = explore(curve, height=[0.2, 0.6, 1.0])
    # The limits of the persistent figure are those of height 1, where a new figure finds its own.
    assert len({explorer.picture(**values) for values in explorer.states()}) == 3
    np.testing.assert_array_equal(decoded(explorer.picture(height=1.0)), decoded(fresh.picture(height=1.0)))


def test_importing_the_library_loads_neither_matplotlib_nor_ipywidgets() -> None:
    heavy = ("matplotlib", "ipywidgets", "anywidget", "PIL")
    code = f"import sys, cmog_lib; sys.exit(str([name for name in {heavy} if name in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr.strip() == "[]"


def test_a_slip_of_the_step_is_refused_and_not_counted_out():
    with pytest.raises(ValueError, match="slider a must have at most 10000 values"):
        explore(lambda a: None, a=(0, 1e9))
