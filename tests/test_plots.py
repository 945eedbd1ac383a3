"""The shared pictures show the numbers that they are given."""

from __future__ import annotations

import jax.numpy as jnp
import matplotlib.colors
import numpy as np
import pytest

from cmog_lib.classroom import plots, style


def test_a_sheet_of_images_holds_every_pixel_and_tints_the_missing_ones():
    X = jnp.asarray(np.linspace(0, 1, 12).reshape(3, 4)).at[1, 2].set(jnp.nan)
    _, (ax,) = style.figure()
    plots.images(ax, X, (2, 2), columns=2)
    sheet = np.asarray(ax.images[0].get_array().filled(np.nan))
    assert sheet.shape == (5, 5)
    assert np.allclose(sheet[:2, :2], np.asarray(X[0]).reshape(2, 2))
    assert np.allclose(sheet[3:, :2], np.asarray(X[2]).reshape(2, 2))
    assert np.isnan(sheet[1, 3]) and np.isnan(sheet).sum() == 1
    assert (sheet[:, 2] < 0).all(), "between the images is paper"


def test_the_integral_over_a_plane_is_the_mass_of_a_density():
    plane = plots.Plane(x1=(-5.0, 5.0), x2=(-6.0, 6.0), n=(80, 90))
    density = jnp.exp(-0.5 * jnp.sum(plane.points**2, axis=1)) / (2 * jnp.pi)
    assert abs(plane.integral(density) - 1) < 1e-5


def test_a_density_is_drawn_the_right_way_round():
    plane = plots.Plane(x1=(0.0, 4.0), x2=(0.0, 2.0), n=(40, 20))
    _, (ax,) = style.figure()
    plots.density(ax, plane, jnp.exp(-20 * jnp.sum((plane.points - jnp.array([3.0, 0.5])[None]) ** 2, axis=1)))
    darkest = [path.vertices for path in ax.collections[0].get_paths() if len(path.vertices)][-1]
    assert np.allclose(darkest.mean(axis=0), [3.0, 0.5], atol=0.1)


@pytest.mark.parametrize(
    ("heights", "humps"), [([0, 1, 0], 1), ([0, 1, 0, 2, 0], 2), ([0, 0.01, 0, 2, 0], 1), ([0, 1, 1, 0], 1)]
)
def test_humps_are_counted(heights, humps):
    assert plots.count_humps(np.array(heights, float)) == humps


def test_a_marked_datum_moves_with_its_name():
    _, (ax,) = style.figure()
    marked = plots.mark(ax, (0.0, 0.0), label="x")
    plots.move(marked, jnp.array([1.0, 2.0]))
    assert marked[0].get_xydata().tolist() == [[1.0, 2.0]] and tuple(marked[1].xy) == (1.0, 2.0)


def test_an_alternative_text_is_escaped():
    fig, _ = style.figure()
    assert 'alt="a &lt;b&gt; &quot;c&quot;"' in style.show(fig, 'a <b> "c"').data


def test_panels_come_in_the_order_of_their_letters():
    _, axes = style.figure("AA;BC")
    top, left, right = (ax.get_position() for ax in axes)
    assert top.width > left.width + right.width and top.y0 > left.y1 and left.x1 < right.x0


def test_a_sheet_can_be_repainted():
    _, (ax,) = style.figure()
    picture = plots.images(ax, np.zeros((6, 4)), (2, 2), columns=3)
    repainted = plots.sheet(np.arange(24.0).reshape(6, 4), (2, 2), columns=3)
    picture.set_data(repainted)
    assert picture.get_array().shape == repainted.shape == (5, 8)
    np.testing.assert_array_equal(repainted[3:, 6:], [[20, 21], [22, 23]])
    assert (repainted[2] < -1).all(), "paper between the rows"


def test_the_moving_point_rings_every_line_where_the_slider_stands():
    _, (ax,) = style.figure()
    move_to = plots.lines_with_moving_point(
        ax, [1.0, 2.0, 4.0], {"a": jnp.array([5, 6, 7]), "b": jnp.array([0, 1, 2])}, legend="upper left"
    )
    move_to(4.0)
    line, rings = ax.lines[-2:]
    assert line.get_xdata() == [4, 4]
    np.testing.assert_array_equal(rings.get_xydata(), [[4, 7], [4, 2]])


def test_error_bars_are_two_standard_errors_long():
    _, (ax,) = style.figure()
    plots.scores(ax, ["Linear", "CNN"], {"d = 1": [(0.0, 0.5), (10.0, 1.0)]})
    (bars,) = ax.collections
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[-1, 1], [8, 12]]


def test_a_trace_is_averaged_over_whole_stretches():
    _, (ax,) = style.figure()
    plots.traces(ax, {"climb": np.arange(7.0)}, every=3)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1.5, 1], [4.5, 4]])


def test_numerals_and_words_stand_out_from_white():
    def luminance(colour):
        parts = np.asarray(matplotlib.colors.to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    contrast = {colour: 1.05 / (luminance(colour) + 0.05) for colour in (*style.INK, style.TRUTH, style.DATA)}
    assert min(contrast.values()) >= 4.5, contrast
