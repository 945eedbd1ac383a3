"""log p(x|w) and p(t|x,w) by adding up: the rules' own properties, and `exact` held to its stated error."""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from cmog_lib import quadrature
from cmog_lib.decoders import Linear, as_module
from cmog_lib.engine import table
from cmog_lib.engine.cells import steps


class Own:
    """μ(t), σ(t) from a formula, as a student would write it."""

    def __init__(self, formula, latent_dim: int, data_dim: int):
        self.formula, self.latent_dim, self.data_dim = formula, latent_dim, data_dim

    def __call__(self, t):
        return self.formula(t)


def linear(dtype, d: int, sigma: float, D: int = 4) -> Linear:
    random = np.random.default_rng(d)
    W, b = random.normal(size=(D, d)), random.normal(size=D)
    return Linear(jnp.asarray(W, dtype), jnp.asarray(b, dtype), jnp.asarray(np.log(sigma), dtype))


def truth(w: Linear, X) -> np.ndarray:
    """log N(x; b, WWᵀ + σ²I) in float64, through the d × d posterior precision, which keeps its digits at small σ."""
    W, b, X = (np.asarray(part, float) for part in (w.W, w.b, X))
    D, d = W.shape
    s = np.exp(np.asarray(w.log_sigma, float))
    M = W.T @ W + s**2 * np.eye(d)
    y = X - b
    fit = np.linalg.solve(M, W.T @ y.T).T
    distance = ((y - fit @ W.T) ** 2).sum(axis=1) / s**2 + (fit**2).sum(axis=1)
    return -0.5 * (distance + np.linalg.slogdet(M)[1] + 2 * (D - d) * np.log(s) + D * np.log(2 * np.pi))


