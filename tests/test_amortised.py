"""Amortised inference: the same bound as everywhere, closed forms where the model is straight, and its faults."""

from __future__ import annotations

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_variational import KEY, data_of, linear, network

from cmog_lib import amortised, bound, datasets, decoders, model, ppca, quadrature, variational
from cmog_lib.amortised import encoders
from cmog_lib.amortised.dimensions import padded
from cmog_lib.engine.convolutions import halve_and_convolve
from cmog_lib.engine.optimise import stochastic
from cmog_lib.optimise import NotFinite, maximise
from cmog_lib.posteriors import Gaussian

QUIET = {"key": KEY, "progress": False}


def mlp_encoder(dtype, w, **sizes):
    made = encoders.MLP(w.data_dim, w.latent_dim, **(sizes or {"width": 16}), key=KEY)
    return jax.tree.map(lambda a: jnp.asarray(a, dtype) if eqx.is_array(a) else a, made)


def closed_bound(both, X):
    """1/N Σ L(w, q(t|x_i)), exactly, for straight ones."""
    w, encoder = both
    of_one = lambda x: bound.expected_log_joint(w, encoder(x), x) + encoder(x).entropy  # noqa: E731
    return jax.vmap(of_one)(X).mean()


# The bound and its gradient.


class Circle(eqx.Module):
    """A circle that t goes round six times per unit of length, so that a wide q needs many nodes."""

    latent_dim: int = eqx.field(static=True, default=1)
    data_dim: int = eqx.field(static=True, default=2)

    def __call__(self, t):
        return jnp.stack([jnp.cos(6 * t[0]), jnp.sin(6 * t[0])]), jnp.full(2, 0.1, t.dtype)


def test_a_gaussians_bound_takes_more_nodes_only_for_a_datum_that_needs_them():
    with jax.enable_x64(True):
        w, X = Circle(), jnp.ones((2, 2))
        q = Gaussian(jnp.zeros((2, 1)), jnp.log(jnp.array([[0.01], [1.0]])))
        value, error = amortised.gaussian_bound(w, q, X, key=KEY)

        def with_nodes(n):
            of_one = lambda q, x: bound.expected_log_joint(w, q, x, n=n) + q.entropy  # noqa: E731
            return np.asarray(jax.vmap(of_one)(q, X))

        twelve, few, rough, many = (with_nodes(n) for n in (12, 16, 24, 32))
    assert abs(few - many)[1] > 1e-3 and abs(twelve - few)[0] < 1e-9, "only the second needs more than 16"
    # The same sums in another order: rounding in double precision, of numbers that are hundreds.
    np.testing.assert_allclose(value, [few[0], many[1]], rtol=0, atol=1e-10)
    np.testing.assert_allclose(error, [abs(few - twelve)[0], abs(many - rough)[1]], rtol=0, atol=1e-10)


def test_the_bound_by_draws_is_in_the_mean_the_bound_by_quadrature(dtype):
    w = network(dtype)
    encoder, x = mlp_encoder(dtype, w), data_of(w, 1)[0]
    of_keys = eqx.filter_jit(jax.vmap(lambda key: amortised.lower_bound(w, encoder, x, key=key)))
    each, q = np.asarray(of_keys(jax.random.split(KEY, 20_000))), encoder(x)
    exact = float(bound.expected_log_joint(w, q, x, n=48) + q.entropy)
    assert abs(each.mean(dtype=float) - exact) < 4 * each.std() / np.sqrt(len(each))


