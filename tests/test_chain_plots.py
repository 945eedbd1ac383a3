"""The pictures of chains show the draws that they are given."""

from __future__ import annotations

import numpy as np

from cmog_lib.classroom import style
from cmog_lib.classroom.plots import chains

T = np.random.default_rng(0).normal(size=(4, 50, 2))


def line(ax, label):
    return next(line for line in ax.lines if line.get_label() == label)


def test_a_walk_shows_where_the_chain_was_what_it_refused_and_its_last_try():
    _, (ax,) = style.figure()
    states, paths = np.array([[0.0, 0], [0, 0], [1, 1]]), np.array([[[0.5, 0], [2, 2]], [[0, 0.5], [1, 1]]])
    chains.chain_walk(ax)(states, paths, np.array([False, True]))
    assert (np.asarray(line(ax, "the chain").get_xydata()) == states).all()
    assert (np.asarray(line(ax, "rejected").get_xydata()) == [[2, 2]]).all()
    assert (np.asarray(line(ax, "last try").get_xydata()) == [[0, 0], [0, 0.5], [1, 1]]).all()
    assert (np.asarray(line(ax, "now").get_xydata()) == [[1, 1]]).all()


def test_running_means_end_at_the_means():
    _, (ax,) = style.figure()
    chains.running_means(ax, 0.0, 1.0, 50)(T[..., 0], 10)
    ends = [drawn.get_ydata()[-1] for drawn in ax.lines[1:5]]
    np.testing.assert_allclose(ends, T[..., 0].mean(axis=1))
    np.testing.assert_allclose(ax.lines[5].get_xydata(), [[10, T[0, :10, 0].mean()]])


def test_traces_are_the_draws():
    _, (ax,) = style.figure()
    chains.chain_traces(ax, 0.0, 1.0, 50)(T[..., 1])
    assert all((drawn.get_ydata() == t).all() for drawn, t in zip(ax.lines[:4], T[..., 1], strict=True))


def test_spots_mark_the_mean_of_all_draws_and_the_true_one():
    _, (ax,) = style.figure()
    chains.spots(ax, 4)(T, np.array([2.0, 3.0]))
    np.testing.assert_allclose(line(ax, "mean of the draws").get_xydata(), [T.mean(axis=(0, 1))])
    np.testing.assert_allclose(line(ax, "true mean").get_xydata(), [[2, 3]])


def test_a_climb_is_shown_up_to_now():
    _, (ax,) = style.figure()
    show = chains.climbs(ax, [0.0, 1.0, 2.0], {"one": [0.0, 0.5, 0.7]})
    show([0.0, 0.5, 0.7], 1)
    np.testing.assert_allclose(line(ax, "Monte Carlo EM").get_xydata(), [[0, 0], [1, 0.5]])


def test_what_is_below_the_maximum_begins_after_the_first_iteration():
    _, (ax,) = style.figure()
    chains.shortfalls(ax, {1: np.array([0.0, 0.3, 0.2]), 10: np.array([0.0, 0.03, 0.02])})
    np.testing.assert_allclose(line(ax, "M = 10").get_xydata(), [[1, 0.03], [2, 0.02]])


def test_panels_with_the_same_curves_share_one_legend():
    fig, axes = style.figure(2)
    step = np.array([0.1, 0.5])
    for ax in axes:
        chains.efficiency(ax, {"A": (step, step), "B": (step, 1 - step)}, xlabel="step")
    chains.one_legend(axes)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["A", "B"]