def near(w: Linear, n: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    D, d = w.W.shape
    noise = float(jnp.exp(w.log_sigma)) * random.normal(size=(n, D))
    return random.normal(size=(n, d)) @ np.asarray(w.W, float).T + np.asarray(w.b, float) + noise


# The three rules


@pytest.mark.parametrize("d", [1, 2, 3])
def test_every_rule_integrates_the_prior_to_one(dtype, d):
    for nodes in (
        quadrature.grid(d, 30),
        quadrature.gauss_hermite(d, 8),
        quadrature.monte_carlo(d, M=100, key=jax.random.key(0)),
    ):
        assert nodes.t.shape == (len(nodes.log_weight), d) and nodes.t.dtype == nodes.log_weight.dtype == dtype
        assert jnp.allclose(jnp.sum(jnp.exp(nodes.log_weight)), 1, rtol=1e-5)


def test_grid_is_the_centres_of_equal_cells_in_row_major_order(dtype):
    nodes = quadrature.grid(2, 4, half_width=2.0)
    t, weight = np.asarray(nodes.t).reshape(4, 4, 2), np.asarray(nodes.log_weight).reshape(4, 4)
    centre = np.array([-1.5, -0.5, 0.5, 1.5])
    assert (t[:, 0, 0] == centre).all() and (t[0, :, 1] == centre).all() and (t[2, :, 0] == 0.5).all()
    assert np.isclose(weight[1, 3], norm.logpdf(-0.5) + norm.logpdf(1.5), rtol=1e-6)


def test_gauss_hermite_is_exact_for_polynomials(dtype):
    nodes = quadrature.gauss_hermite(1, 5)
    for power, moment in ((2, 1), (3, 0), (4, 3), (8, 105), (9, 0)):
        sum_ = float(jnp.sum(jnp.exp(nodes.log_weight) * nodes.t[:, 0] ** power))
        assert np.isclose(
            sum_, moment, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-3 if dtype == "float32" else 1e-9
        )


def test_gauss_hermite_with_many_nodes_has_no_nan(dtype):
    nodes = quadrature.gauss_hermite(1, 600)
    assert not jnp.isnan(nodes.log_weight).any() and jnp.allclose(jnp.sum(jnp.exp(nodes.log_weight)), 1, rtol=1e-5)


def test_monte_carlo_nodes_are_draws_from_the_prior(dtype):
    M = 40_000
    t = np.asarray(quadrature.monte_carlo(7, M=M, key=jax.random.key(3)).t, float)
    assert (np.abs(t.mean(axis=0)) < 4 / np.sqrt(M)).all() and (
        np.abs((t**2).mean(axis=0) - 1) < 4 * np.sqrt(2 / M)
    ).all()


# log p(x|w) and the posterior on nodes


def test_blocks_of_nodes_change_nothing(dtype, monkeypatch):
    w, nodes = linear(dtype, 2, 0.5), quadrature.grid(2, 23)  # 529 nodes: no block divides them
    X = jnp.asarray(near(w, 6), dtype)

    def value_and_slope():
        # A function of its own for every size of block, for what is compiled once is not compiled again.
        def total(w):
            return jnp.sum(table.by_blocks.__wrapped__(w, X, nodes))

        return table.by_blocks.__wrapped__(w, X, nodes), eqx.filter_grad(total)(w)

    whole, slope = value_and_slope()
    for entries in (1, 100, 3000):
        monkeypatch.setattr(table, "TABLE_ENTRIES", entries if entries > 1 else 30)
        parts, slope_of_parts = value_and_slope()
        tolerance = 1e-4 if dtype == "float32" else 1e-10
        assert jnp.allclose(parts, whole, rtol=tolerance, atol=tolerance)
        for one, other in zip(jax.tree.leaves(slope), jax.tree.leaves(slope_of_parts), strict=True):
            assert jnp.allclose(one, other, rtol=10 * tolerance, atol=10 * tolerance)


def test_slope_of_log_p_x_is_its_difference_quotient():
    with jax.enable_x64(True):
        w, nodes = linear(jnp.dtype("float64"), 2, 0.5), quadrature.grid(2, 60)
        X = jnp.asarray(near(w, 5))
        height = eqx.filter_jit(lambda w: jnp.mean(quadrature.log_p_x(w, X, nodes)))
        slope = eqx.filter_grad(height)(w)
        for part, there in ((lambda w: w.W, (1, 0)), (lambda w: w.b, (2,)), (lambda w: w.log_sigma, ())):
            ends = [height(eqx.tree_at(part, w, part(w).at[there].add(step))) for step in (1e-5, -1e-5)]
            assert np.isclose((ends[0] - ends[1]) / 2e-5, part(slope)[there], rtol=1e-7, atol=1e-8)


def test_nodes_of_weight_zero_count_for_nothing(dtype):
    w, nodes = linear(dtype, 1, 0.5), quadrature.grid(1, 200)
    X = jnp.asarray(near(w, 3), dtype)
    idle = quadrature.Nodes(
        jnp.pad(nodes.t, ((0, 50), (0, 0))), jnp.pad(nodes.log_weight, (0, 50), constant_values=-jnp.inf)
    )
    assert jnp.allclose(quadrature.log_p_x(w, X, idle), quadrature.log_p_x(w, X, nodes), rtol=1e-6)
    q = quadrature.posterior(w, X, idle)
    assert (q.weight[:, 200:] == 0).all() and jnp.allclose(q.weight.sum(axis=1), 1, rtol=1e-5)


def test_posterior_is_bayes_rule(dtype):
    w, nodes = linear(dtype, 1, 0.7), quadrature.grid(1, 50)
    X = jnp.asarray(near(w, 3), dtype)
    q = quadrature.posterior(w, X, nodes)
    mu, sigma = (np.asarray(part, float) for part in jax.vmap(w)(nodes.t))
    likelihood = norm.pdf(np.asarray(X, float)[:, None], mu[None], sigma[None]).prod(axis=2)
    expected = likelihood * np.exp(np.asarray(nodes.log_weight, float))
    assert q.t.shape == (50, 1) and q.log_weight.shape == (3, 50)
    assert np.allclose(q.weight, expected / expected.sum(axis=1, keepdims=True), rtol=2e-3, atol=1e-6)


def test_a_table_that_would_not_fit_is_never_held(dtype):
    # 60,000 data × 16,384 nodes: the whole table would be 4 GB in float32. The compiler says what it will hold.
    w = as_module(linear(dtype, 2, 0.5, D=64))
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((60_000, 64), (16_384, 2), (16_384,))]
    arrays, rest = eqx.partition(w, eqx.is_array)

    def total(arrays, X, t, log_weight):
        w = eqx.combine(arrays, rest)
        return jnp.sum(table.by_blocks.__wrapped__(w, X, quadrature.Nodes(t, log_weight)))

    for function in (total, jax.value_and_grad(total)):
        held = jax.jit(function).lower(arrays, *shapes).compile().memory_analysis()
        assert held.temp_size_in_bytes < 4e8 * dtype.itemsize