@pytest.mark.weekly
def test_the_gradient_of_the_bound_is_that_of_finite_differences():
    with jax.enable_x64(True):
        w = network(jnp.float64)
        encoder, X = mlp_encoder(jnp.float64, w), data_of(w, 5)

        @eqx.filter_jit
        def value(both):
            return jax.vmap(lambda x, key: amortised.lower_bound(*both, x, M=3, key=key))(
                X, jax.random.split(KEY, 5)
            ).mean()

        both = (w, encoder)
        gradient = eqx.filter_jit(eqx.filter_grad(value))(both)
        parameters = eqx.filter(both, eqx.is_inexact_array)
        leaves, treedef = jax.tree.flatten(parameters)
        for key in jax.random.split(KEY, 5):
            keys = jax.random.split(key, len(leaves))
            way = [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
            way = jax.tree.unflatten(treedef, way)
            # The floor under σ is held still by the decoder itself.
            way = eqx.tree_at(lambda both: both[0].sigma_min, way, jnp.zeros(()))
            step = jax.tree.map(lambda a: 1e-5 * a, way)
            back = jax.tree.map(jnp.negative, step)
            up, down = value(eqx.apply_updates(both, step)), value(eqx.apply_updates(both, back))
            slope = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(way), strict=True))
            # A central difference errs by h² and by rounding over h, both about 1e-9 here.
            np.testing.assert_allclose((up - down) / 2e-5, slope, rtol=1e-6, atol=1e-7)


def test_what_q_says_latent_by_latent_adds_up_to_the_divergence_from_the_prior(dtype):
    w = network(dtype)
    q, nodes = mlp_encoder(dtype, w)(data_of(w, 1)[0]), quadrature.grid(2, 400)
    on = bound.on_nodes(q, nodes)
    by_sum = jnp.sum(on.weight * (on.log_weight - nodes.log_weight))
    np.testing.assert_allclose(bound.kl_to_prior(q).sum(), by_sum, atol=1e-4)
    assert bound.kl_to_prior(q).shape == (2,)
    silent = type(q)(jnp.zeros(2, dtype), jnp.zeros(2, dtype))
    assert (bound.kl_to_prior(silent) == 0).all()


# The straight autoencoder is PPCA.


def straight(X, d, sigma, key=KEY):
    key_w, key_v = jax.random.split(key)
    w = decoders.Linear(0.3 * jax.random.normal(key_w, (X.shape[1], d)), X.mean(axis=0), jnp.log(jnp.asarray(sigma)))
    v = 0.3 * jax.random.normal(key_v, (d, X.shape[1]))
    return w, encoders.Linear(v, X.mean(axis=0), jnp.zeros(d))


def test_a_straight_encoder_and_decoder_reach_the_likelihood_of_ppca():
    with jax.enable_x64(True):
        X = jnp.asarray(datasets.digits().X[:400, 18:46], jnp.float64)
        found = maximise(closed_bound, straight(X, 3, 0.3), X, tolerance=1e-12, max_steps=20_000)
        w = found.w[0]
        best = ppca.fit(X, 3)
        of_all = jax.vmap(ppca.log_p_x, in_axes=(None, 0))
        assert abs(found.value - of_all(best, X).mean()) < 1e-4, "the bound is the highest likelihood there is"
        assert abs(of_all(w, X).mean() - found.value) < 1e-4, "and nothing is lost to q"
        # The bound fixes what the likelihood leaves open: the axes are the principal ones, up to order and sign.
        gram = w.W.T @ w.W
        assert jnp.abs(gram - jnp.diag(jnp.diag(gram))).max() < 1e-2 * gram.max()


def test_a_latent_falls_silent_exactly_where_its_eigenvalue_is_below_the_noise():
    with jax.enable_x64(True):
        X = jnp.asarray(datasets.digits().X[:400, 18:46], jnp.float64)
        eigenvalues = ppca.fit_all(X).eigenvalues[:4]

        def held(both, fixed, X):
            w = eqx.tree_at(lambda w: w.log_sigma, both[0], fixed.log_sigma)
            return closed_bound((w, both[1]), X)

        for silent in range(1, 4):  # σ² between two neighbouring eigenvalues
            sigma = jnp.sqrt(jnp.sqrt(eigenvalues[4 - silent - 1] * eigenvalues[4 - silent]))
            begin = straight(X, 4, sigma)
            encoder = maximise(held, begin, begin[0], X, tolerance=1e-13, max_steps=20_000).w[1]
            said = bound.kl_to_prior(amortised.encoded(encoder, X)).mean(axis=0)
            # A speaking latent says ½ log(λ_j/σ²) nats, which can be as little as λ_j is little above σ².
            assert (said < 1e-3).sum() == silent and (said > 0.01).sum() == 4 - silent
            np.testing.assert_allclose(
                np.sort(said)[silent:], np.sort(0.5 * np.log(eigenvalues[: 4 - silent] / sigma**2)), atol=1e-3
            )


