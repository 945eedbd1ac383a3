"""t ~ p(t|x_i,w) for 500 images at d = 10: the fewest effective draws that any of the 5000 latents gets in a second.

Everyone samples the same posteriors: images of MNIST (digits where there is none), and an MLP decoder 10-200-200-D with
one σ, trained once by the bound L(w, q) with an encoder and kept in a file. Everyone begins at draws from that encoder,
makes M draws of C chains for each image in float32, and pays for the warm-up, in which all learn their step sizes and
inverse masses. The peers do so by their own windows, and get the model as one writes it. BlackJAX's HMC leaves more
open: the best of 2, 3, 4 and 8 leapfrogs, 200 to 500 steps of warm-up, a diagonal or a full inverse mass; the NUTS
have 200 steps, a fifth of their default, and a diagonal, untuned. Ours has its defaults, but for a shorter warm-up.

Effective draws of a latent are the fewer of those for its mean and those for its mean square, by one function for all:
chains whose draws turn round the mean tell the mean better than independent ones, at the expense of the square.
Accuracy: both moments of all latents agree with those of the other contenders, in units of their Monte Carlo errors.
No sampler here crosses from mode to mode, and the minimum would tell how seldom; so the images are the first 500 for
which a search from many places finds one mode that matters. It can miss some: hence ALLOWED.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.data import images
from cmog_lib import decoders, mcmc, model, optimise, posteriors
from cmog_lib.decoders.layers import Dense
from cmog_lib.engine.mode import scale_at

TITLE, UNIT, OURS = "HMC: 500 images, d = 10", "min ESS", "cmog_lib HMC"
N, D_LATENT, WIDTH = 500, 10, 200
C, M = 2, 500
TRAINING = 5000  # steps
SEARCHES, NEGLIGIBLE, FAR = 16, 15.0, 10.0  # climbs; nats below the highest mode; deviations
ALLOWED, ERRORS = 0.02, 5.0  # share of images that may differ, and the standard errors from which one does


class Problem(NamedTuple):
    """w: the decoder. X: [N, D]. m, s: [N, d], the encoder's mean and deviation, from which everyone begins."""

    w: Any
    X: Any
    m: Any
    s: Any

    def start(self, key: Any) -> Any:
        """[C, N, d], draws of q(t|x)."""
        return self.m[None] + self.s[None] * jax.random.normal(key, (C, *self.m.shape))


# The problem.


def prepare(folder: Path) -> None:
    """Trains a decoder and an encoder and chooses the images, once, in a minute."""
    X, path = images(), folder / "problem.npz"
    if path.exists() and np.load(path)["X"].shape[1] == X.shape[1]:
        return
    key_w, key_q, key_ascent, key = jax.random.split(jax.random.key(0), 4)
    w = decoders.start_at(decoder(X.shape[1], key_w), X)
    encoder = Dense((X.shape[1], WIDTH, WIDTH, 2 * D_LATENT), key=key_q)
    w, encoder = optimise.ascend(mean_bound, (w, encoder), X, steps=TRAINING, key=key_ascent).w
    X = X[: 2 * N]
    m, log_s = encoded(encoder, X)
    chosen = np.flatnonzero(one_mode(w, X, m, key))[:N]
    np.savez(path, *jax.tree.leaves(w), X=X[chosen], m=m[chosen], s=jnp.exp(log_s)[chosen])


def one_mode(w: Any, X: Any, m: Any, key: Any) -> Any:
    """Whether, of all modes that climbs from anywhere find, those that hold any mass to speak of are near m, [N]."""
    found = [mcmc.laplace(w, X, key=key) for key in jax.random.split(key, SEARCHES)]
    # By Laplace's rule for the mass in a mode: its height times its width.
    mass = [
        jax.vmap(model.log_p_xt, in_axes=(None, 0, 0))(w, X, q.m)
        + jnp.log(jnp.diagonal(q.L, axis1=1, axis2=2)).sum(axis=1)
        for q in found
    ]
    matters = jnp.stack(mass) > jnp.stack(mass).max(axis=0)[None] - NEGLIGIBLE
    away = jnp.stack([jnp.linalg.norm(jnp.linalg.solve(q.L, (q.m - m)[..., None])[..., 0], axis=1) for q in found])
    return np.asarray(~(matters & (away > FAR)).any(axis=0))