# exact


@pytest.mark.parametrize(
    ("d", "sigma"), [(1, 1.0), (1, 0.1), (1, 0.01), (1, 1e-4), (2, 0.3), (2, 0.03), (2, 1e-3), (3, 0.5), (3, 0.1)]
)
def test_exact_is_the_closed_form_to_its_stated_error(dtype, d, sigma):
    w = linear(dtype, d, sigma)
    X = jnp.asarray(near(w, 8), dtype)
    answer = quadrature.exact(w, X)
    assert answer.log_p_x.dtype == answer.error.dtype == np.float64
    assert (answer.error <= 1e-4).all()
    # What the closed form itself rounds at small σ is let through.
    assert (np.abs(answer.log_p_x - truth(w, X)) <= answer.error + 1e-12 / sigma**2).all()


@pytest.mark.parametrize("tolerance", [0.1, 1e-3, 1e-6, 1e-9])
def test_error_is_below_the_tolerance_and_above_the_truth(tolerance):
    w = linear(jnp.dtype("float32"), 2, 0.2)
    X = near(w, 20)
    answer = quadrature.exact(w, X, tolerance=tolerance)
    assert (answer.error <= tolerance).all()
    assert (np.abs(answer.log_p_x - truth(w, X)) <= answer.error + 1e-11).all()


def test_data_far_from_the_origin_are_found(dtype):
    w = linear(dtype, 2, 0.1)
    X = jnp.asarray(np.asarray(w.b) + np.array([[0, 0], [12, 0], [-9, 30], [100, -60.0]]) @ np.asarray(w.W).T, dtype)
    answer = quadrature.exact(w, X)
    assert (np.abs(answer.log_p_x - truth(w, X)) <= answer.error + 1e-7).all()


curves = {
    "sine": lambda s, t: (jnp.stack([t[0], jnp.sin(3 * t[0])]), s * jnp.ones(2)),
    "spiral": lambda s, t: (jnp.exp(0.3 * t[0]) * jnp.stack([jnp.cos(6 * t[0]), jnp.sin(6 * t[0])]), s * jnp.ones(2)),
    "many turns": lambda s, t: (jnp.stack([jnp.cos(40 * t[0]), jnp.sin(40 * t[0])]), s * jnp.ones(2)),
    "kink": lambda s, t: (jnp.stack([jnp.abs(t[0]), jax.nn.relu(t[0] - 0.3)]), s * jnp.ones(2)),
    "sigma of t": lambda s, t: (jnp.stack([t[0], t[0] ** 2]), s * jnp.exp(jnp.stack([t[0], jnp.sin(t[0])]))),
}


