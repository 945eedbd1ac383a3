"""The best q of each family, by roads that share no line; and what it leaves of log p(x|w)."""

from __future__ import annotations

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import bound, decoders, model, ppca, quadrature, variational
from cmog_lib.posteriors import Gaussian, Weighted

KEY = jax.random.key(0)


def linear(dtype, d=2, D=5, seed=1):
    key_W, key_b = jax.random.split(jax.random.key(seed))
    W, b = jax.random.normal(key_W, (D, d), dtype), jax.random.normal(key_b, (D,), dtype)
    return decoders.Linear(W, b, jnp.asarray(-0.3, dtype))


def network(dtype, d=2):
    """An MLP bent so strongly that its posteriors are no ellipses."""
    w = decoders.MLP(d, 4, width=8, depth=1, key=jax.random.key(5))
    w = jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, w)
    w = eqx.tree_at(lambda w: w.nn1.layers[-1].weight, w, 6 * w.nn1.layers[-1].weight)
    return eqx.tree_at(lambda w: w.c, w, w.c - 0.5)


class Folded(eqx.Module):
    """μ(t) = (|u_1| smoothed, u_2), u being t turned by `angle`: every posterior has two humps, at u_1 and −u_1."""

    log_sigma: jax.Array
    angle: float = 0.0
    latent_dim: int = eqx.field(static=True, default=2)
    data_dim: int = eqx.field(static=True, default=2)

    def __call__(self, t):
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u = jnp.stack([cos * t[0] + sin * t[1], cos * t[1] - sin * t[0]])
        return jnp.stack([jnp.sqrt(u[0] ** 2 + 0.1), u[1]]), jnp.broadcast_to(jnp.exp(self.log_sigma), (2,))


def data_of(w, n, seed=2):
    return model.sample(w, n, key=jax.random.key(seed))[1]


def rounding(dtype, scale=1.0):
    """Of sums of some tens of nats."""
    return scale * (1e-4 if dtype == "float32" else 1e-10)


# The straight decoder, in closed form.


@pytest.mark.parametrize("d", [1, 2, 4])
def test_coordinate_ascent_ends_at_the_posteriors_mean_with_the_precisions_diagonal(dtype, d):
    w = linear(dtype, d)
    x = data_of(w, 1)[0]
    p = ppca.posterior(w, x)
    found = variational.cavi_linear(w, x)
    precision = np.linalg.inv(np.asarray(p.covariance, float))
    assert jnp.abs(found.q.m - p.m).max() < rounding(dtype)
    assert np.abs(np.asarray(found.q.s) - np.diag(precision) ** -0.5).max() < rounding(dtype)
    if d > 1:
        assert (found.q.s < jnp.sqrt(jnp.diagonal(p.covariance)) - 1e-3).all(), "narrower than the marginals"


def test_the_bound_of_coordinate_ascent_never_falls_and_ends_below_log_p_x_by_the_analytic_gap(dtype):
    w = linear(dtype, 3)
    for x in data_of(w, 5):
        start = Gaussian(jnp.asarray([2.0, -1.0, 0.5], dtype), jnp.asarray([-2.0, 0.0, 1.0], dtype))
        found = variational.cavi_linear(w, x, start, sweeps=60)
        assert found.bound.shape == (181,) and found.path.m.shape == (181, 3)
        assert (jnp.diff(found.bound) > -rounding(dtype)).all()
        assert eqx.tree_equal(jax.tree.map(lambda part: part[0], found.path), start)
        # Each of the first three updates settles the s of one coordinate, and moves nothing else.
        assert (found.path.log_s[1] != start.log_s).tolist() == [True, False, False]
        by_quadratic = bound.expected_log_joint(w, found.q, x) + found.q.entropy
        assert abs(found.bound[-1] - by_quadratic) < rounding(dtype)
        gap = ppca.log_p_x(w, x) - found.bound[-1]
        assert gap > 0.05 and abs(gap - variational.factorised_gap(w)) < rounding(dtype)


