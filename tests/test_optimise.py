"""The two loops: they climb, they compile once, and they say when and why a number stopped being one."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cmog_lib import optimise
from cmog_lib.engine.optimise import stochastic

TARGET = np.array([1.0, -2.0, 3.0])
KEY = jax.random.key(0)


class Hill(eqx.Module):
    """A pytree with two arrays that move, and an integer array and a static field that do not."""

    a: jax.Array
    b: jax.Array
    count: jax.Array
    power: int = eqx.field(static=True)


def height(w: Hill, target: jax.Array) -> jax.Array:
    return -jnp.sum((w.a - target) ** w.power) - w.count * jnp.sum((w.b - 2.0) ** 2) + 5.0


def noisy_height(w: Hill, target: jax.Array, key: jax.Array) -> jax.Array:
    # The noise has mean zero, so that the maximum of the expectation is the hill's.
    return height(w, target) + 0.1 * jnp.sum(w.a * jax.random.normal(key, target.shape, target.dtype))


def hill(dtype: jnp.dtype) -> Hill:
    return Hill(jnp.zeros(3, dtype), jnp.ones((2, 2), dtype), jnp.asarray(3), 2)


def target(dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(TARGET, dtype)


def test_maximise_ends_on_the_top(dtype):
    found = optimise.maximise(height, hill(dtype), target(dtype))
    assert found.converged and found.steps > 0
    np.testing.assert_allclose(found.value, 5.0, rtol=1e-9)
    np.testing.assert_allclose(found.w.a, TARGET, rtol=1e-4)
    np.testing.assert_allclose(found.w.b, 2.0, rtol=1e-4)
    assert found.w.a.dtype == dtype and found.w.count == 3 and found.w.power == 2


def test_maximise_stays_above_its_lower_bound():
    lower = Hill(jnp.asarray([-jnp.inf, -1.0, -jnp.inf]), jnp.full((2, 2), 2.5), jnp.asarray(0), 2)
    found = optimise.maximise(height, hill(jnp.dtype("float32")), target(jnp.dtype("float32")), lower=lower)
    np.testing.assert_allclose(found.w.a, [1, -1, 3], rtol=1e-4)
    np.testing.assert_allclose(found.w.b, 2.5)


def test_maximise_says_when_the_steps_were_not_enough():
    def valley(w: jax.Array) -> jax.Array:
        return -((1 - w[0]) ** 2) - 100 * (w[1] - w[0] ** 2) ** 2

    start = jnp.asarray([-1.2, 1.0])
    assert not optimise.maximise(valley, start, max_steps=2).converged
    found = optimise.maximise(valley, start, tolerance=1e-12)
    assert found.converged
    np.testing.assert_allclose(found.w, 1.0, rtol=1e-4)


def test_maximise_compiles_once():
    traces = []

    def counted(w: jax.Array, x: jax.Array) -> jax.Array:
        traces.append(None)
        return -jnp.sum((w - x) ** 2)

    for start in (0.0, 1.0, 2.0):
        optimise.maximise(counted, jnp.full(3, start), jnp.asarray([1.0, start, 2.0]))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (lambda w: jnp.sum(jnp.log(w)), "value is not finite"),
        (lambda w: -jnp.sum(jnp.sqrt(jnp.abs(w))), "gradient is not"),
    ],
)
def test_maximise_names_the_evaluation_that_was_not_finite(objective, said):
    with pytest.raises(optimise.NotFinite, match=f"^evaluation 1: .*{said}") as caught:
        optimise.maximise(objective, jnp.zeros(3))
    assert caught.value.step == 1 and np.array_equal(caught.value.ascent.w, np.zeros(3))


def test_ascend_ends_on_the_top_and_keeps_every_value(dtype):
    ascent = optimise.ascend(
        noisy_height, hill(dtype), target(dtype), steps=1200, key=KEY, learning_rate=0.02, progress=False
    )
    assert ascent.trace.shape == (1200,) and not ascent.interrupted
    assert ascent.w.a.dtype == dtype and ascent.w.count == 3
    # Adam's step leaves a jitter of about its learning rate.
    np.testing.assert_allclose(ascent.w.a, TARGET, atol=0.1)
    np.testing.assert_allclose(ascent.w.b, 2.0, atol=0.1)
    assert ascent.trace[-100:].mean() > ascent.trace[:100].mean() + 5


def test_ascend_is_plain_gradient_ascent_with_plain_steps(dtype):
    w = hill(dtype)
    ascent = optimise.ascend(
        noisy_height, w, target(dtype), steps=7, key=KEY, optimiser=optax.sgd(0.05), chunk=3, progress=False
    )
    trace = []
    for step in range(7):
        value, gradient = eqx.filter_value_and_grad(noisy_height)(w, target(dtype), jax.random.fold_in(KEY, step))
        trace.append(value)
        w = eqx.apply_updates(w, jax.tree.map(lambda g: 0.05 * g, gradient))
    np.testing.assert_allclose(ascent.trace, trace, rtol=1e-5)
    np.testing.assert_allclose(ascent.w.a, w.a, rtol=1e-5)


def test_chunks_and_repetitions_change_nothing():
    runs = [
        optimise.ascend(
            noisy_height, hill(jnp.dtype("float32")), target(jnp.dtype("float32")), steps=53, key=KEY, chunk=chunk,
            progress=False,
        )
        for chunk in (50, 50, 7, 100)
    ]  # fmt: skip
    for run in runs[1:]:
        np.testing.assert_allclose(run.trace, runs[0].trace, rtol=1e-5)
        np.testing.assert_allclose(run.w.a, runs[0].w.a, rtol=1e-5)
    assert np.array_equal(runs[1].trace, runs[0].trace)


def test_ascend_compiles_once_for_every_length_and_learning_rate():
    traces = []

    def counted(w: jax.Array, data: jax.Array, key: jax.Array) -> jax.Array:
        traces.append(None)
        return -jnp.sum((w - data) ** 2)

    counts = []
    for steps, rate in ((120, 1e-3), (60, 1e-2), (7, 0.1)):
        optimise.ascend(
            counted, jnp.zeros(2), jnp.full(2, rate), steps=steps, key=KEY, learning_rate=rate, progress=False
        )
        counts.append(len(traces))
    assert counts[0] == counts[-1]


def test_interrupt_returns_the_last_good_state(monkeypatch):
    original, calls = stochastic._chunk, []

    def stopped(*args):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(stochastic, "_chunk", stopped)
    w, x = hill(jnp.dtype("float32")), target(jnp.dtype("float32"))
    ascent = optimise.ascend(noisy_height, w, x, steps=50, key=KEY, chunk=10, progress=False)
    monkeypatch.undo()
    whole = optimise.ascend(noisy_height, w, x, steps=20, key=KEY, chunk=10, progress=False)
    assert ascent.interrupted and ascent.trace.shape == (20,)
    assert np.array_equal(ascent.w.a, whole.w.a)


def down(w: jax.Array, data: jax.Array, key: jax.Array) -> jax.Array:
    # Falls by 0.5 a step under unit steps: 3, 2.5, 2, …, and its logarithm ends at 0 after six.
    return jnp.log(jnp.where(w > 0, 1.0, 0.0)) - 0.5 * w


def kink(w: jax.Array, data: jax.Array, key: jax.Array) -> jax.Array:
    return -0.5 * w + 0 * jnp.sqrt(w)


def steep(w: jax.Array, data: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.where(w > 2.6, -0.5 * w, 1e38 * w)


@pytest.mark.parametrize(
    ("objective", "step", "said"),
    [(down, 6, "value is not finite"), (kink, 6, "gradient is not"), (steep, 1, "learning rate is too large")],
)
def test_ascend_names_the_step_and_the_cause_and_keeps_the_last_good_state(objective, step, said):
    optimiser = optax.sgd(1.0 if objective is not steep else 10.0)
    with pytest.raises(optimise.NotFinite, match=f"^step {step}: .*{said}") as caught:
        optimise.ascend(
            objective, jnp.asarray(3.0), None, steps=20, key=KEY, optimiser=optimiser, chunk=4, progress=False
        )
    ascent = caught.value.ascent
    assert caught.value.step == step and ascent.trace.shape == (step,)
    assert np.isfinite(ascent.w) and np.isfinite(ascent.trace).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": (jnp.ones(3), jnp.asarray([[1.0, jnp.nan]]))}, r"data holds a number .*, in data\[1\]\[0, 1\]"),
        ({"w": {"a": jnp.asarray([0.0, jnp.inf])}}, r"w holds a number .*, in w\['a'\]\[1\]"),
        (
            {"learning_rate": 50.0, "w": {"a": jnp.zeros(2)}},
            r"moved by up to 50 in 1 steps: the learning rate \(50\) is too",
        ),
    ],
    ids=["data", "w", "rate"],
)
def test_what_was_seen_is_said_and_nothing_guessed(change, said):
    def objective(w: dict, data: tuple, key: jax.Array) -> jax.Array:
        slope = jnp.sum(w["a"]) + sum(jnp.sum(part) for part in data)
        return jnp.where(jnp.abs(w["a"]).max() < 10, slope, jnp.nan)

    options = {"w": {"a": jnp.zeros(2)}, "data": (jnp.ones(3), jnp.ones((1, 2)))} | change
    with pytest.raises(optimise.NotFinite, match=rf"^step \d: the value is not finite, it is nan; .*{said}"):
        optimise.ascend(objective, options.pop("w"), options.pop("data"), steps=5, key=KEY, progress=False, **options)


def test_the_part_of_the_gradient_that_is_not_finite_is_named():
    def kinked(w: Hill, data: None, key: jax.Array) -> jax.Array:
        return -jnp.sum(w.a**2) - jnp.sum(jnp.sqrt(w.b - 1))

    with pytest.raises(optimise.NotFinite, match=r"^step 0: .* its gradient is not, that of w\.b\[0, 0\]: look for √0"):
        optimise.ascend(kinked, hill(jnp.dtype("float32")), None, steps=3, key=KEY, progress=False)


def test_bar_shows_the_value_and_can_be_left_out(capsys):
    for progress in (True, False):
        optimise.ascend(
            noisy_height, hill(jnp.dtype("float32")), target(jnp.dtype("float32")), steps=20, key=KEY, progress=progress
        )
        shown = capsys.readouterr()
        assert ("20/20" in shown.err and "value=" in shown.err) if progress else shown.err == ""
        assert shown.out == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps must"),
        ({"steps": 2.5}, "steps must"),
        ({"chunk": -1}, "chunk must"),
        ({"learning_rate": 0.0}, "learning_rate must"),
        ({"key": jax.random.PRNGKey(0)}, "key must be a typed key"),
        ({"w": "decoder"}, "w must hold"),
        ({"w": jnp.arange(3)}, "w must hold"),
        ({"objective": lambda w, data, key: w.a}, "objective must return a floating-point scalar"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_of_ascend_are_named(entry_errors, change, said):
    arguments = {"objective": noisy_height, "w": hill(jnp.dtype("float32")), "data": target(jnp.dtype("float32"))}
    arguments |= {"steps": 5, "key": KEY, "progress": False} | change
    with pytest.raises(ValueError, match=f"^{said}"):
        optimise.ascend(**arguments)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tolerance": 0}, "tolerance must"),
        ({"max_steps": 0}, "max_steps must"),
        ({"w": jnp.arange(3)}, "w must hold"),
        ({"objective": lambda w, target: w.a}, "objective must return a floating-point scalar"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_of_maximise_are_named(entry_errors, change, said):
    arguments = {"objective": height, "w": hill(jnp.dtype("float32"))} | change
    with pytest.raises(ValueError, match=f"^{said}"):
        optimise.maximise(arguments.pop("objective"), arguments.pop("w"), target(jnp.dtype("float32")), **arguments)
