"""Every exercise passes its own answer and names every mistake that it claims to name."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib.classroom import checks
from cmog_lib.classroom.checks import lecture1, lecture2, lecture3, lecture4, lecture5, lecture6, lecture7, lecture8

EXERCISES = {
    f"{module.__name__.rsplit('.', 1)[1]}.{name}": exercise
    for module in (lecture1, lecture2, lecture3, lecture4, lecture5, lecture6, lecture7, lecture8)
    for name, exercise in vars(module).items()
    if isinstance(exercise, checks.Exercise)
}


@pytest.mark.parametrize("name", EXERCISES)
def test_the_answer_passes(name, dtype):
    assert EXERCISES[name](EXERCISES[name].answer).passed


@pytest.mark.parametrize(
    ("name", "sentences"), [(name, sentences) for name, e in EXERCISES.items() for sentences in e.mistakes]
)
def test_each_mistake_is_made_and_named(name, sentences, dtype):
    exercise = EXERCISES[name]
    verdict = exercise(exercise.mistakes[sentences])
    assert verdict.status == "mistake" and verdict.message == sentences


@pytest.mark.parametrize("name", EXERCISES)
def test_one_sentence_names_the_mistake_and_a_second_says_where_to_look(name):
    exercise = EXERCISES[name]
    unknown = [exercise(attempt).message for attempt in (3.0, lambda *_: jnp.zeros((1, 1, 1, 1, 1)))]
    for message in (*exercise.mistakes, unknown[0]):
        sentences = re.split(r"(?<=[.?!])\s+", message)
        assert len(sentences) == 2 and all(sentence[-1] in ".?!" for sentence in sentences), message
        assert sentences[1].split()[0] in {"Look", "Compare", "Count", "Try", "Write"}, message
    assert "Look at" in unknown[1]


@pytest.mark.parametrize("name", EXERCISES)
def test_an_unanswered_exercise_is_open(name):
    assert EXERCISES[name](lambda *_: ...).status == "open"
    assert EXERCISES[name](lambda *_: (..., ...)).status == "open"


@pytest.mark.parametrize("name", EXERCISES)
def test_what_no_checker_knows_is_wrong_and_says_so(name):
    misshapen = EXERCISES[name](lambda *_: jnp.zeros((1, 1, 1, 1, 1))).message
    assert misshapen.startswith("The shape is") or "needs a tuple of two arrays" in misshapen
    assert "ZeroDivisionError" in EXERCISES[name](lambda *_: 1 / 0).message
    assert "not your function itself" in EXERCISES[name](3.0).message
    close = EXERCISES[name].answer

    def off(*case):
        answer = close(*case)
        return tuple(1.37 * a for a in answer) if isinstance(answer, tuple) else 1.37 * answer

    assert EXERCISES[name](off).status in ("wrong", "mistake")


def test_a_verdict_escapes_what_it_shows():
    assert "<script>" not in checks.Verdict("wrong", "<script>alert(1)</script>")._repr_html_()


@pytest.mark.parametrize(
    "angle",
    [lambda phase: phase + 1.0, lambda phase: -phase, lambda phase: 0.5 * jnp.pi - phase],
    ids=["another start", "the other way round", "sine first"],
)
def test_every_evenly_inked_ring_is_right(angle):
    def decoder(t):
        phase = angle(2 * jnp.pi * jax.scipy.stats.norm.cdf(t[0]))
        return 2 * jnp.array([jnp.cos(phase), jnp.sin(phase)]), jnp.full(2, 0.1)

    assert lecture1.ring(decoder).passed


def test_a_list_or_a_numpy_array_is_as_good_as_a_jax_array():
    assert lecture2.sigma(lambda eigenvalues, d: np.sqrt(np.mean(np.asarray(eigenvalues)[d:]))).passed
    assert not lecture2.posterior(lambda W, b, sigma, x: [0.0, 0.0]).passed
    exercise = checks.Exercise(answer=lambda: jnp.array([1.0, 2.0]), cases=lambda: [()], mistakes={}, praise="Right.")
    assert exercise(lambda: [1.0, 2.0]).passed