def dense(w, x: np.ndarray) -> float:
    """log p(x) by half a million points, then as many again where the mass is: slow, plain, and not ours."""

    @jax.jit
    def joint(t):
        mu, sigma = jax.vmap(w)(t[:, None])
        return (
            jnp.sum(-0.5 * ((x[None] - mu) / sigma) ** 2 - jnp.log(sigma), axis=1)
            - 0.5 * t**2
            - 1.5 * np.log(2 * np.pi)
        )

    low, high, n = -10.0, 10.0, 2**19
    for _ in range(2):
        step = (high - low) / n
        t = low + step * (np.arange(n) + 0.5)
        value = np.asarray(joint(jnp.asarray(t)))
        high_ground = t[value > value.max() - 45]
        low, high = high_ground.min() - 2 * step, high_ground.max() + 2 * step
    return value.max() + np.log(np.sum(np.exp(value - value.max())) * step)


@pytest.mark.parametrize("sigma", [0.3, 0.01])
@pytest.mark.parametrize("curve", curves)
def test_exact_is_right_on_curves_that_bend(curve, sigma):
    random = np.random.default_rng(0)
    w = Own(lambda t: curves[curve](sigma, t), 1, 2)
    with jax.enable_x64(True):
        on = np.asarray(jax.vmap(w)(jnp.asarray(random.normal(size=(4, 1))))[0])
        X = np.concatenate([on + sigma * random.normal(size=on.shape), random.normal(size=(2, 2))])
        expected = np.array([dense(w, x) for x in X])
    answer = quadrature.exact(w, X)
    assert (answer.error <= 1e-4).all()
    assert (np.abs(answer.log_p_x - expected) <= answer.error + 1e-9).all()


def test_exact_is_scipys_quad_where_the_posterior_has_two_narrow_modes():
    s, x = 0.01, 1.0
    w = Own(lambda t: (t**2, s * jnp.ones(1)), 1, 1)
    value, error = quad(lambda t: norm.pdf(x, t**2, s) * norm.pdf(t), -9, 9, points=[-1, 1], limit=1000, epsabs=1e-13)
    answer = quadrature.exact(w, np.array([[x]]), tolerance=1e-8)
    assert abs(answer.log_p_x[0] - np.log(value)) <= answer.error[0] + error / value
    q = answer.posterior(0)
    # The two modes are mirror images.
    assert abs(float(jnp.sum(jnp.where(q.t[:, 0] > 0, q.weight, 0))) - 0.5) < 1e-4


def test_exact_is_right_where_the_mean_shoots_through_the_middle_of_a_ring():
    # All x inside the ring are painted from |t| < 0.1, a hundredth of a cell, behind a slope that points elsewhere.
    s = 0.3
    w = Own(lambda t: (t / jnp.sqrt(t @ t + 1e-3), s * jnp.ones(2)), 2, 2)
    X = np.random.default_rng(5).normal(size=(3, 2))
    u, angle = np.linspace(np.log(1e-6), np.log(9), 3000), np.arange(1500) * 2 * np.pi / 1500
    radius = np.exp(u)[:, None, None]
    t = radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None]
    density = norm.pdf(X[:, None, None], t / np.sqrt(radius**2 + 1e-3), s).prod(axis=-1) * norm.pdf(t).prod(axis=-1)
    expected = np.log(np.sum(density * radius[..., 0] ** 2, axis=(1, 2)) * (u[1] - u[0]) * (angle[1] - angle[0]))
    answer = quadrature.exact(w, X, tolerance=0.01)
    # Polar coordinates end at 1e-6 and 9, and in steps: some 1e-5 of their own.
    assert (np.abs(answer.log_p_x - expected) <= answer.error + 1e-4).all()


class Bump(eqx.Module):
    """μ_1 = exp(−½ |t − c|²/width²): nearly 0 at the centres of all first cells where it is narrow."""

    c: jax.Array
    width: jax.Array
    latent_dim: int = eqx.field(static=True)
    data_dim: int = eqx.field(static=True, default=2)

    def __call__(self, t):
        bump = jnp.exp(-0.5 * jnp.sum((t - self.c) ** 2) / self.width**2)
        return jnp.stack([bump, jnp.zeros_like(bump)]), jnp.full(2, 0.05)