def decoder(D: int, key: Any) -> Any:
    """t ↦ μ(t) by 10-200-200-D, and one σ."""
    return decoders.MLP(D_LATENT, D, width=WIDTH, depth=2, constant_sigma=True, key=key)


def mean_bound(both: Any, X: Any, key: Any) -> Any:
    """1/B Σ_i L(w, q_i), q_i = N(m(x_i), diag s²(x_i)), by one draw each."""
    key_batch, key_t = jax.random.split(key)
    x = X[jax.random.randint(key_batch, (128,), 0, len(X))]
    m, log_s = encoded(both[1], x)
    t = m + jnp.exp(log_s) * jax.random.normal(key_t, m.shape)
    kl = 0.5 * jnp.sum(m**2 + jnp.exp(2 * log_s) - 1 - 2 * log_s, axis=1)
    return (jax.vmap(model.log_p_x_given_t, in_axes=(None, 0, 0))(both[0], x, t) - kl).mean()


def encoded(encoder: Any, X: Any) -> Any:
    """m and log s of q(t|x) for every x."""
    return jnp.split(jax.vmap(encoder)(X), 2, axis=1)


def load(folder: Path) -> Problem:
    """The same numbers in every process."""
    found = {name: jnp.asarray(value) for name, value in np.load(folder / "problem.npz").items()}
    X, m, s = (found.pop(name) for name in "Xms")
    like = jax.tree.structure(decoder(X.shape[1], jax.random.key(0)))
    return Problem(jax.tree.unflatten(like, list(found.values())), X, m, s)


# The contenders: each gives the draws, [C, M, N, d].


def ours(problem: Problem) -> Callable[[int], Any]:
    """In units of the posterior's width, as the decoder's slopes at the encoder's mean give it."""

    def answer(seed: int) -> Any:
        w, X, m, _ = problem
        start = posteriors.FullGaussian(m, scale_at(w, m))
        with warnings.catch_warnings():  # of an image with two modes after all
            warnings.simplefilter("ignore", RuntimeWarning)
            return mcmc.hmc(w, X, start, M=M, chains=C, warm_up=40, key=jax.random.key(seed)).t

    return answer


def blackjax_nuts(problem: Problem) -> Callable[[int], Any]:
    """Window adaptation and NUTS, vmapped over images and chains."""
    import blackjax

    return _blackjax(problem, blackjax.nuts, 200)


def blackjax_hmc(problem: Problem) -> Callable[[int], Any]:
    """Window adaptation and HMC with trajectories of fixed length, vmapped over images and chains."""
    import blackjax

    return _blackjax(problem, blackjax.hmc, 400, num_integration_steps=3, is_mass_matrix_diagonal=False)


def _blackjax(problem: Problem, algorithm: Any, warm_up: int, **options: Any) -> Callable[[int], Any]:
    import blackjax

    def chain(w: Any, x: Any, t: Any, key: Any) -> Any:
        def log_p(t: Any) -> Any:
            return model.log_p_xt(w, x, t)

        def move(state: Any, key: Any) -> Any:
            state, _ = kernel.step(key, state)
            return state, state.position

        key_warm, key_draw = jax.random.split(key)
        quiet = blackjax.adaptation.base.get_filter_adapt_info_fn()
        adapting = blackjax.window_adaptation(algorithm, log_p, adaptation_info_fn=quiet, **options)
        (state, parameters), _ = adapting.run(key_warm, t, warm_up)
        kernel = algorithm(log_p, **parameters)
        return jax.lax.scan(move, state, jax.random.split(key_draw, M))[1]

    return _for_all(chain, problem)