# Learning.


@pytest.fixture(scope="module")
def images():
    return datasets.digits().X[:500]


@pytest.fixture(scope="module")
def trained(images):
    w = decoders.start_at(decoders.MLP(2, 64, width=32, key=KEY), images)
    return amortised.fit(w, encoders.MLP(64, 2, width=32, key=KEY), images, steps=400, learning_rate=5e-3, **QUIET)


def test_learning_climbs_and_two_runs_are_the_same(images, trained):
    assert trained.trace.shape == (400,) and not trained.interrupted
    assert trained.trace[-50:].mean() > trained.trace[:10].mean() + 20
    w = decoders.start_at(decoders.MLP(2, 64, width=32, key=KEY), images)
    again = amortised.fit(w, encoders.MLP(64, 2, width=32, key=KEY), images, steps=400, learning_rate=5e-3, **QUIET)
    assert (again.trace == trained.trace).all()


@pytest.mark.parametrize("M", [1, 3])
def test_one_step_goes_up_the_gradient_by_the_learning_rate(M):
    with jax.enable_x64(True):  # float32 has not enough digits for the difference
        w = network(jnp.float64)
        encoder, X, keys = mlp_encoder(jnp.float64, w), data_of(w, 16), jax.random.split(KEY, 16)

        @eqx.filter_jit
        def mean(both):
            return jax.vmap(lambda x, key: amortised.lower_bound(*both, x, M=M, key=key))(X, keys).mean()

        before, slope = eqx.filter_jit(eqx.filter_value_and_grad(mean))((w, encoder))
        squared = sum(jnp.sum(a**2) for a in jax.tree.leaves(slope))
        rate = jnp.asarray(1e-7)
        w_new, encoder_new, value = amortised.vae_step(w, encoder, X, learning_rate=rate, key=KEY, M=M)
        np.testing.assert_allclose(value, before, rtol=1e-12)
        # L(θ + η∇L) = L(θ) + η |∇L|² + O(η²)
        np.testing.assert_allclose(mean((w_new, encoder_new)) - before, rate * squared, rtol=1e-3)


def test_with_w_held_only_the_encoder_learns(images, trained):
    fresh = encoders.MLP(64, 2, width=32, key=jax.random.key(5))
    found = amortised.fit(trained.w, fresh, images, steps=200, hold_w=True, **QUIET)
    assert eqx.tree_equal(found.w, trained.w)
    assert found.trace[-20:].mean() > found.trace[:5].mean() + 10


def test_an_interrupted_training_keeps_its_last_good_state_and_goes_on(images, trained, monkeypatch):
    chunks, chunk = [], stochastic._chunk

    def stopped(*args):
        chunks.append(None)
        if len(chunks) == 3:
            raise KeyboardInterrupt
        return chunk(*args)

    monkeypatch.setattr(stochastic, "_chunk", stopped)
    w, encoder = trained.w, trained.encoder
    found = amortised.fit(w, encoder, images, steps=100, chunk=10, **QUIET)
    assert found.interrupted and found.trace.shape == (20,)
    monkeypatch.undo()
    on = amortised.fit(found.w, found.encoder, images, steps=10, **QUIET)
    assert np.isfinite(on.trace).all() and on.trace.mean() > trained.trace[:10].mean()