def test_when_w_is_turned_the_likelihood_stays_and_the_bound_drops_by_the_analytic_kl(dtype):
    rng = np.random.default_rng(0)
    W = np.linalg.svd(rng.normal(size=(6, 2)), full_matrices=False)[0] * np.array([3.0, 0.7])
    x = jnp.asarray(rng.normal(size=6), dtype)
    gaps = []
    for angle in (0.0, 0.3, np.pi / 4):
        R = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        w = decoders.Linear(jnp.asarray(W @ R, dtype), jnp.zeros(6, dtype), jnp.asarray(-0.5, dtype))
        found = variational.cavi_linear(w, x)
        P = np.eye(2) + np.exp(1.0) * (W @ R).T @ (W @ R)
        gap = 0.5 * (np.log(np.diag(P)).sum() - np.log(np.linalg.det(P)))
        assert abs(variational.factorised_gap(w) - gap) < rounding(dtype)
        gaps.append((float(ppca.log_p_x(w, x)), float(found.bound[-1]), gap))
    log_p_x, bounds, gaps = np.asarray(gaps).T
    assert np.ptp(log_p_x) < rounding(dtype)
    assert gaps[0] < 1e-7 and gaps[1] > 0.1 and gaps[2] > gaps[1] + 0.1, "none where the columns are orthogonal"
    assert np.abs(bounds - (log_p_x - gaps)).max() < rounding(dtype)


def test_coordinate_ascent_of_all_data_at_once_is_that_of_each(dtype):
    w = linear(dtype)
    X = data_of(w, 4)
    together = jax.vmap(lambda x: variational.cavi_linear(w, x, sweeps=40))(X)
    for i in range(4):
        alone = variational.cavi_linear(w, X[i], sweeps=40)
        assert jnp.abs(together.q.m[i] - alone.q.m).max() < rounding(dtype)


def test_coordinates_that_wait_for_each_other_are_reported(dtype):
    nearly_one = jnp.asarray([[3.0, 3.0], [3.0, 3.0], [0.0, 0.2]], dtype)
    w = decoders.Linear(nearly_one, jnp.zeros(3, dtype), jnp.asarray(-1.0, dtype))
    with pytest.warns(RuntimeWarning, match="the last of 3 sweeps still moved m by .* Take more sweeps"):
        variational.cavi_linear(w, jnp.ones(3, dtype), sweeps=3)


# Any decoder, on a grid.


def test_on_a_grid_the_straight_decoders_optimum_is_its_closed_form(dtype):
    w, nodes = linear(dtype), quadrature.grid(2, 200)
    X = data_of(w, 4)
    found = variational.cavi_grid(w, X, nodes)
    for i, x in enumerate(X):
        closed = variational.cavi_linear(w, x)
        # Coordinate ascent on the grid stops when a sweep gains less than 1e-5 nats, some 1e-3 s from the optimum.
        assert jnp.abs(found.mean[i] - closed.q.m).max() < 5e-3 and jnp.abs(found.s[i] - closed.q.s).max() < 5e-3
        assert abs(found.bound[i, -1] - closed.bound[-1]) < 1e-4 + rounding(dtype)
        # And not only their moments: the factors are those Gaussians.
        expected = jax.nn.softmax(-0.5 * ((found.axis - found.mean[i][:, None]) / closed.q.s[:, None]) ** 2, axis=1)
        assert jnp.abs(jnp.exp(found.log_q[i]) - expected).max() < 1e-4


@pytest.mark.parametrize("d", [1, 2, 3])
def test_on_a_grid_the_bound_never_falls_and_with_kl_it_adds_up_to_log_p_x(dtype, d):
    w, nodes = network(dtype, d), quadrature.grid(d, {1: 400, 2: 80, 3: 32}[d], {1: 6.0, 2: 6.0, 3: 4.0}[d])
    X = data_of(w, 3)
    found = variational.cavi_grid(w, X, nodes)
    assert (jnp.diff(found.bound, axis=1) > -rounding(dtype)).all()
    assert jnp.allclose(jnp.exp(found.log_q).sum(axis=-1), 1, atol=1e-5)
    log_p_x = quadrature.log_p_x(w, X, nodes)
    for i, x in enumerate(X):
        q = Weighted(found.t, found.q.log_weight[i])
        assert abs(bound.lower_bound_on_nodes(w, q, x, nodes) - found.bound[i, -1]) < rounding(dtype)
        gap = bound.kl(w, q, x, nodes)
        assert abs(found.bound[i, -1] + gap - log_p_x[i]) < rounding(dtype)
        # One latent has nothing to be factorised, and several are not independent here.
        assert abs(gap) < rounding(dtype) if d == 1 else gap > 1e-3
    # What an update says that it reaches is the bound of its factors.
    J = (model.log_p_x_given_t_table(w, X[:1], nodes.t)[0] + nodes.log_weight).reshape((found.axis.shape[1],) * d)
    log_q = jnp.full_like(found.log_q[0], -np.log(found.axis.shape[1]))
    for j in range(d):
        log_q, reached = variational.grid.update(J, log_q, j)
        on_way = Weighted(found.t, variational.grid.joined(log_q))
        assert abs(bound.lower_bound_on_nodes(w, on_way, X[0], nodes) - reached) < rounding(dtype)


