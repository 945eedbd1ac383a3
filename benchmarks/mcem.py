"""Monte Carlo EM by Kingma and Welling's schedule: ten leapfrogs, a draw for each datum, five updates of w, and again.

N = 1000 images of MNIST (or digits), d = 3, an MLP decoder 3-200-200-D with one σ, in float32; the chains go on from
iteration to iteration. Both contenders do STEPS iterations from the same w. An iteration has the same budget for both:
one trajectory of LEAPFROGS leapfrogs for each datum, and UPDATES steps of Adam on all data, with the same rate. Ours
pays for more, all of it timed: modes and 20 trajectories of warm-up before the first iteration, and in each iteration
the width of every posterior. The peer's step size is adapted on the way. Ours computes a leapfrog in the space that the
last layer spans, of at most 200 dimensions; the peer computes it in all D.

The peer is built as one would: BlackJAX's HMC vmapped over the data, its step pulled towards an acceptance of 0.9, Adam
from optax, an iteration as one compiled function. Ours is `mcmc.fit`, also one compiled function for each iteration;
its Adam begins anew in each M-step.

Accuracy: log p(X|w) of the last w on the training data, by importance sampling around the modes, the same for both; a
ratio is given where ours is no worse than the peer's by more than SLACK nats per datum.
Source: Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix D and E.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.data import images
from benchmarks.floors import Products
from cmog_lib import bound, decoders, mcmc, model

TITLE, UNIT, OURS = "Monte Carlo EM: 1000 images, d = 3", "iterations", "cmog_lib"
FLOOR = "the products of the decoder in leapfrogs and updates"
N, D_LATENT, WIDTH = 1000, 3, 200
STEPS, LEAPFROGS, UPDATES = 100, 10, 5
RATE = 1e-3  # Adam's
SCHEDULE = {
    "M": 1,
    "target": 0.9,
    "leapfrogs": LEAPFROGS,
    "max_steps": UPDATES,
    "learning_rate": RATE,
    "progress": False,
}
SLACK = 0.5  # nats per datum
DRAWS = 1000  # of importance sampling


class Problem(NamedTuple):
    """w: the decoder that EM begins with. X: [N, D]."""

    w: Any
    X: Any


class Ended(NamedTuple):
    """What a contender gives: the last decoder, and the data, which the judge needs too."""

    w: Any
    X: Any


def prepare(folder: Path) -> None:
    """Keeps the images, so that all have the same."""
    np.savez(folder / "problem.npz", X=images()[:N])


def load(folder: Path) -> Problem:
    """The same in every process."""
    X = jnp.asarray(np.load(folder / "problem.npz")["X"])
    w = decoders.MLP(D_LATENT, X.shape[1], width=WIDTH, depth=2, constant_sigma=True, key=jax.random.key(0))
    return Problem(decoders.start_at(w, X), X)


def ours(problem: Problem) -> Callable[[int], Ended]:
    """Chains from the modes, kept, in units of today's posteriors; Adam."""
    return lambda seed: Ended(path(problem, seed, STEPS)[-1], problem.X)


def path(problem: Problem, seed: int, steps: int) -> tuple[Any, ...]:
    """Our decoders, from the first one on: only the first E-step has a warm-up."""
    w, X = problem
    key_first, key = jax.random.split(jax.random.key(seed))
    begun = mcmc.fit(w, X, steps=1, warm_up=20, key=key_first, **SCHEDULE)
    return w, *mcmc.fit(begun.w, X, begun.q, steps=steps - 1, warm_up=0, key=key, **SCHEDULE).path


def mean_log_p(w: Any, data: Any, key: Any) -> Any:
    """1/N Σ_i log p(x_i|t_i,w), the part of log p(X,T|w) that w is in."""
    return jax.vmap(model.log_p_x_given_t, in_axes=(None, 0, 0))(w, *data).mean()


def peer(problem: Problem) -> Callable[[int], Ended]:
    """BlackJAX's HMC and optax's Adam."""
    import blackjax
    import optax

    optimiser = optax.adam(RATE)

    @eqx.filter_jit
    def iteration(w: Any, state: Any, T: Any, log_step: Any, X: Any, key: Any) -> Any:
        def move(x: Any, t: Any, log_step: Any, key: Any) -> Any:
            kernel = blackjax.hmc(lambda t: model.log_p_xt(w, x, t), jnp.exp(log_step), jnp.ones(D_LATENT), LEAPFROGS)
            moved, info = kernel.step(key, kernel.init(t))
            return moved.position, log_step + 0.1 * (info.acceptance_rate - 0.9)

        def update(carry: Any, _: None) -> Any:
            parameters, state = carry
            gradient = jax.grad(lambda w: mean_log_p(eqx.combine(w, rest), (X, T), key))(parameters)
            updates, state = optimiser.update(jax.tree.map(jnp.negative, gradient), state)
            return (optax.apply_updates(parameters, updates), state), None

        T, log_step = jax.vmap(move)(X, T, log_step, jax.random.split(key, len(X)))
        parameters, rest = eqx.partition(w, eqx.is_inexact_array)
        (parameters, state), _ = jax.lax.scan(update, (parameters, state), length=UPDATES)
        return eqx.combine(parameters, rest), state, T, log_step

    def answer(seed: int) -> Ended:
        w, X = problem
        key_start, *keys = jax.random.split(jax.random.key(seed), STEPS + 1)
        T, log_step = jax.random.normal(key_start, (len(X), D_LATENT)), jnp.full(len(X), jnp.log(0.05))
        state = optimiser.init(eqx.filter(w, eqx.is_inexact_array))
        for key in keys:
            w, state, T, log_step = iteration(w, state, T, log_step, X, key)
        return Ended(w, X)

    return answer


CONTENDERS = {OURS: ours, "BlackJAX and optax": peer}


def floor(problem: Problem) -> Callable[[int], int]:
    """A leapfrog goes forward and back through two layers of WIDTH, the last one onto what it spans; an update forward,
    to the weights and back through one of WIDTH and one onto the pixels. The layer from t is small beside them."""
    D = problem.X.shape[1]
    inner, last, back = (N, WIDTH, WIDTH), (N, WIDTH, D), (N, D, WIDTH)
    leapfrog, update = [inner] * 4, [inner, last, back, inner, (WIDTH, N, WIDTH), (WIDTH, N, D)]
    leapfrogs, updates = Products(*leapfrog), Products(*update)

    def answer(_: int) -> int:
        leapfrogs(LEAPFROGS * STEPS)
        updates(UPDATES * STEPS)
        return STEPS

    return answer


def judged(ended: Ended) -> dict[str, Any]:
    """The iterations done, and 1/N log p(X|w) where they ended, in nats."""
    key_mode, key = jax.random.split(jax.random.key(0))
    q = mcmc.laplace(ended.w, ended.X, key=key_mode)
    log_p_x = bound.importance(ended.w, q, ended.X, M=DRAWS, key=key)
    return {"value": STEPS, "log_p_x": float(log_p_x.mean())}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """1/N log p(X|w), and whether ours is as good."""
    ours = answers[OURS]["log_p_x"]
    return {name: (f"{a['log_p_x']:.1f} nats", ours > a["log_p_x"] - SLACK) for name, a in answers.items()}