def log_p_of_bump(w, x: np.ndarray, n: int) -> float:
    """By equal cells inside eight widths; outside them μ = 0."""
    c, width, d = np.asarray(w.c, float), float(w.width), w.latent_dim
    edges = np.linspace(-8 * width, 8 * width, n + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    t = c + np.stack(np.meshgrid(*[middle] * d, indexing="ij"), axis=-1).reshape(-1, d)
    log_p_t = norm.logpdf(t).sum(axis=1) + d * np.log(16 * width / n)
    bump = np.exp(-0.5 * ((t - c) ** 2).sum(axis=1) / width**2)
    inside = np.logaddexp.reduce(norm.logpdf(x[0], bump, 0.05) + norm.logpdf(x[1], 0, 0.05) + log_p_t)
    outside = norm.logpdf(x, 0, 0.05).sum() + np.log1p(-np.exp(np.logaddexp.reduce(log_p_t)))
    return np.logaddexp(inside, outside)


@pytest.mark.parametrize(("d", "widths", "n"), [(1, (0.1, 0.01), 40000), (2, (0.1, 0.03, 0.02), 400)])
def test_exact_sees_a_bump_that_hides_between_its_first_cells(d, widths, n):
    X = np.array([[1.0, 0.0], [0.5, 0.02], [0.0, 0.05]])
    for width in widths:
        for c in np.random.default_rng(d).uniform(-1.5, 1.5, size=(3, d)):
            w = Bump(jnp.asarray(c), jnp.asarray(width), d)
            answer = quadrature.exact(w, X)
            expected = [log_p_of_bump(w, x, n) for x in X]
            assert (answer.error <= 1e-4).all()
            # The reference's steps are 0.04 of a width or less, and so its error is far below 1e-6.
            assert (np.abs(answer.log_p_x - expected) <= answer.error + 1e-6).all(), (width, c)


def test_exact_names_the_latent_between_its_cells_where_the_decoder_is_no_number(entry_errors):
    # A hole a tenth of a cell wide.
    w = Own(lambda t: (jnp.where(jnp.abs(t - 0.3) < 0.0015, jnp.nan, t), jnp.ones(1)), 1, 1)
    with pytest.raises(ValueError, match=r"w must return finite mu, got mu\[0\] = nan at t = \[0.\d+"):
        quadrature.exact(w, np.zeros((1, 1)))


def test_posterior_of_exact_has_the_closed_forms_moments(dtype):
    w = linear(dtype, 2, 0.1)
    X = jnp.asarray(near(w, 3), dtype)
    W, s = np.asarray(w.W, float), 0.1
    precision = np.eye(2) + W.T @ W / s**2
    answer = quadrature.exact(w, X)
    for i in range(3):
        q = answer.posterior(i)
        assert q.t.dtype == dtype and jnp.allclose(jnp.sum(q.weight), 1, rtol=1e-4)
        mean = np.linalg.solve(precision, W.T @ (np.asarray(X[i], float) - np.asarray(w.b, float)) / s**2)
        assert np.allclose(q.mean, mean, atol=1e-4) and np.allclose(q.covariance, np.linalg.inv(precision), atol=1e-5)


def test_the_answer_does_not_depend_on_the_company(dtype):
    w = linear(dtype, 2, 0.2)
    X = jnp.asarray(near(w, 5), dtype)
    together = quadrature.exact(w, X)
    alone = [quadrature.exact(w, X[i : i + 1]).log_p_x[0] for i in range(5)]
    assert (np.abs(together.log_p_x - alone) <= together.error).all()


def test_evaluations_count_the_latents_that_were_decoded():
    answer = quadrature.exact(linear(jnp.dtype("float32"), 1, 0.5), np.zeros((3, 4), np.float32))
    assert answer.evaluations >= 512 and isinstance(answer.evaluations, int)


def test_what_cannot_be_reached_is_said(monkeypatch):
    # Three dimensions, a needle of 1e-3 across, and a thousand cells.
    w = linear(jnp.dtype("float32"), 3, 1e-3)
    X = near(w, 2)
    monkeypatch.setattr(steps, "MOST_CELLS", 1000)
    with pytest.warns(RuntimeWarning, match="did not reach tolerance=0.0001 for 2 of 2 data.* Raise the tolerance"):
        answer = quadrature.exact(w, X)
    assert (answer.error > 1e-4).all() and (np.abs(answer.log_p_x - truth(w, X)) <= answer.error).all()


def test_nodes_are_counted_in_the_gigabytes_of_their_precision(dtype):
    allowed = 21 if dtype == jnp.float64 else 22  # 2^d (d + 1) numbers of 8 or 4 bytes, at most 0.5 GiB
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "MOST_OF_NODES", 0.5)
        table.affordable("gauss_hermite", allowed, 2, None)
        with pytest.raises(ValueError, match=r"gauss_hermite needs nodes of at most 0\.5 GiB"):
            table.affordable("gauss_hermite", allowed + 1, 2, None)


