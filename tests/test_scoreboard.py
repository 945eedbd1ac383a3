"""The scoreboard shows how far a method is from the truth, and times the call that does not compile."""

from __future__ import annotations

import jax.numpy as jnp

from cmog_lib.classroom.scoreboard import Scoreboard


def test_a_line_is_the_mean_distance_from_the_truth():
    calls = []

    def method():
        calls.append(1)
        return jnp.array([1.5, 2.0, 2.0])

    board = Scoreboard("three data", truth=jnp.array([1.0, 2.0, 3.0]))
    board.measure("a method", method, evaluations=1234)
    name, nats, evaluations, seconds = board.rows[0]
    assert (name, nats, evaluations) == ("a method", 0.5, 1234) and seconds >= 0
    assert len(calls) == 2, "the first call compiles, the second is timed"
    assert "<td>0.5</td><td>1,234</td>" in board._repr_html_()


def test_rounding_is_not_shown_as_a_distance():
    board = Scoreboard("one datum", truth=jnp.array([1.0]))
    board.measure("exact", lambda: jnp.array([1.0 + 1e-12]), evaluations=0)
    assert "below 1e-9" in board._repr_html_()


def test_names_are_escaped():
    board = Scoreboard("<b>", truth=jnp.array([1.0]))
    board.measure("<script>", lambda: jnp.array([1.0]), evaluations=0)
    assert "<script>" not in board._repr_html_() and "<b>" not in board._repr_html_()