@pytest.mark.parametrize("hold_w", [False, True])
def test_a_bound_that_is_not_finite_is_reported_with_step_cause_and_last_good_state(images, trained, hold_w):
    with pytest.raises(NotFinite, match=r"step \d+: .*(not finite|learning rate)") as caught:
        amortised.fit(trained.w, trained.encoder, images, steps=50, hold_w=hold_w, optimiser=optax.sgd(1e12), **QUIET)
    w, encoder = caught.value.ascent.w
    assert caught.value.step >= 1
    assert all(jnp.isfinite(a).all() for a in jax.tree.leaves(eqx.filter((w, encoder), eqx.is_inexact_array)))


@pytest.mark.parametrize("learn", ["fit", "fit_every_dimension"])
def test_data_that_were_not_scaled_are_said_to_be_the_cause(learn):
    X = 255 * jax.random.normal(KEY, (64, 3))
    w = decoders.start_at(decoders.MLP(2, 3, width=16, depth=1, key=KEY), X)
    encoder = encoders.MLP(3, 2, width=16, depth=1, key=KEY)
    dims = ((1, 2),) if learn == "fit_every_dimension" else ()
    spread = f"{float(X.std()):.3g}"
    said = rf"the encoder's log s\(x\) reaches \d.*; the data have one of {spread}: scale them, X / {spread}$"
    with pytest.raises(NotFinite, match=rf"^step 0: the value is not finite.*{said}"):
        getattr(amortised, learn)(w, encoder, X, *dims, steps=5, chunk=5, **QUIET)


def test_a_learning_rate_beyond_reason_is_said_to_be_the_cause():
    X = jax.random.normal(KEY, (64, 3))
    w, encoder = decoders.MLP(2, 3, width=16, depth=1, key=KEY), encoders.MLP(3, 2, width=16, depth=1, key=KEY)
    with pytest.raises(
        NotFinite, match=r"^step 1: .* by up to 1000 in 1 steps: the learning rate \(1000\) is too large; "
    ):
        amortised.fit(w, encoder, X, steps=5, chunk=5, learning_rate=1e3, **QUIET)


# Encoders.


@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (28, 28)])
def test_the_convolutional_encoder_takes_pictures_of_any_size(shape):
    encoder = encoders.CNN(shape, 3, key=KEY)
    q = encoder(jnp.ones(shape[0] * shape[1]))
    assert q.m.shape == (3,) and encoder.data_dim == shape[0] * shape[1]


def test_a_square_of_four_pixels_becomes_one(dtype):
    key_a, key_k = jax.random.split(KEY)
    a, kernel = jax.random.normal(key_a, (5, 4, 2), dtype), jax.random.normal(key_k, (2, 2, 2, 3), dtype)
    out = halve_and_convolve(a, kernel)
    whole = jnp.zeros((6, 4, 2), dtype).at[:5].set(a)
    plain = sum(
        jnp.einsum("yxc,ce->yxe", whole[i::2, j::2], kernel[i, j], precision="highest")
        for i in range(2)
        for j in range(2)
    )
    np.testing.assert_allclose(out, plain, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"encoder": encoders.MLP(64, 3, key=KEY)},
            r"encoder.latent_dim must be the decoder's, .* = 2, got 3",
        ),
        ({"encoder": encoders.MLP(60, 2, key=KEY)}, r"encoder.data_dim must be the decoder's, w.data_dim = 64, got 60"),
        ({"encoder": "q"}, "encoder must have latent_dim, data_dim and q = encoder"),
        ({"M": 0}, "M must be an integer of at least 1, got 0"),
        ({"steps": 0}, "steps must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"key": jax.random.PRNGKey(0)}, "key must be a typed key"),
        ({"X": jnp.full((3, 64), jnp.nan)}, "X must be finite"),
        ({"X": jnp.ones((3, 60))}, "X must be a floating-point array of shape"),
    ],
)
@pytest.mark.usefixtures("entry_errors")
def test_bad_input_is_named(images, trained, change, says):
    given = {"w": trained.w, "encoder": trained.encoder, "X": images, "steps": 5, **QUIET} | change
    with pytest.raises(ValueError, match=says):
        amortised.fit(given.pop("w"), given.pop("encoder"), given.pop("X"), **given)