def test_no_factor_can_be_changed_for_the_better(dtype):
    w, nodes = network(dtype), quadrature.grid(2, 60)
    X = data_of(w, 1)
    found = variational.cavi_grid(w, X, nodes)
    highest = found.bound[0, -1]
    for seed in range(6):
        noise = 0.1 * jax.random.normal(jax.random.key(seed), found.log_q.shape[1:], found.log_q.dtype)
        q = Weighted(found.t, variational.grid.joined(jax.nn.log_softmax(found.log_q[0] + noise, axis=1)))
        assert bound.lower_bound_on_nodes(w, q, X[0], nodes) < highest


def test_two_humps_along_a_coordinate_are_one_factors_affair_and_across_both_only_one_is_seen(dtype):
    nodes, X = quadrature.grid(2, 120, 4.0), jnp.asarray([[1.5, 0.0]], dtype)

    def climb(w, m):
        start = Gaussian(jnp.asarray([m], dtype), jnp.full((1, 2), -1.0, dtype))
        found = variational.cavi_grid(w, X, nodes, start)
        return found, quadrature.log_p_x(w, X, nodes)[0] - found.bound[0, -1]

    # Along t_1 the posterior is a product: its factor has both humps, and nothing is missed.
    along, gap = climb(Folded(jnp.asarray(-1.5, dtype)), [1.0, 0.0])
    assert abs(along.mean[0, 0]) < 0.01 and along.s[0, 0] > 1 and abs(gap) < 1e-3
    # Along the diagonal one of two equal humps is given up, log 2 = 0.69 nats, and the start says which.
    across = Folded(jnp.asarray(-1.5, dtype), np.pi / 4)
    (right, gap), (left, other_gap) = climb(across, [0.8, 0.8]), climb(across, [-0.8, -0.8])
    assert right.mean.min() > 0.8 and left.mean.max() < -0.8
    assert abs(gap - np.log(2)) < 0.02 and abs(gap - other_gap) < rounding(dtype, 10)
    best = variational.cavi_grid(across, X, nodes)
    assert best.bound[0, -1] > right.bound[0, -1] - 1e-4 and abs(best.mean[0, 0]) > 0.8


def test_many_starts_are_never_worse_than_few(dtype):
    w, nodes = network(dtype), quadrature.grid(2, 60)
    X = data_of(w, 6)
    one, four = (variational.cavi_grid(w, X, nodes, starts=k).bound[:, -1] for k in (1, 4))
    assert (four >= one - rounding(dtype)).all()
    assert (four <= quadrature.log_p_x(w, X, nodes) + rounding(dtype)).all()


def test_a_grid_too_coarse_for_the_factors_is_reported(dtype):
    w = Folded(jnp.asarray(-5.0, dtype))
    with pytest.warns(RuntimeWarning, match="fewer than two nodes along a coordinate"):
        variational.cavi_grid(w, jnp.asarray([[1.5, 0.3]], dtype), quadrature.grid(2, 20))


def test_a_bound_that_has_not_settled_is_reported(dtype):
    w, nodes = linear(dtype), quadrature.grid(2, 60)
    far = Gaussian(jnp.full((1, 2), 4.0, dtype), jnp.full((1, 2), -1.0, dtype))
    with pytest.warns(RuntimeWarning, match=r"of 1 of 1 data was still rising after 1 sweeps, the first is X\[0\]"):
        variational.cavi_grid(w, data_of(w, 1), nodes, far, sweeps=1)


# Gradients by draws.


