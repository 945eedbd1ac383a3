"""The pictures of the latent plane, and tables with what was measured marked, show the numbers that they are given."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import bound, quadrature
from cmog_lib.classroom import style
from cmog_lib.classroom.plots import latents
from cmog_lib.classroom.tables import Measured, count, duration, size, table
from cmog_lib.posteriors import Gaussian


def two_humps(share):
    nodes = quadrature.grid(2, 60, half_width=4.0)
    parts = [
        bound.on_nodes(Gaussian(jnp.array(m), jnp.log(jnp.full(2, 0.3))), nodes) for m in ([1.5, -1.0], [-1.0, 0.5])
    ]
    return nodes, share * parts[0].weight + (1 - share) * parts[1].weight


def test_peaks_are_found_where_they_are_highest_first():
    nodes, weight = two_humps(0.3)
    at = np.asarray(nodes.t)[latents.peaks(weight, 60)]
    assert np.allclose(at, [[-1.0, 0.5], [1.5, -1.0]], atol=0.1)
    assert len(latents.peaks(two_humps(0.01)[1], 60)) == 1, "one in a hundred is below the threshold"


def test_a_latent_density_is_drawn_the_right_way_round():
    weight = two_humps(1.0)[1]
    _, (ax,) = style.figure()
    shown = latents.latent_density(ax, weight, 60, 4.0)
    row, column = np.unravel_index(np.asarray(shown.get_array()).argmax(), (60, 60))
    left, right, low, high = shown.get_extent()
    place = left + (column + 0.5) * (right - left) / 60, low + (row + 0.5) * (high - low) / 60
    assert shown.origin == "lower" and np.allclose(place, [1.5, -1.0], atol=0.1)


@pytest.mark.parametrize(("L", "KL"), [(40.0, 10.0), (-500.0, 550.0), (50.0, 0.0)])
def test_the_bars_end_at_one_height(L, KL):
    _, (ax,) = style.figure()
    latents.three_bars(ax, 50.0, depth=30.0, above=6.0)(L, KL)
    lower, gap, whole = ax.patches
    assert gap.get_y() + gap.get_height() == pytest.approx(50.0) == whole.get_y() + whole.get_height()
    assert lower.get_y() + lower.get_height() == pytest.approx(max(L, 20.0)) == gap.get_y()
    assert {text.get_text() for text in ax.texts} == {f"L = {L:.2f}".replace("-", "−"), f"KL = {KL:.2f}"}


def test_the_rings_are_as_wide_as_q():
    _, (ax,) = style.figure()
    latents.rings(ax)(jnp.array([1.0, 2.0]), (0.5, 0.25))
    assert [(ring.center, ring.width, ring.height) for ring in ax.patches] == [((1, 2), 1, 0.5), ((1, 2), 2, 1)]


def test_half_steps_are_shown_up_to_now_or_not_at_all():
    _, (ax,) = style.figure()
    show = latents.half_steps(ax, [1.0, 2.0, 2.0, 3.0], [1.0, 1.5, 2.0, 2.5])
    show(1)
    assert ax.lines[0].get_ydata().tolist() == [1, 2] and ax.lines[2].get_ydata() == [1.5, 2.0]
    show(None)
    assert not any(line.get_visible() for line in ax.lines)


def test_digits_move_to_their_places():
    _, (ax,) = style.figure()
    move = latents.moving_digits(ax, jnp.zeros((3, 2)), np.array([7, 1, 7]))
    move(jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    assert [line.get_marker() for line in ax.lines] == ["$1$", "$7$"]
    assert ax.lines[1].get_xydata().tolist() == [[0, 1], [4, 5]]


def test_the_wall_marks_one_dimension():
    _, (ax,) = style.figure()
    latents.wall(ax, [1, 2, 3], [1.0, 10.0, 100.0], {"a day": 86400.0})(2)
    assert ax.lines[-1].get_xydata().tolist() == [[2, 10]]


def test_a_table_escapes_and_marks_what_was_measured():
    shown = table("a <b>", ["", "x"], [("row", Measured("3 s"))]).data
    assert "a &lt;b&gt;" in shown and "3 s" not in re.sub(r"<td class='measured'>.*?</td>", "", shown)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (duration(0.0123), "12.3 milliseconds"),
        (duration(42.0), "42 seconds"),
        (duration(3 * 86400.0), "3 days"),
        (duration(4.35e17 * 2), "2 ages of the universe"),
        (duration(4.35e17 * 2.5e20), "2.5 × 10^20 ages of the universe"),
        (size(64.0**3), "2.1 MB"),
        (size(1e30), "8.0 × 10^12 EB"),
        (count(4096.0), "4,096"),
        (count(64.0**12), "4.7 × 10^21"),
    ],
)
def test_large_numbers_are_readable(shown, text):
    assert shown == text


def test_powers_of_ten_are_set_as_such():
    assert latents.in_math("2 × 10^21 years") == "2 × $10^{21}$ years"
