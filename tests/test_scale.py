"""Data of columns in different units, far from 0, very large or very small: right to what they carry, or refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import decoders, em, model, ppca, quadrature
from cmog_lib.decoders import Linear
from cmog_lib.engine import door

N, D, d = 200, 8, 3
log_p_x = jax.jit(jax.vmap(ppca.log_p_x, in_axes=(None, 0)))


def data(dtype: jnp.dtype, *, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Data of rank D with three large eigenvalues, the fourth column in another unit."""
    random = np.random.default_rng(0)
    noise = 0.1 * np.linspace(0.7, 1.4, D) * random.normal(size=(N, D))
    X = random.normal(size=(N, d)) @ random.normal(size=(d, D)) + noise + shift
    return (X * np.where(np.arange(D) == 3, scale, 1.0)).astype(dtype)


def truth(X: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Eigenvalues by the singular values of x − b, σ and 1/N log p(X|w) at the maximum: of the data as rounded."""
    x = np.asarray(X, np.longdouble)
    x = (x - x.mean(axis=0)).astype(float)
    eigenvalues = np.linalg.svd(x, compute_uv=False) ** 2 / len(x)
    sigma_squared = eigenvalues[d:].mean()
    log_det = np.log(eigenvalues[:d]).sum() + (X.shape[1] - d) * np.log(sigma_squared)
    return eigenvalues, sigma_squared**0.5, -0.5 * (X.shape[1] * (np.log(2 * np.pi) + 1) + log_det)


def in_blocks(X: np.ndarray, monkeypatch: Any) -> ppca.Spectrum:
    monkeypatch.setattr(ppca.covariance, "LARGE", 0)
    monkeypatch.setattr(ppca.covariance, "BLOCK", 70)
    return ppca.fit_all(jnp.asarray(X))


def on_an_accelerator(X: np.ndarray, monkeypatch: Any) -> ppca.Spectrum:
    monkeypatch.setattr(ppca.covariance, "LARGE", 0)
    monkeypatch.setattr(door, "on_host", lambda value: False)
    return ppca.fit_all(jnp.asarray(X))


def mapped(X: np.ndarray, _: Any) -> ppca.Spectrum:
    spectra = jax.vmap(ppca.fit_all)(jnp.stack([jnp.asarray(data(X.dtype)), jnp.asarray(X)]))
    return jax.tree.map(lambda part: part[1], spectra)


ROADS: dict[str, Callable[[np.ndarray, Any], ppca.Spectrum]] = {
    "in one program": lambda X, _: ppca.fit_all(jnp.asarray(X)),
    "in blocks": in_blocks,
    "on an accelerator": on_an_accelerator,
    "mapped by vmap": mapped,
}


@pytest.mark.parametrize("scale", [1e4, 1e6])
@pytest.mark.parametrize("road", ROADS)
def test_a_column_in_a_small_unit_takes_no_eigenvalue_from_the_others(monkeypatch, dtype, road, scale):
    X = data(dtype, scale=scale)
    eigenvalues, sigma, log_likelihood = truth(X)
    spectrum = ROADS[road](X, monkeypatch)
    # A singular value is right to some roundings, in double precision, of the largest, which is 1e8 times the smallest;
    # it is then rounded to the precision of the data.
    rtol = 1e-7 if dtype == jnp.float64 else 1e-5
    assert int(spectrum.rank) == D
    np.testing.assert_allclose(spectrum.eigenvalues, eigenvalues, rtol=rtol)
    np.testing.assert_allclose(spectrum.sigma(d), sigma, rtol=rtol)
    np.testing.assert_allclose(spectrum.log_likelihood[d], log_likelihood, rtol=rtol)


def test_models_of_such_data_have_the_likelihood_that_the_spectrum_says(dtype):
    X = jnp.asarray(data(dtype, scale=9e4))
    spectrum = ppca.fit_all(X)
    # x − Wm is a difference of numbers of 1e5, in single precision known to 0.01, a tenth of σ; half its square counts.
    tolerance = 1e-9 if dtype == jnp.float64 else 0.05
    for latent_dim in (1, d, D - 1):
        value = spectrum.log_likelihood[latent_dim]
        np.testing.assert_allclose(log_p_x(spectrum.model(latent_dim), X).mean(), value, atol=tolerance)
        np.testing.assert_allclose(spectrum.log_p_x(X)[latent_dim].mean(), value, atol=tolerance)


@pytest.mark.parametrize("road", ROADS)
def test_data_far_from_the_origin_keep_what_rounding_leaves_of_them(monkeypatch, dtype, road):
    # 7e4 and 1e5 in single precision, where x is rounded to steps of 0.008, with a standard deviation of 0.0023. That
    # adds 5e-6 to eigenvalues of 5e-3 and more, and cannot be known; those of the rounded data are found exactly.
    for shift in (0.0083, 0.012):
        X = data(dtype, shift=shift / float(jnp.finfo(dtype).eps))
        eigenvalues, sigma, log_likelihood = truth(X)
        spectrum = ROADS[road](X, monkeypatch)
        assert int(spectrum.rank) == D
        np.testing.assert_allclose(spectrum.eigenvalues, eigenvalues, rtol=1e-5)
        np.testing.assert_allclose([spectrum.sigma(d), spectrum.log_likelihood[d]], [sigma, log_likelihood], rtol=1e-5)


def test_the_rank_does_not_depend_on_the_number_of_data(dtype):
    X = data(dtype, scale=1e4)
    one, many = ppca.fit_all(jnp.asarray(X)), ppca.fit_all(jnp.asarray(np.tile(X, (500, 1))))
    assert int(one.rank) == int(many.rank) == D
    # The sums of a hundred thousand terms.
    np.testing.assert_allclose(many.eigenvalues, one.eigenvalues, rtol=1e-6)


def test_fewer_data_than_dimensions_keep_their_small_eigenvalues(dtype):
    X = data(dtype, scale=1e6)[:5]
    eigenvalues, *_ = truth(X)
    spectrum = ppca.fit_all(jnp.asarray(X))
    assert int(spectrum.rank) == 4
    np.testing.assert_allclose(spectrum.eigenvalues[:4], eigenvalues[:4], rtol=1e-5)


@pytest.mark.parametrize("road", ROADS)
def test_nearly_the_same_column_twice_is_not_the_same(monkeypatch, dtype, road):
    X = data(dtype)
    X[:, 5] = X[:, 4] + X[:, 5] * 1e5 * jnp.finfo(dtype).eps
    eigenvalues, *_ = truth(X)
    spectrum = ROADS[road](X, monkeypatch)
    assert int(spectrum.rank) == D
    np.testing.assert_allclose(spectrum.eigenvalues, eigenvalues, rtol=1e-4)  # the last is known to 1e-5 of its root


@pytest.mark.parametrize("road", ROADS)
def test_less_than_full_rank_is_found_on_every_road_and_in_every_unit(monkeypatch, dtype, road):
    random = np.random.default_rng(1)
    X = random.normal(size=(N, 4)).astype(dtype) @ random.normal(size=(4, D)).astype(dtype)
    X[:, 3] *= dtype.type(1e4)
    X[:, 6] = 3.7
    X[:, 7] = X[:, 0]
    spectrum = ROADS[road](X, monkeypatch)
    assert int(spectrum.rank) == 4 and np.all(spectrum.eigenvalues[4:] == 0)
    if road != "mapped by vmap":
        with pytest.raises(ValueError, match=r"^latent_dim must.*rank 4.*possible here: 1 to 3, got 4"):
            spectrum.model(4)


def test_units_that_double_precision_cannot_decompose_together_are_warned_of():
    with jax.enable_x64(True), pytest.warns(RuntimeWarning, match=r"differ in scale by a factor of \de\+15"):
        ppca.fit_all(jnp.asarray(data(jnp.dtype("float64"), scale=1e15)))


def test_what_comes_of_a_spectrum_has_its_gradient_in_both_precisions(dtype):
    X, direction = (jnp.asarray(part, dtype) for part in (data(dtype), np.random.default_rng(2).normal(size=(N, D))))

    def value(X: jax.Array) -> jax.Array:
        spectrum = ppca.fit_all(X)
        w = spectrum.model(2)
        return spectrum.log_likelihood[d] + w.log_sigma + jnp.sum(w.W[0] ** 2) + spectrum.log_p_x(X[:3])[1].sum()

    slope = jnp.vdot(jax.jit(jax.grad(value))(X), direction)
    np.testing.assert_allclose(jax.jvp(value, (X,), (direction,))[1], slope, rtol=1e-4)
    with jax.enable_x64(True):
        X, direction = (jnp.asarray(part, "float64") for part in (X, direction))
        there, here = (float(value(X + step * direction)) for step in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (there - here) / 2e-5, rtol=1e-4)


def test_a_gradient_of_fewer_data_than_dimensions_is_finite(dtype):
    X = jnp.asarray(data(dtype)[:5])
    gradient = jax.grad(lambda X: ppca.fit_all(X).log_p_x(X)[1].sum() + ppca.fit(X, 2).log_sigma)(X)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


class Elsewhere:
    """An array of so many numbers that lies on devices of a kind."""

    def __init__(self, *platforms: str, size: int) -> None:
        self.size, self.platforms = size, platforms

    def devices(self) -> list[Any]:
        return [SimpleNamespace(platform=platform) for platform in self.platforms]


def test_the_host_sums_over_what_lies_in_its_memory_or_on_its_disk_and_never_over_an_accelerators(tmp_path):
    large = ppca.covariance.LARGE
    np.save(tmp_path / "X.npy", np.ones((3, 2)))
    assert ppca.covariance.in_blocks(np.load(tmp_path / "X.npy", mmap_mode="r"))
    assert ppca.covariance.in_blocks(Elsewhere("cpu", size=large))
    for X in (
        Elsewhere("cpu", size=large - 1),
        Elsewhere("gpu", size=large),
        Elsewhere("tpu", size=10 * large),
        Elsewhere("cpu", "cpu", size=large),
    ):
        assert not ppca.covariance.in_blocks(X)


def test_large_data_of_an_accelerator_are_checked_there(monkeypatch, dtype):
    monkeypatch.setattr(door.arrays, "BLOCK", 0)
    monkeypatch.setattr(door.arrays, "on_host", lambda value: False)
    X = jnp.asarray(data(dtype))
    assert ppca.fit_all(X).rank == D
    with pytest.raises(ValueError, match=r"^X must be finite, got nan at X\[41, 3\] \(1 of 1600 values are not finite"):
        ppca.fit_all(X.at[41, 3].set(jnp.nan))


# Scales whose squares leave the range of float32.

SCALES = pytest.mark.parametrize("scale", [1e20, 1e-20])
LINE = Linear(jnp.asarray([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.0]]), jnp.zeros(3), jnp.log(0.4))


def scaled(w: Linear, scale: float) -> Linear:
    """The same model in another unit, in which log p(x|w) is less by D log scale."""
    return Linear(w.W * scale, w.b * scale, w.log_sigma + np.log(scale).astype("f"))


@SCALES
def test_densities_in_any_unit_are_those_in_units_of_sigma(scale):
    X = jnp.asarray(np.random.default_rng(3).normal(size=(4, 3)), "f")
    T = jnp.asarray(np.random.default_rng(4).normal(size=(5, 2)), "f")
    nodes, w, there = quadrature.grid(2, 12), scaled(LINE, scale), X * scale
    moved = 3 * np.log(scale)
    # log σ = ±46 is known to 4e-6, three of them.
    same = {"rtol": 1e-5, "atol": 3e-5}
    for density in (
        lambda w, X: log_p_x(w, X),
        lambda w, X: model.log_p_x_given_t(w, X[0], T[0]),
        lambda w, X: model.log_p_x_given_t_table(w, X, T),
        lambda w, X: quadrature.log_p_x(w, X, nodes),
    ):
        np.testing.assert_allclose(density(w, there) + moved, density(LINE, X), **same)
    for q in (lambda w, x: ppca.posterior(w, x), lambda w, x: ppca.posterior_observed(w, x.at[1].set(jnp.nan))):
        np.testing.assert_allclose(q(w, there[0]).m, q(LINE, X[0]).m, **same)
        np.testing.assert_allclose(q(w, there[0]).L, q(LINE, X[0]).L, **same)


@SCALES
@pytest.mark.parametrize("each", [False, True])
def test_steps_of_em_in_any_unit_are_those_in_units_of_sigma(scale, each):
    start = Linear(LINE.W, LINE.b, jnp.broadcast_to(LINE.log_sigma, (3,) if each else ()))
    X = jnp.asarray(np.random.default_rng(3).normal(size=(40, 3)), "f")
    nodes = quadrature.grid(2, 20)
    for step in (ppca.em_step, lambda w, X: em.em_step(w, X, nodes)):
        here, there = step(start, X), step(scaled(start, scale), X * scale)
        np.testing.assert_allclose(there.W / scale, here.W, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(there.log_sigma - np.log(scale), here.log_sigma, atol=2e-5)
    there = decoders.start_at(scaled(start, scale), X * scale)
    np.testing.assert_allclose(there.log_sigma - np.log(scale), decoders.start_at(start, X).log_sigma, atol=2e-5)


@SCALES
def test_fits_that_keep_no_square_take_any_unit(scale):
    X = jnp.asarray(data(jnp.dtype("float32")))
    holed = X.at[jnp.asarray([1, 5, 9]), jnp.asarray([0, 3, 3])].set(jnp.nan)
    for fit, given in ((ppca.fit_factor_analysis, X), (ppca.fit_missing, holed)):
        here, there = fit(given, 2), fit(given * scale, 2)
        np.testing.assert_allclose(there.W / scale, here.W, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(there.log_sigma - np.log(scale), here.log_sigma, atol=1e-3)


@pytest.mark.parametrize(
    ("scale", "kind"), [(1e20, "float32"), (1e-20, "float32"), (1e200, "float64"), (1e-200, "float64")]
)
def test_a_scale_whose_squares_cannot_be_held_is_named(scale, kind):
    with jax.enable_x64(kind == "float64"):
        X = jnp.asarray(data(jnp.dtype("float64")) * scale, kind)
        size = rf"got [\d.]+{re.escape(f'{scale:.0e}'[1:])}"
        for call in (lambda: ppca.fit(X, 2), lambda: ppca.fit_all(X)):
            with pytest.raises(ValueError, match=rf"^X must be of a scale whose squares {kind} holds.*{size}"):
                call()
    if kind == "float32":
        with pytest.raises(ValueError, match=r"^w must be of a scale whose squares float32 holds"):
            ppca.marginal(scaled(LINE, scale))