@pytest.mark.usefixtures("entry_errors")
def test_an_answer_that_is_no_gaussian_of_the_right_size_is_named(trained):
    class Wrong(encoders.MLP):
        def __call__(self, x):
            return super().__call__(x).m

    with pytest.raises(ValueError, match=r"must be a posteriors\.Gaussian over t of shape"):
        amortised.lower_bound(trained.w, Wrong(64, 2, key=KEY), jnp.ones(64), key=KEY)
    with pytest.raises(ValueError, match="image_shape must be a tuple of 2 positive integers"):
        encoders.CNN((8, 8, 1), 2, key=KEY)
    with pytest.raises(ValueError, match=r"log_s must be a floating-point array of shape \[2\]"):
        encoders.Linear(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3))


# All latent dimensions at once.


def test_a_padded_model_is_the_model_of_fewer_latents(dtype):
    w = network(dtype)
    encoder, X = mlp_encoder(dtype, w), data_of(w, 4)
    stacked = padded(w, encoder, (1, 2))
    one_w, one_encoder = jax.tree.map(lambda a: a[0], stacked)

    def first(t):
        return w(jnp.concatenate([t, jnp.zeros(1, dtype)]))

    class One:
        latent_dim, data_dim = 1, w.data_dim

        def __call__(self, t):
            return first(t)

    alone = quadrature.log_p_x(One(), X, quadrature.grid(1, 400))
    np.testing.assert_allclose(quadrature.log_p_x(one_w, X, quadrature.grid(2, 400)), alone, rtol=1e-4, atol=1e-4)
    q = one_encoder(X[0])
    assert (bound.kl_to_prior(q)[1] == 0) and bound.kl_to_prior(q)[0] > 0
    whole = jax.tree.map(lambda a: a[1], stacked)
    assert (whole[1](X[0]).m == encoder(X[0]).m).all() and (whole[0](q.m)[0] == w(q.m)[0]).all()


def test_models_trained_side_by_side_are_those_trained_alone(images):
    w = decoders.start_at(decoders.MLP(3, 64, width=16, key=KEY), images)
    encoder = encoders.MLP(64, 3, width=16, key=KEY)
    found = amortised.fit_every_dimension(w, encoder, images, (1, 3), steps=60, batch_size=32, **QUIET)
    assert found.trace.shape == (60,)
    for d in (1, 3):
        begin = jax.tree.map(lambda a: a[0], padded(w, encoder, (d,)))
        alone = amortised.fit(*begin, images, steps=60, batch_size=32, **QUIET)
        got_w, got_encoder = found.model(d)
        assert got_w.latent_dim == got_encoder.latent_dim == d
        got = jax.tree.leaves((got_w.w, got_encoder.encoder))
        for a, b in zip(got, jax.tree.leaves((alone.w.w, alone.encoder.encoder)), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-3)  # Adam divides by √v: rounding is felt in the third digit
        q = alone.encoder(images[0])
        assert (bound.kl_to_prior(q)[d:] == 0).all()
        np.testing.assert_allclose(got_encoder(images[0]).m, q.m[:d], atol=0.02)
        np.testing.assert_allclose(got_w(q.m[:d])[0], alone.w(q.m)[0], atol=0.02)
    with pytest.raises(ValueError, match=r"d must be one of \(1, 3\), got 2"):
        found.model(2)


@pytest.mark.parametrize("dims", [(), (0,), (1, 1), (1, 4), 3])
@pytest.mark.usefixtures("entry_errors")
def test_dims_that_cannot_be_are_named(images, dims):
    w = decoders.MLP(3, 64, width=16, key=KEY)
    with pytest.raises(ValueError, match="dims"):
        amortised.fit_every_dimension(w, encoders.MLP(64, 3, width=16, key=KEY), images, dims, steps=5, **QUIET)


