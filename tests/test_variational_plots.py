"""The pictures of lecture 6 show the numbers that they are given."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import bound, quadrature
from cmog_lib.classroom import style
from cmog_lib.classroom.plots import variational as pictures
from cmog_lib.posteriors import Gaussian


def gaussian_weights(m, s, n=120):
    q = Gaussian(jnp.array(m), jnp.log(jnp.array(s)))
    return np.asarray(bound.on_nodes(q, quadrature.grid(2, n, half_width=4.0)).weight)


def test_the_rings_of_a_gaussian_are_at_one_and_two_s_and_only_the_last_q_is_drawn():
    _, (ax,) = style.figure()
    show = pictures.mass_rings(ax, 120, 4.0)
    show(gaussian_weights([0.0, 0.0], [0.3, 0.3]))
    show(gaussian_weights([1.0, -0.5], [0.5, 0.8]))
    inner, outer = ax.collections
    for k, ring in ((1, inner), (2, outer)):
        (path,) = ring.get_paths()
        distance = np.linalg.norm((path.vertices - [1.0, -0.5]) / [0.5, 0.8], axis=1)
        assert np.abs(distance - k).max() < 0.06, "to a cell of the grid"


def test_bars_write_their_nats_and_mark_the_one_that_is_shown():
    _, (ax,) = style.figure()
    pictures.bars_of_nats(ax, ["any", "free"], most=1.0)([0.25, 3.0], "free")
    assert [bar.get_width() for bar in ax.patches] == [0.25, 3.0]
    assert [text.get_text().strip() for text in ax.texts] == ["0.250", "3.000"]
    assert [text.get_fontweight() for text in ax.texts] == ["normal", "bold"]
    assert all(text.get_position()[0] < 1 for text in ax.texts), "the number stays in the picture"


def test_nats_lost_are_drawn_up_to_an_update_and_not_below_the_floor():
    _, (ax,) = style.figure()
    show = pictures.nats_lost(ax, [2.0, 1.0, 0.0], 0.0)
    show([2.0, 1.0, 0.0], 0.0, 1)
    line, rest = ax.lines
    assert line.get_ydata() == pytest.approx([2.0, 1.0])
    show([2.0, 1.0, 0.0], 0.0, 2)
    assert line.get_ydata()[-1] == rest.get_ydata()[0] == 1e-4


def test_the_frame_of_the_clouds_follows_the_wider_one_around_the_truth():
    _, (ax,) = style.figure()
    show = pictures.clouds(ax, {"wide": "s", "narrow": "o"})
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    show({"wide": 10 * rows, "narrow": rows}, [5.0, 7.0])
    reach = 3 * (10 * rows).std(axis=0).max()
    assert ax.get_xlim() == pytest.approx((5 - reach, 5 + reach))
    assert ax.get_ylim() == pytest.approx((7 - reach, 7 + reach))


def test_the_noise_of_each_estimator_is_one_line_and_a_width_is_marked():
    _, (ax,) = style.figure()
    pictures.noise(ax, [0.5, 1.0, 2.0], {"score function": [3.0, 2.0, 1.0], "reparameterised": [0.1, 0.2, 0.3]})(2.0)
    assert ax.lines[0].get_ydata() == pytest.approx([3.0, 2.0, 1.0])
    assert ax.lines[2].get_xdata() == pytest.approx([2, 2])
