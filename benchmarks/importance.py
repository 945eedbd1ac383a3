"""log 1/M Σ_s p(x,t_s|w)/q(t_s), M = 5000 draws, d = 20: held-out images of MNIST, N of them in a turn.

The VAE is that of the row `vae`, trained once and kept in a file: an MLP 20-400-D with one σ, and q(t|x) from its
encoder. Everyone gets w and q as numbers and gives log p(x_i|w)'s bound for each of the images (digits where there is
no MNIST), in float32. 10,000 of them take as much longer as there are more, since nobody's memory grows with N.
PyTorch does N_TORCH of them in a turn, without gradients and as one writes it: draws for CHUNK images at a time, by
nn.Sequential and its distributions, and a logsumexp; CHUNK is the best of 1, 2, 5, 10.

Accuracy: two estimates of an image's bound differ by their Monte Carlo errors, so that over all images the mean of the
differences of the same images must be 0 within ERRORS of its own standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import vae
from benchmarks.floors import Products
from cmog_lib import amortised, bound, posteriors

TITLE, UNIT, OURS = "Importance bound: M = 5000, d = 20", "images", "cmog_lib"
FLOOR = "the products of the decoder, M for each image, onto what its last layer spans"
N, M = 500, 5000
TRAINING = 5000  # steps
N_TORCH, CHUNK = 80, 1  # images in a turn; images at a time, in PyTorch
ERRORS = 4.0


class Problem(NamedTuple):
    """w: the decoder. q: [N, d], of each image. X: [N, D]."""

    w: Any
    q: Any
    X: Any


def prepare(folder: Path) -> None:
    """Trains the VAE, once, in half a minute."""
    X, held_out, _ = vae.load(folder)
    path = folder / "problem.npz"
    if path.exists() and np.load(path)["X"].shape[1] == X.shape[1]:
        return
    trained = amortised.fit(*vae.modules(X), X, steps=TRAINING, learning_rate=vae.RATE, key=jax.random.key(1))
    q = amortised.encoded(trained.encoder, held_out[:N])
    np.savez(path, *jax.tree.leaves(trained.w), X=held_out[:N], m=q.m, log_s=q.log_s)


def load(folder: Path) -> Problem:
    """The same numbers in every process."""
    found = {name: jnp.asarray(value) for name, value in np.load(folder / "problem.npz").items()}
    X, m, log_s = (found.pop(name) for name in ("X", "m", "log_s"))
    w = jax.tree.unflatten(jax.tree.structure(vae.modules(X)[0]), list(found.values()))
    return Problem(w, posteriors.Gaussian(m, log_s), X)


# The contenders: each gives the bound for every image, [N].


def ours(problem: Problem) -> Callable[[int], Any]:
    """`bound.importance`."""

    def answer(seed: int) -> Any:
        w, q, X = problem
        return bound.importance(w, q, X, M=M, key=jax.random.key(seed))

    return answer


def torch_eager(problem: Problem) -> Callable[[int], Any]:
    """PyTorch's modules and distributions, without gradients."""
    import torch
    from torch import nn
    from torch.distributions import Normal

    def tensor(value: Any) -> Any:
        return torch.tensor(np.asarray(value))

    X, m, s = (tensor(value[:N_TORCH]) for value in (problem.X, problem.q.m, problem.q.s))
    _, ((A, a), (B, b)), _ = vae.plain(problem.w, amortised.encoders.MLP(X.shape[1], m.shape[1], key=jax.random.key(0)))
    decoder = nn.Sequential(nn.Linear(*A.shape), nn.GELU("tanh"), nn.Linear(*B.shape))
    with torch.no_grad():
        for parameter, value in zip(decoder.parameters(), (A.T, a, B.T, b), strict=True):
            parameter.copy_(tensor(value))
    sigma = tensor(problem.w(problem.q.m[0])[1][0])

    def answer(seed: int) -> Any:
        torch.manual_seed(seed)
        with torch.no_grad():
            bounds = []
            for x, mean, deviation in zip(X.split(CHUNK), m.split(CHUNK), s.split(CHUNK), strict=True):
                q = Normal(mean, deviation)
                t = q.sample((M,))
                log_p_x_given_t = Normal(decoder(t), sigma).log_prob(x).sum(dim=-1)
                log_weight = log_p_x_given_t + (Normal(0.0, 1.0).log_prob(t) - q.log_prob(t)).sum(dim=-1)
                bounds.append(log_weight.logsumexp(dim=0) - math.log(M))
            return torch.cat(bounds).numpy()

    return answer


CONTENDERS = {OURS: ours, "PyTorch, no_grad": torch_eager}


def floor(_: Problem) -> Callable[[int], int]:
    """t ↦ A t, and onto the space that the last layer spans, whose dimension is the network's width."""
    products = Products((M, vae.D_LATENT, vae.WIDTH), (M, vae.WIDTH, vae.WIDTH))
    return lambda _: products(N_TORCH)


# What the bounds are worth.


def judged(bounds: Any) -> dict[str, Any]:
    """How many images, and the bound for each, in nats."""
    return {"value": len(bounds), "bounds": np.asarray(bounds, np.float64).tolist()}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """The mean bound, and whether its difference from ours is Monte Carlo error."""
    ours, found = np.asarray(answers[OURS]["bounds"]), {}
    for name, answer in answers.items():
        theirs = np.asarray(answer["bounds"])
        difference = theirs - ours[: len(theirs)]
        error = difference.std() / np.sqrt(len(difference))
        agrees = bool(abs(difference.mean()) <= ERRORS * error)
        said = "" if name == OURS else f" on {len(theirs)} images, difference {difference.mean():.2f} ± {error:.2f}"
        found[name] = (f"{theirs.mean():.2f} nats{said}", agrees)
    return found