def numpyro_vmapped(problem: Problem) -> Callable[[int], Any]:
    """NumPyro's NUTS as a function, vmapped over images and chains."""
    return _numpyro(problem, 200)


def _numpyro(problem: Problem, warm_up: int) -> Callable[[int], Any]:
    from numpyro.infer.hmc import hmc

    init, sample = hmc(potential_fn_gen=lambda w, x: lambda t: -model.log_p_xt(w, x, t), algo="NUTS")

    def chain(w: Any, x: Any, t: Any, key: Any) -> Any:
        def move(state: Any, _: None) -> Any:
            state = sample(state, (w, x), {})
            return state, state.z

        state = init(t, warm_up, model_args=(w, x), rng_key=key)
        state, _ = jax.lax.scan(lambda state, _: (move(state, None)[0], None), state, length=warm_up)
        return jax.lax.scan(move, state, length=M)[1]

    return _for_all(chain, problem)


def _for_all(chain: Callable[..., Any], problem: Problem) -> Callable[[int], Any]:
    over_data = jax.vmap(chain, in_axes=(None, 0, 0, 0))
    over_chains = jax.jit(jax.vmap(over_data, in_axes=(None, None, 0, 0)))

    def answer(seed: int) -> Any:
        key_start, key = jax.random.split(jax.random.key(seed))
        keys = jax.random.split(key, (C, len(problem.X)))
        return jnp.moveaxis(over_chains(problem.w, problem.X, problem.start(key_start), keys), 2, 1)

    return answer


def numpyro_joint(problem: Problem, warm_up: int = 200) -> Callable[[int], Any]:
    """The model as one writes it down, all 5000 latents in one NUTS."""
    import numpyro
    from numpyro import distributions as dist
    from numpyro.infer import MCMC, NUTS

    def joint(w: Any, X: Any) -> None:
        with numpyro.plate("data", len(X)):
            t = numpyro.sample("t", dist.Normal(jnp.zeros(w.latent_dim), 1).to_event(1))
            mu, sigma = jax.vmap(lambda t: w(t))(t)
            numpyro.sample("x", dist.Normal(mu, sigma).to_event(1), obs=X)

    sampler = MCMC(NUTS(joint), num_warmup=warm_up, num_samples=M, num_chains=1, progress_bar=False)

    def answer(seed: int) -> Any:
        key_start, key = jax.random.split(jax.random.key(seed))
        sampler.run(key, problem.w, problem.X, init_params={"t": problem.start(key_start)[0]})
        return sampler.get_samples(group_by_chain=True)["t"]

    return answer


CONTENDERS = {
    OURS: ours,
    "BlackJAX HMC": blackjax_hmc,
    "BlackJAX NUTS": blackjax_nuts,
    "NumPyro NUTS, vmapped": numpyro_vmapped,
    "NumPyro NUTS, joint": numpyro_joint,
}


# What the draws are worth.


def judged(t: Any) -> dict[str, Any]:
    """The fewest effective draws of any latent; both moments of all latents, [2, N, d], and their standard errors."""
    t = np.asarray(t, np.float64)
    powers = np.stack([t, (t - t.mean(axis=(0, 1))) ** 2], axis=2)
    effective = mcmc.effective_sample_size(powers)
    moments, errors = powers.mean(axis=(0, 1)), powers.std(axis=(0, 1)) / np.sqrt(effective)
    return {"value": float(effective.min()), "moments": moments.tolist(), "errors": errors.tolist()}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """For how many images a mean or a mean square is not what ours is."""
    moments, errors = (np.asarray(answers[OURS][what]) for what in ("moments", "errors"))
    found = {OURS: ("", True)}
    for name in answers.keys() - {OURS}:
        error = np.hypot(errors, np.asarray(answers[name]["errors"]))
        differs = (np.abs(moments - np.asarray(answers[name]["moments"])) > ERRORS * error).any(axis=(0, 2))
        found[name] = (f"moments differ for {differs.sum()} of {differs.size} images", differs.mean() <= ALLOWED)
    return found
