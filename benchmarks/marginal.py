"""log p(x_i|w) as a sum over 64² = 4096 nodes of a grid, for 2000 images of MNIST, by a decoder 2-128-128-D.

The decoder, with one σ, was trained once with an encoder and is kept in a file; digits where there is no MNIST.
Everyone has the same w, X and nodes, in float64: in float32 a sum of 784 squares that comes to a thousand nats is not
right to ERROR by any formula (ours, which multiplies them out, is off by 7e-4, the sum as it is read by 1e-4).
The peers are the formula as it is read: in JAX the decoder once for each node, then `vmap` over the data of a sum over
pixels and a logsumexp over nodes; in PyTorch the same by broadcasting, distributions and all, CHUNK images at a time,
so that memory stays bounded. An image costs what it costs, however many: who takes long does fewer in a turn.

Accuracy: the largest difference, over the images that were done, from the sum as it is read, done in JAX beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.data import images
from benchmarks.floors import Products
from cmog_lib import amortised, decoders, model, quadrature

TITLE, UNIT, OURS = "Exact marginal: 2000 images, 4096 nodes", "images", "cmog_lib"
DTYPE = "float64"
FLOOR = "one product of images and nodes, in the space that the last layer spans"
N, SIDE, HALF_WIDTH = 2000, 64, 4.0
TRAINING = 3000  # steps
N_VMAP, N_TORCH, CHUNK = 100, 20, 2  # images in a turn; at a time
ERROR = 1e-4  # nats


class Problem(NamedTuple):
    """w: the decoder. X: [N, D]. truth: [N], the sum in float64."""

    w: Any
    X: Any
    truth: Any


class Summed(NamedTuple):
    """What a contender gives: log p(x_i|w) for the first so many images; and the truth, which the judge needs."""

    log_p_x: Any
    truth: Any


def nodes() -> quadrature.Nodes:
    """The grid."""
    return quadrature.grid(2, SIDE, HALF_WIDTH)


def decoder(D: int) -> Any:
    """t ↦ μ(t), σ(t)."""
    return decoders.MLP(2, D, constant_sigma=True, key=jax.random.key(0))


def prepare(folder: Path) -> None:
    """Trains the decoder, once, in half a minute, and adds up in float64."""
    X, path = images(), folder / "problem.npz"
    if path.exists() and np.load(path)["X"].shape[1] == X.shape[1]:
        return
    D = X.shape[1]
    encoder = amortised.encoders.MLP(D, 2, key=jax.random.key(1))
    w = amortised.fit(
        decoders.start_at(decoder(D), X), encoder, X, steps=TRAINING, key=jax.random.key(2), progress=False
    ).w
    X = X[:N]
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), (w, X, nodes()))
        truth = by_definition(jax.lax.map)(*double)
    np.savez(path, *jax.tree.leaves(w), X=X, truth=truth)


def load(folder: Path) -> Problem:
    """The same numbers in every process, and all of them in float64."""
    jax.config.update("jax_enable_x64", True)
    found = dict(np.load(folder / "problem.npz"))
    truth, X = found.pop("truth"), jnp.asarray(found.pop("X"), float)
    like = jax.tree.structure(decoder(X.shape[1]))
    return Problem(jax.tree.unflatten(like, [jnp.asarray(leaf, float) for leaf in found.values()]), X, truth)


# The contenders: each gives log p(x_i|w) of the first so many images.


def ours(problem: Problem) -> Callable[[int], Summed]:
    """`quadrature.log_p_x`."""
    grid = nodes()
    return lambda _: Summed(quadrature.log_p_x(problem.w, problem.X, grid), problem.truth)


def vmapped(problem: Problem) -> Callable[[int], Summed]:
    """One datum's sum under `jit` and `vmap`."""

    log_p_x = by_definition(lambda f, X: jax.vmap(f)(X))
    X, grid = problem.X[:N_VMAP], nodes()
    return lambda _: Summed(log_p_x(problem.w, X, grid), problem.truth)


def by_definition(for_all: Callable[..., Any]) -> Callable[..., Any]:
    """log Σ_s exp(log_weight_s) Π_j N(x_j; μ_j(t_s), σ_j²(t_s)) as it is read, for all data by `for_all(f, X)`."""

    @jax.jit
    def log_p_x(w: Any, X: Any, nodes: Any) -> Any:
        mu, sigma = jax.vmap(w)(nodes.t)
        log_sigma = jnp.sum(jnp.log(sigma) + 0.5 * model.LOG_2PI, axis=1)

        def of_one(x: Any) -> Any:
            log_p = -0.5 * jnp.sum(((x[None] - mu) / sigma) ** 2, axis=1) - log_sigma
            return jax.nn.logsumexp(log_p + nodes.log_weight)

        return for_all(of_one, X)

    return log_p_x


def torch_broadcast(problem: Problem) -> Callable[[int], Summed]:
    """PyTorch's distributions, [images, nodes, pixels] at a time."""
    import torch

    grid = nodes()
    # Decoded for it, and for nothing: 4096 times is little beside 4096 times an image.
    tables = (*jax.vmap(problem.w)(grid.t), grid.log_weight, problem.X[:N_TORCH])
    mu, sigma, log_weight, X = (torch.tensor(np.asarray(table)) for table in tables)

    def answer(_: int) -> Summed:
        with torch.no_grad():
            p = torch.distributions.Normal(mu, sigma)
            found = [(p.log_prob(x[:, None]).sum(dim=2) + log_weight).logsumexp(dim=1) for x in X.split(CHUNK)]
            return Summed(torch.cat(found).numpy(), problem.truth)

    return answer


CONTENDERS = {OURS: ours, "JAX, vmap over data": vmapped, "PyTorch, broadcast": torch_broadcast}


def floor(problem: Problem) -> Callable[[int], int]:
    """[N, width] times [width, nodes], in float64."""
    product = Products((N, problem.w.nn1.layers[-1].weight.shape[1], SIDE**2), dtype="float64")
    return lambda _: N * product(1)


# What the sums are worth.


def judged(summed: Summed) -> dict[str, Any]:
    """How many images, and the largest error, in nats."""
    found = np.asarray(summed.log_p_x, np.float64)
    return {"value": len(found), "error": float(np.abs(found - summed.truth[: len(found)]).max())}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """The largest errors; without a ratio where ours or the peer's is too large."""
    ours = answers[OURS]["error"]
    return {name: (f"error {a['error']:.1g} nats", max(ours, a["error"]) <= ERROR) for name, a in answers.items()}