# The ladder.


def test_the_ladder_of_a_straight_model_is_known_in_closed_form(dtype):
    w = linear(dtype)
    X = data_of(w, 8)
    posterior = ppca.posterior(w, X[0])
    V = jnp.linalg.solve(
        jnp.eye(2, dtype=dtype) + w.W.T @ (w.W / w.sigma[:, None] ** 2), (w.W / w.sigma[:, None] ** 2).T
    )
    s = variational.cavi_linear(w, X[0]).q.log_s
    encoder = encoders.Linear(V, w.b, s)
    np.testing.assert_allclose(encoder(X[0]).m, posterior.m, rtol=1e-3, atol=1e-3)
    ladder = amortised.gap_ladder(w, encoder, X, n=200, **QUIET)
    gap = ladder.gap
    costs = variational.factorised_gap(w)
    assert list(ladder.value) == ["log p(x|w)", "any Gaussian", "free product", "Gaussian product", "encoder"]
    # The encoder is the optimum itself; what was fitted ends within the noise of its last steps.
    np.testing.assert_allclose(gap["encoder"], costs, atol=1e-3)
    np.testing.assert_allclose(gap["free product"], costs, atol=1e-3)
    np.testing.assert_allclose(gap["Gaussian product"], costs, atol=5e-3)
    np.testing.assert_allclose(gap["any Gaussian"], 0, atol=5e-3)
    assert all((error < 1e-3).all() for error in ladder.error.values())
    assert ladder.evaluations["free product"] == 200**2 and ladder.evaluations["encoder"] == 0
    assert list(ladder.evaluations) == list(gap) and ladder.evaluations["any Gaussian"] > 0


@pytest.mark.weekly
def test_no_rung_of_a_networks_ladder_is_above_one_that_has_more_room(trained, images):
    ladder = amortised.gap_ladder(trained.w, trained.encoder, images[:20], **QUIET)
    gap = ladder.gap
    assert all((g > -1e-3).all() for g in gap.values()), "no bound above the truth"
    for more, less in (
        ("free product", "Gaussian product"),
        ("any Gaussian", "encoder"),
        ("Gaussian product", "encoder"),
    ):
        assert (gap[less] - gap[more] > -0.02).all(), f"{more} has more room than {less}"
    assert gap["encoder"].mean() > gap["Gaussian product"].mean() + 0.05
    assert all(name in ladder.q for name in gap)


@pytest.mark.weekly
def test_where_there_is_no_quadrature_the_ladder_stands_on_draws():
    with jax.enable_x64(True):
        key_w, key_x = jax.random.split(KEY)
        w = decoders.Linear(jax.random.normal(key_w, (8, 4)), jnp.zeros(8), jnp.log(jnp.asarray(0.5)))
        X = model.sample(w, 6, key=key_x)[1]
        encoder = encoders.Linear(jnp.zeros((4, 8)), jnp.zeros(8), jnp.zeros(4))
        ladder = amortised.gap_ladder(w, encoder, X, **QUIET)
        truth = jax.vmap(ppca.log_p_x, in_axes=(None, 0))(w, X)
        assert "free product" not in ladder.value
        assert (jnp.abs(ladder.value["log p(x|w)"] - truth) < 5 * ladder.error["log p(x|w)"] + 1e-3).all()
        assert (jnp.abs(ladder.gap["Gaussian product"] - variational.factorised_gap(w)) < 0.1).all()
        assert (ladder.gap["encoder"] > 1).all()


def test_ctrl_c_in_a_ladders_climb_ends_it_since_half_a_climb_would_pass_for_a_gap(monkeypatch):
    w = network(jnp.float32)
    monkeypatch.setattr(amortised.ladder, "fit_q", lambda *_, **__: SimpleNamespace(interrupted=True, q=None))
    with pytest.raises(KeyboardInterrupt):
        amortised.gap_ladder(w, mlp_encoder(jnp.float32, w), data_of(w, 3), **QUIET)