@pytest.mark.parametrize("kind", ["Linear", "MLP"])
def test_both_estimators_have_the_gradient_of_the_bound_as_their_mean_and_one_is_far_noisier(dtype, kind):
    w = linear(dtype) if kind == "Linear" else network(dtype)
    x = data_of(w, 1)[0]
    q, M = Gaussian(jnp.asarray([0.4, -0.6], dtype), jnp.asarray([-1.0, -0.7], dtype)), 40_000
    exact = jax.grad(lambda q: bound.expected_log_joint(w, q, x, n=64) + q.entropy)(q)
    spread = {}
    for estimator in (variational.score_function, variational.reparameterised):
        rows = eqx.filter_jit(estimator)(w, q, x, M=M, key=KEY)
        for name in ("m", "log_s"):
            row = np.asarray(getattr(rows, name), float)
            assert row.shape == (M, 2)
            error = row.std(axis=0) / np.sqrt(M)
            # Four means an estimator: one in four thousand such sets is beyond four standard errors.
            assert (np.abs(row.mean(axis=0) - np.asarray(getattr(exact, name))) < 4 * error + rounding(dtype)).all()
            spread[estimator.__name__, name] = row.std(axis=0) ** 2
    for name in ("m", "log_s"):
        assert (spread["score_function", name] > 5 * spread["reparameterised", name]).all()


# What is refused.


@pytest.mark.parametrize(
    "wrong",
    ["decoder", "x", "start", "sweeps", "gap", "order", "S", "N", "nodes", "starts", "Start", "sigma", "q", "M", "key"],
)
def test_what_does_not_fit_is_refused_by_name(entry_errors, wrong):
    class Broken(Folded):
        def __call__(self, t):
            mu, sigma = super().__call__(t)
            return mu, jnp.where(t[0] > 3, jnp.nan, sigma)

    w, net, nodes = linear(jnp.float32), network(jnp.float32), quadrature.grid(2, 8)
    x, q = jnp.ones(5), Gaussian(jnp.zeros(2), jnp.zeros(2))
    v, net_x, net_X = variational, jnp.ones(4), jnp.ones((1, 4))
    shuffled = quadrature.Nodes(nodes.t[::-1].at[3].set(0.0), nodes.log_weight)
    three = Gaussian(jnp.zeros(3), jnp.zeros(3))
    calls = {
        "decoder": (
            lambda: v.cavi_linear(net, net_x),
            "w must be a decoders.Linear.*for any other.*: cavi_grid",
        ),
        "x": (lambda: v.cavi_linear(w, x[:3]), r"x must be .* \[5\], got float32\[3\]"),
        "start": (lambda: v.cavi_linear(w, x, three), r"start.mean must be .* \[2\], got float32\[3\]"),
        "sweeps": (lambda: v.cavi_linear(w, x, sweeps=0), "sweeps must be an integer of at least 1, got 0"),
        "gap": (lambda: v.factorised_gap(net), "w must be a decoders.Linear"),
        "order": (
            lambda: v.cavi_grid(net, net_X, shuffled),
            "nodes must be n.2 nodes of a product grid in row-major",
        ),
        "S": (
            lambda: v.cavi_grid(net, net_X, quadrature.monte_carlo(2, M=50, key=KEY)),
            r"quadrature.grid\(2, n\) makes them, got 50 others",
        ),
        "nodes": (lambda: v.cavi_grid(net, net_X, nodes.t), "nodes must be Nodes, as quadrature.grid makes them"),
        "starts": (
            lambda: v.cavi_grid(net, net_X, nodes, starts=0),
            "starts must be an integer of at least 1, got 0",
        ),
        "Start": (lambda: v.cavi_grid(net, net_X, nodes, q), r"start.mean must be .* \[1, 2\], got float32\[2\]"),
        "sigma": (
            lambda: v.cavi_grid(Broken(jnp.zeros(())), jnp.ones((1, 2)), nodes),
            r"w must return finite and positive sigma, got sigma\[0\] = nan at t = \[3.75",
        ),
        "N": (
            lambda: v.cavi_grid(net, np.broadcast_to(np.float32(0), (2**20, 4)), quadrature.grid(2, 64)),
            "X and nodes must leave a table of at most 8 GiB, got 1048576 data on 4096 nodes: 16 GiB on a device",
        ),
        "q": (lambda: v.score_function(net, three, net_x, M=5, key=KEY), r"q.mean must be .* \[2\], got float32\[3\]"),
        "M": (lambda: v.reparameterised(net, q, net_x, M=0, key=KEY), "M must be an integer of at least 1, got 0"),
        "key": (lambda: v.score_function(net, q, net_x, M=5, key=jax.random.PRNGKey(0)), "key must be a typed key"),
    }
    call, message = calls[wrong]
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        warnings.simplefilter("ignore")  # the grid is coarse here, and says so
        call()
