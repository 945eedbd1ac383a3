"""PPCA in closed form, held to SciPy, to scikit-learn and to itself along other roads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, ortho_group

from cmog_lib import em, model, ppca, quadrature
from cmog_lib.decoders import Linear

D, d, N = 6, 2, 200
# The fixture that sets the precision need not be made anew for every example.
in_both = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
log_p_x = jax.jit(jax.vmap(ppca.log_p_x, in_axes=(None, 0)))


def decoder(dtype: jnp.dtype, *, vector: bool = False, sigma: float = 0.3, seed: int = 0) -> Linear:
    random = np.random.default_rng(seed)
    log_sigma = np.log(sigma) + 0.3 * random.normal(size=D if vector else ())
    W, b = random.normal(size=(D, d)), random.normal(size=D)
    return Linear(jnp.asarray(W, dtype), jnp.asarray(b, dtype), jnp.asarray(log_sigma, dtype))


def data(dtype: jnp.dtype, *, n: int = N, seed: int = 1) -> jax.Array:
    random = np.random.default_rng(seed)
    return jnp.asarray(random.normal(size=(n, d)) @ random.normal(size=(d, D)) + random.normal(size=(n, D)), dtype)


def close(dtype: jnp.dtype, *, loose: float = 1.0) -> dict[str, float]:
    """Some hundred roundings of the dtype, times `loose`."""
    bound = 300 * float(jnp.finfo(dtype).eps) * loose
    return {"rtol": bound, "atol": bound}


def float64(*parts: jax.Array) -> list[np.ndarray]:
    return [np.asarray(part, "float64") for part in parts]


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("sigma", [1.0, 0.1, 0.01])
def test_log_p_x_is_scipys_multivariate_normal(dtype, vector, sigma):
    w = decoder(dtype, vector=vector, sigma=sigma)
    _, X = model.sample(w, 20, key=jax.random.key(0))
    W, b, s, X64 = float64(w.W, w.b, w.sigma, X)
    expected = multivariate_normal(b, W @ W.T + np.diag(s**2)).logpdf(X64)
    # x is only known to its rounding, which the likelihood feels in units of σ; SciPy feels it too.
    np.testing.assert_allclose(log_p_x(w, X.astype(dtype)), expected, **close(dtype, loose=2 / sigma))


def test_small_sigma_does_not_cancel_in_float32():
    with jax.enable_x64(True):
        w = decoder(jnp.dtype("float64"), sigma=1e-3)
        _, X = model.sample(w, 50, key=jax.random.key(0))
        # What both precisions are given is the same: numbers that float32 holds exactly.
        w, X = jax.tree.map(lambda part: part.astype("float32").astype("float64"), (w, X))
        exact = np.asarray(log_p_x(w, X))
    single = log_p_x(jax.tree.map(lambda part: jnp.asarray(part, "float32"), w), jnp.asarray(X, "float32"))
    # |x|²/σ² is about 10⁷ here, so that Woodbury's difference is off by whole nats.
    assert np.abs(single - exact).max() < 0.05


@pytest.mark.parametrize("vector", [False, True])
def test_posterior_is_the_joint_gaussian_conditioned_on_x(dtype, vector):
    w = decoder(dtype, vector=vector)
    x = data(dtype)[0]
    W, b, s, x64 = float64(w.W, w.b, w.sigma, x)
    gain = W.T @ np.linalg.inv(W @ W.T + np.diag(s**2))
    q = ppca.posterior(w, x)
    np.testing.assert_allclose(q.mean, gain @ (x64 - b), **close(dtype))
    np.testing.assert_allclose(q.covariance, np.eye(d) - gain @ W, **close(dtype))
    assert np.array_equal(q.L, np.tril(q.L)) and (np.diagonal(q.L) > 0).all()


def test_bayes_rule_holds_at_every_t(dtype):
    w, x = decoder(dtype, vector=True), data(dtype)[0]
    for t in jnp.asarray(np.random.default_rng(3).normal(size=(5, d)), dtype):
        p = model.log_p_xt(w, x, t) - ppca.posterior(w, x).log_q(t)
        np.testing.assert_allclose(p, ppca.log_p_x(w, x), **close(dtype, loose=10))


def test_marginal_is_what_the_samples_show():
    w = decoder(jnp.dtype("float32"), vector=True)
    n = 20_000
    _, X = model.sample(w, n, key=jax.random.key(1))
    mean, covariance = float64(*ppca.marginal(w))
    scale = np.sqrt(np.diagonal(covariance))
    # Five standard errors; of a covariance of standardised Gaussians it is at most √(2/n).
    assert np.abs((X.mean(0) - mean) / scale).max() < 5 / np.sqrt(n)
    assert np.abs((np.cov(X.T, bias=True) - covariance) / np.outer(scale, scale)).max() < 5 * np.sqrt(2 / n)


def test_fit_is_scikit_learns_pca_after_n_minus_one_became_n(dtype):
    from sklearn.decomposition import PCA

    X = data(dtype)
    [X64] = float64(X)
    w, pca = ppca.fit(X, d), PCA(d).fit(X64)
    np.testing.assert_allclose(w.sigma[0] ** 2, pca.noise_variance_ * (N - 1) / N, **close(dtype))
    grow = np.sqrt(N / (N - 1))
    theirs = Linear(w.W * grow, w.b, w.log_sigma + np.log(grow))
    np.testing.assert_allclose(log_p_x(theirs, X), pca.score_samples(X64), **close(dtype, loose=10))
    # 1/N is the maximum of the likelihood; 1/(N − 1) falls short of it by about D/(4N²) nats for each parameter.
    if dtype == jnp.float64:
        assert 0 < log_p_x(w, X).mean() - pca.score(X64) < D / N**2


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_gradient_of_the_likelihood_vanishes_at_the_closed_form(dtype, latent_dim):
    X = data(dtype)
    gradient = jax.grad(lambda w: log_p_x(w, X).sum())
    w = ppca.fit(X, latent_dim)
    elsewhere = gradient(jax.tree.map(lambda part: part * 1.01, w))
    for name, here, there in zip(("W", "b", "log_sigma"), *map(jax.tree.leaves, (gradient(w), elsewhere)), strict=True):
        assert jnp.abs(here).max() < N * 100 * jnp.finfo(dtype).eps, name
        assert jnp.abs(there).max() > 100 * jnp.abs(here).max(), name


def test_no_other_w_nearby_is_better_than_fit(dtype):
    X, random = data(dtype), np.random.default_rng(5)
    w = ppca.fit(X, d)
    best = log_p_x(w, X).mean()
    for _ in range(20):
        other = jax.tree.map(lambda part: part + jnp.asarray(0.05 * random.normal(size=part.shape), dtype), w)
        assert log_p_x(other, X).mean() < best


@pytest.mark.parametrize("vector", [False, True])
def test_em_from_a_random_start_never_falls(dtype, vector):
    X, w = data(dtype), decoder(dtype, vector=vector, seed=7)
    trace = [float(log_p_x(w, X).mean())]
    for _ in range(60):
        w = ppca.em_step(w, X)
        trace.append(float(log_p_x(w, X).mean()))
    assert np.diff(trace).min() > -100 * jnp.finfo(dtype).eps
    assert trace[-1] - trace[0] > 1
    assert w.log_sigma.shape == ((D,) if vector else ())


def test_em_ends_at_the_closed_form(dtype):
    X, w = data(dtype), decoder(dtype, seed=7)
    for _ in range(300):
        w = ppca.em_step(w, X)
    optimum = ppca.fit(X, d)
    np.testing.assert_allclose(log_p_x(w, X).mean(), log_p_x(optimum, X).mean(), **close(dtype))
    # W itself is only known up to a rotation of the latents.
    for mine, closed in zip(ppca.marginal(w), ppca.marginal(optimum), strict=True):
        np.testing.assert_allclose(mine, closed, **close(dtype, loose=100))


@pytest.mark.parametrize("vector", [False, True])
def test_em_never_falls_on_data_that_the_model_reproduces_exactly(dtype, vector):
    random = np.random.default_rng(0)
    X = jnp.asarray(random.normal(size=(100, d)) @ random.normal(size=(d, D)), dtype)
    w = decoder(dtype, vector=vector, seed=7)
    trace = [float(log_p_x(w, X).mean())]
    for _ in range(300):
        w = ppca.em_step(w, X)
        trace.append(float(log_p_x(w, X).mean()))
    # σ ends on its floor, where x − Wm is known to √ε of σ: some roundings of a sum of D squares.
    assert np.diff(trace).min() > -300 * jnp.finfo(dtype).eps and trace[-1] > trace[0] + 20
    spread = X.std(axis=0) if vector else jnp.sqrt(X.var(axis=0).mean())
    np.testing.assert_allclose(jnp.exp(w.log_sigma) / spread, float(jnp.finfo(dtype).eps) ** 0.5, rtol=1e-3)


def test_em_never_falls_where_one_coordinate_is_known_almost_exactly(dtype):
    random = np.random.default_rng(1)
    t = random.normal(size=(N, d))
    X = jnp.asarray(
        np.column_stack([t[:, 0], t @ random.normal(size=(d, D - 1)) + random.normal(size=(N, D - 1))]), dtype
    )
    tiny = 0.5 * float(np.log(jnp.finfo(dtype).eps))
    start = decoder(dtype, seed=7)
    w = Linear(start.W, start.b, jnp.zeros(D, dtype).at[0].set(tiny))
    trace = [float(log_p_x(w, X).mean())]
    for _ in range(150):
        w = ppca.em_step(w, X)
        trace.append(float(log_p_x(w, X).mean()))
    # Beside a term of 1/ε in M = I + WᵀΣ₀⁻¹W what the other coordinates say would be lost, and 0.04 nats with it.
    assert np.diff(trace).min() > -300 * jnp.finfo(dtype).eps and trace[-1] > trace[1] + 0.01
    w64, X64 = (jax.tree.map(lambda part: np.asarray(part, "float64"), part) for part in (w, X))
    stacked = np.linalg.qr(np.concatenate([np.diag(np.exp(w64.log_sigma)), w64.W.T]), mode="r")
    y = np.linalg.solve(stacked.T, (X64 - w64.b).T)
    log_det = 2 * np.log(np.abs(np.diag(stacked))).sum()
    expected = -0.5 * ((y**2).sum(axis=0).mean() + log_det + D * np.log(2 * np.pi))
    np.testing.assert_allclose(trace[-1], expected, atol=2e-3 if dtype == jnp.float32 else 1e-6)


def test_em_step_names_the_columns_that_have_no_sigma_of_their_own(entry_errors, dtype):
    X = data(dtype).at[:, jnp.asarray([0, 4])].set(0.1)
    nodes, own, shared = quadrature.grid(2, 10), decoder(dtype, vector=True), decoder(dtype)
    T = jnp.zeros((1, N, d), dtype)
    steps = ppca.em_step, lambda w, X: em.em_step(w, X, nodes), lambda w, X: em.m_step_on_draws(w, T[:, : len(X)], X)
    for step in steps:
        with pytest.raises(ValueError, match=r"^X must not have constant columns.*got 2 of them: 0, 4; leave them out"):
            step(own, X)
        with pytest.raises(ValueError, match=r"^X must not have constant columns.*got 6 of them"):
            step(own, X[:1])
        with pytest.raises(ValueError, match=r"^X must have rows that differ.*got 1 of them"):
            step(shared, X[:1])
    for step in steps[:2]:
        assert np.isfinite(step(shared, X).log_sigma)


@pytest.mark.parametrize("vector", [False, True])
def test_em_step_maximises_the_expected_log_joint(dtype, vector):
    X, w = data(dtype), decoder(dtype, vector=vector)
    m = jax.vmap(lambda x: ppca.posterior(w, x).m)(X)
    S = ppca.posterior(w, X[0]).covariance

    def expected_log_joint(new: Linear) -> jax.Array:
        spread = jnp.sum((new.W @ S) * new.W, axis=1) / new.sigma**2
        return jax.vmap(model.log_p_xt, in_axes=(None, 0, 0))(new, X, m).mean() - 0.5 * spread.sum()

    for part in jax.tree.leaves(jax.grad(expected_log_joint)(ppca.em_step(w, X))):
        assert jnp.abs(part).max() < 300 * jnp.finfo(dtype).eps


def test_one_spectrum_holds_the_fit_of_every_latent_dimension(dtype):
    X, held_out = data(dtype), data(dtype, seed=9)
    spectrum = ppca.fit_all(X)
    table = spectrum.log_p_x(held_out)
    assert table.shape == (D, N) and spectrum.log_likelihood.shape == (D,)
    for latent_dim in range(1, D):
        w = ppca.fit(X, latent_dim)
        np.testing.assert_allclose(spectrum.log_likelihood[latent_dim], log_p_x(w, X).mean(), **close(dtype))
        np.testing.assert_allclose(table[latent_dim], log_p_x(w, held_out), **close(dtype, loose=10))
        np.testing.assert_allclose(spectrum.sigma(latent_dim), w.sigma[0], **close(dtype))
    isotropic = multivariate_normal(np.asarray(spectrum.b), float(spectrum.sigma(0)) ** 2 * np.eye(D))
    np.testing.assert_allclose(table[0], isotropic.logpdf(float64(held_out)[0]), **close(dtype, loose=10))
    assert np.all(np.diff(spectrum.log_likelihood) > 0)


def test_spectrum_is_the_covariances(dtype):
    X = data(dtype)
    spectrum = ppca.fit_all(X)
    S = np.cov(float64(X)[0].T, bias=True)
    U, eigenvalues = spectrum.eigenvectors, spectrum.eigenvalues
    np.testing.assert_allclose((U * eigenvalues[None]) @ U.T, S, **close(dtype))
    np.testing.assert_allclose(U.T @ U, np.eye(D), **close(dtype))
    assert np.all(np.diff(eigenvalues) <= 0) and spectrum.n == N and spectrum.rank == D
    assert np.all(np.take_along_axis(np.asarray(U), np.abs(U).argmax(axis=0)[None], axis=0) > 0)


def test_fewer_data_than_dimensions(dtype):
    random = np.random.default_rng(2)
    X, held_out = (jnp.asarray(random.normal(size=(n, 20)), dtype) for n in (8, 5))
    spectrum = ppca.fit_all(X)
    expected = np.linalg.eigvalsh(np.cov(float64(X)[0].T, bias=True))[::-1]
    np.testing.assert_allclose(spectrum.eigenvalues, expected, **close(dtype))
    assert spectrum.rank == 7 and np.all(spectrum.eigenvalues[7:] == 0) and spectrum.eigenvectors.shape == (20, 8)
    np.testing.assert_allclose(spectrum.eigenvectors.T @ spectrum.eigenvectors, np.eye(8), **close(dtype))
    for latent_dim in (1, 6):
        w = spectrum.model(latent_dim)
        np.testing.assert_allclose(spectrum.log_likelihood[latent_dim], log_p_x(w, X).mean(), **close(dtype))
        np.testing.assert_allclose(
            spectrum.log_p_x(held_out)[latent_dim], log_p_x(w, held_out), **close(dtype, loose=10)
        )
    assert np.all(spectrum.log_likelihood[7:] == np.inf) and np.all(np.isfinite(spectrum.log_likelihood[:7]))
    assert np.all(np.isnan(spectrum.log_p_x(X)[7:])) and spectrum.sigma(7) == 0


def test_rank_of_the_digits_is_found_in_both_precisions(dtype):
    from sklearn.datasets import load_digits

    X = jnp.asarray(load_digits().data, dtype)
    spectrum = ppca.fit_all(X)
    # Three of the 64 pixels are black in every image.
    assert spectrum.rank == 61
    np.testing.assert_allclose(spectrum.log_likelihood[60], log_p_x(spectrum.model(60), X).mean(), rtol=1e-5)


def test_rank_is_of_the_data_and_not_of_their_rounding(dtype):
    random = np.random.default_rng(4)
    plane = jnp.asarray(random.normal(size=(50, 2)) @ random.normal(size=(2, 5)) + 100, dtype)
    assert ppca.fit_all(plane).rank == 2
    assert ppca.fit_all(plane[:1]).rank == 0
    assert ppca.fit_all(jnp.tile(plane[:1], (30, 1))).rank == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_fit_may_be_mapped_over_many_sets_of_data(dtype, compiled):
    sets = jnp.stack([data(dtype, seed=seed) for seed in range(5)])
    fit = jax.vmap(lambda X: ppca.fit(X, d))
    mapped = (jax.jit(fit) if compiled else fit)(sets)
    for k, X in enumerate(sets):
        alone = ppca.fit(X, d)
        for part, expected in zip(jax.tree.leaves(mapped), jax.tree.leaves(alone), strict=True):
            assert part.dtype == dtype
            np.testing.assert_allclose(part[k], expected, **close(dtype))


def test_a_covariance_summed_in_blocks_is_the_covariance(monkeypatch, dtype):
    X = data(dtype)
    whole = ppca.fit(X, d)
    monkeypatch.setattr(ppca.covariance, "LARGE", 0)
    monkeypatch.setattr(ppca.covariance, "BLOCK", 7)
    for part, expected in zip(jax.tree.leaves(ppca.fit(X, d)), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(part, expected, **close(dtype))


@pytest.mark.parametrize(("latent_dim", "said"), [(7, "1 to 6"), (19, "1 to 6"), (20, "1 to 6")])
def test_a_latent_dimension_without_maximum_is_refused_with_those_that_have_one(latent_dim, said):
    X = jnp.asarray(np.random.default_rng(2).normal(size=(8, 20)))
    for fit in (ppca.fit, lambda X, d: ppca.fit_all(X).model(d)):
        with pytest.raises(ValueError, match=f"latent_dim.*rank 7.*{said}, got {latent_dim}"):
            fit(X, latent_dim)
    with pytest.raises(ValueError, match="no latent dimension is possible"):
        ppca.fit(X[:2], 1)


@in_both
@given(seed=st.integers(0, 2**32 - 1), angle=st.floats(-7, 7))
def test_likelihood_does_not_move_when_W_turns(dtype, seed, angle):
    w, x = decoder(dtype, vector=True, seed=seed), data(dtype, n=1, seed=seed + 1)[0]
    R = jnp.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype)
    turned = Linear(w.W @ R, w.b, w.log_sigma)
    np.testing.assert_allclose(ppca.log_p_x(turned, x), ppca.log_p_x(w, x), **close(dtype, loose=100))


@in_both
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-10, 10), scale=st.floats(0.1, 10))
def test_fit_moves_and_grows_with_the_data(dtype, seed, shift, scale):
    X = data(dtype, n=30, seed=seed)
    w, moved = ppca.fit(X, d), ppca.fit(X * scale + shift, d)
    np.testing.assert_allclose(moved.b, w.b * scale + shift, **close(dtype, loose=10))
    np.testing.assert_allclose(moved.log_sigma, w.log_sigma + np.log(scale), **close(dtype, loose=100))
    expected = scale**2 * ppca.marginal(w)[1]
    np.testing.assert_allclose(ppca.marginal(moved)[1], expected, **close(dtype, loose=100 * max(scale, 1) ** 2))


@in_both
@given(seed=st.integers(0, 2**32 - 1))
def test_likelihood_of_the_maximum_does_not_move_when_the_data_turn(dtype, seed):
    X = data(dtype, n=30, seed=seed)
    Q = jnp.asarray(ortho_group.rvs(D, random_state=seed), dtype)
    here, there = ppca.fit_all(X), ppca.fit_all(X @ Q)
    np.testing.assert_allclose(there.log_likelihood, here.log_likelihood, **close(dtype, loose=100))


def test_order_of_the_data_changes_no_sign(dtype):
    X = data(dtype)
    np.testing.assert_allclose(ppca.fit(X[::-1], 4).W, ppca.fit(X, 4).W, **close(dtype, loose=10))


BAD_MATRICES = {
    "NaN": (jnp.ones((5, D)).at[1, 2].set(jnp.nan), r"nan at X\[1, 2\]"),
    "infinity": (jnp.ones((5, D)).at[0, 1].set(-jnp.inf), r"-inf at X\[0, 1\]"),
    "wrong rank": (jnp.ones(D), r"got float32\[6\]"),
    "three axes": (jnp.ones((2, 3, D)), r"got float32\[2, 3, 6\]"),
    "empty": (jnp.ones((0, D)), r"got float32\[0, 6\]"),
    "no columns": (jnp.ones((5, 0)), r"got float32\[5, 0\]"),
    "integer": (jnp.ones((5, D), int), r"got int32\[5, 6\]; convert it with jnp.asarray\(X, float\)"),
    "complex": (jnp.ones((5, D), complex), "got complex64"),
    "ragged": ([[1.0], [1.0, 2.0]], "got list"),
    "text": ("digits", "got"),
    "nothing": (None, "got"),
}


@pytest.mark.parametrize(("X", "came"), BAD_MATRICES.values(), ids=BAD_MATRICES)
def test_bad_data_are_named(entry_errors, X, came):
    w = decoder(jnp.dtype("float32"))
    spectrum = ppca.fit_all(data(jnp.dtype("float32")))
    for call in (
        lambda: ppca.fit(X, 2),
        lambda: ppca.fit_all(X),
        lambda: ppca.em_step(w, X),
        lambda: spectrum.log_p_x(X),
        lambda: ppca.fit_factor_analysis(X, 2),
    ):
        with pytest.raises(ValueError, match=f"^X must.*{came}"):
            call()


@pytest.mark.parametrize("latent_dim", [0, -1, D, D + 1, 2.0, True, "2", None, np.array([1, 2])])
def test_bad_latent_dimension_is_named(entry_errors, latent_dim):
    X = data(jnp.dtype("float32"))
    for call in (ppca.fit, ppca.fit_missing, ppca.fit_factor_analysis):
        with pytest.raises(ValueError, match=r"^latent_dim must"):
            call(X, latent_dim)


@pytest.mark.parametrize(
    "x",
    [
        jnp.ones(D + 1),
        jnp.ones((1, D)),
        jnp.ones(D, int),
        jnp.ones(D, complex),
        jnp.ones(D) * jnp.inf,
        jnp.ones(0),
        1.0,
    ],
    ids=["width", "rank", "integer", "complex", "infinity", "empty", "number"],
)
def test_bad_datum_is_named(entry_errors, x):
    w = decoder(jnp.dtype("float32"))
    for call in (ppca.log_p_x, ppca.posterior, ppca.log_p_x_observed, ppca.posterior_observed):
        with pytest.raises(ValueError, match=r"^x must"):
            call(w, x)
    with pytest.raises(ValueError, match=r"got nan at x\[3\]"):
        ppca.log_p_x(w, jnp.ones(D).at[3].set(jnp.nan))


def test_wrong_width_and_wrong_decoder_are_named(entry_errors):
    w, X = decoder(jnp.dtype("float32")), data(jnp.dtype("float32"))
    with pytest.raises(ValueError, match=r"^X must.*\[N, 6\], got float32\[200, 5\]"):
        ppca.em_step(w, X[:, :5])
    with pytest.raises(ValueError, match=r"^X must.*\[n, 6\], got float32\[200, 5\]"):
        ppca.fit_all(X).log_p_x(X[:, :5])
    for call in (ppca.log_p_x, ppca.posterior, ppca.em_step, ppca.log_p_x_observed, ppca.posterior_observed):
        with pytest.raises(ValueError, match=r"^w must be a decoders\.Linear.*got tuple"):
            call((w.W, w.b), X)
    with pytest.raises(ValueError, match=r"^w must be a decoders\.Linear"):
        ppca.marginal(None)