def test_product_nodes_are_every_combination_in_row_major_order(dtype):
    t, log_weight = np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.2, 0.4])
    points, weights = table.tensor(3, t, log_weight)
    assert points.dtype == weights.dtype == dtype
    every = list(itertools.product(range(3), repeat=3))
    np.testing.assert_array_equal(points, [[t[i], t[j], t[k]] for i, j, k in every])
    np.testing.assert_allclose(weights, [log_weight[[i, j, k]].sum() for i, j, k in every], rtol=1e-6)


# Bad input


def Xs(*shape: int) -> jax.Array:
    return jnp.zeros(shape)


line = linear(jnp.dtype("float32"), 1, 0.5)
some = quadrature.grid(1, 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quadrature.grid(0, 10), "latent_dim must be an integer of at least 1, got 0"),
        (lambda: quadrature.grid(-1, 10), "latent_dim must be an integer of at least 1, got -1"),
        (
            lambda: quadrature.grid(4, 32),
            r"latent_dim=4 with n=32 asks for 32\^4 = 1.05e\+06 nodes, .* GiB .*monte_carlo",
        ),
        (lambda: quadrature.grid(3, 1000), r"1000\^3 = 1e\+09 nodes"),
        (lambda: quadrature.grid(1, 1), "n must be an integer of at least 2, got 1"),
        (lambda: quadrature.grid(1, 10.0), "n must be an integer of at least 2, got 10.0"),
        (lambda: quadrature.grid(1, 10, half_width=0.0), "half_width must be a positive finite number, got 0.0"),
        (lambda: quadrature.grid(1, 10, half_width=-6.0), "half_width must be a positive finite number, got -6.0"),
        (lambda: quadrature.grid(1, 10, half_width=np.inf), "half_width must be a positive finite number, got inf"),
        (lambda: quadrature.gauss_hermite(2, 1), "n must be an integer of at least 2, got 1"),
        (lambda: quadrature.gauss_hermite(9, 20), r"gauss_hermite needs .* 20\^9"),
        # 2^26 nodes, the most that a grid has, but 27 numbers each.
        (lambda: quadrature.gauss_hermite(26, 2), r"at most 2 GiB.*2\^26 = 6.71e\+07 nodes, 6.75 GiB .*monte_carlo"),
        (
            lambda: quadrature.monte_carlo(999, M=1 << 20, key=jax.random.key(0)),
            "M must leave .* got 1048576: .* 3.91 GiB",
        ),
        (
            lambda: quadrature.posterior(line, np.broadcast_to(np.float32(0), (2**20, 4)), quadrature.grid(1, 2**12)),
            "X and nodes must leave a table of at most 8 GiB, got 1048576 data on 4096 nodes: 16 GiB on a device",
        ),
        (lambda: quadrature.monte_carlo(2, M=0, key=jax.random.key(0)), "M must be an integer of at least 1, got 0"),
        (lambda: quadrature.monte_carlo(2, M=5, key=jax.random.PRNGKey(0)), "key must be a typed key"),
        (lambda: quadrature.log_p_x(line, Xs(3), some), r"X must be .* \[N, 4\], got float32\[3\]"),
        (lambda: quadrature.log_p_x(line, Xs(3, 5), some), r"X must be .* \[N, 4\], got float32\[3, 5\]"),
        (lambda: quadrature.log_p_x(line, Xs(0, 4), some), r"X must be .* \[N, 4\], got float32\[0, 4\]"),
        (
            lambda: quadrature.log_p_x(line, Xs(2, 4).at[1, 2].set(jnp.nan), some),
            r"X must be finite, got nan at X\[1, 2\]",
        ),
        (
            lambda: quadrature.log_p_x(line, jnp.zeros((2, 4), int), some),
            r"got int32\[2, 4\]; convert it with",
        ),
        (lambda: quadrature.log_p_x(line, jnp.zeros((2, 4), complex), some), r"got complex64\[2, 4\]"),
        (lambda: quadrature.log_p_x(line, Xs(2, 4), quadrature.grid(2, 5)), r"nodes.t must be .* \[S, 1\], got"),
        (
            lambda: quadrature.log_p_x(line, Xs(2, 4), some.t),
            "nodes must be Nodes, as quadrature.grid makes them, got ArrayImpl",
        ),
        (
            lambda: quadrature.posterior(line, Xs(2, 4), quadrature.Nodes(some.t, some.log_weight[1:])),
            r"nodes.log_weight must be .* \[10\], got float32\[9\]",
        ),
        (
            lambda: quadrature.posterior(line, Xs(2, 4), quadrature.Nodes(some.t, some.log_weight * jnp.nan)),
            "nodes.log_weight must be finite or -inf",
        ),
        (
            lambda: quadrature.posterior(lambda t: t, Xs(2, 4), some),
            "w must be a decoder .* without latent_dim, data_dim",
        ),
        (
            lambda: quadrature.exact(linear("float32", 5, 0.5, 6), Xs(2, 6)),
            "w.latent_dim must be 1, 2 or 3 .* got 5: .* 1.07e.09 latents .* 8 GiB .*monte",
        ),
        (
            lambda: quadrature.exact(line, Xs(2, 4), tolerance=0.0),
            "tolerance must be a positive finite number, got 0.0",
        ),
        (lambda: quadrature.exact(line, Xs(2, 4), tolerance=-1e-3), "tolerance must be a positive"),
        (lambda: quadrature.exact(line, Xs(2, 4), tolerance=2.0), "tolerance must be from 1e-10 to 0.5 nats, got 2.0"),
        (lambda: quadrature.exact(line, Xs(2, 3)), r"X must be .* \[N, 4\], got float32\[2, 3\]"),
        (lambda: quadrature.exact(line, Xs(2, 4).at[0, 0].set(jnp.inf)), r"X must be finite, got inf at X\[0, 0\]"),
        (lambda: quadrature.exact(line, Xs(2, 4)).posterior(2), "i must be an integer from 0 to 1, got 2"),
        (
            lambda: quadrature.exact(Own(lambda t: (t, t * 0), 1, 1), Xs(2, 1)),
            r"w must return finite and positive sigma, got sigma\[0\] = -0.0 at t = \[-",
        ),
        (
            lambda: quadrature.exact(Own(lambda t: (jnp.log(t), jnp.ones(1)), 1, 1), Xs(2, 1)),
            r"w must return finite mu, got mu\[0\] = nan at t = \[-",
        ),
    ],
)
def test_bad_input_is_refused_by_name(entry_errors, call, message):
    with pytest.raises(ValueError, match=message):
        call()
