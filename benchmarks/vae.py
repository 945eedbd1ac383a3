"""The VAE 784-400-20: steps of Adam on L(w, q) for images of MNIST, a batch of 128 and one draw each.

Everyone has the same networks with one hidden layer of 400 gelus, a Gaussian p(x|t,w) with one learned σ, KL(q‖p(t)) in
closed form, the same first weights, Adam at the same rate, float32, and takes STEPS steps from there in a turn. Data
for a step are drawn as each contender's own manual does it: by us with replacement; in NumPyro's `svi.run` by a plate
with a subsample, without; in its `svi.update` under `lax.scan`, which is what its VAE example comes to, with
replacement too; in PyTorch by an index tensor. PyTorch is the eager loop that everyone writes, with Adam as it comes.

Accuracy: the bound on held-out images after the last step, for all by one function that knows weights only; a ratio is
given where it is within SLACK nats a datum of ours, little more than another seed makes of it. Without MNIST: digits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.floors import Products
from cmog_lib import amortised, datasets, decoders
from cmog_lib.decoders.networks import SIGMA_MIN
from cmog_lib.model import LOG_2PI

TITLE, UNIT, OURS = "VAE D-400-20, batches of 128", "steps", "cmog_lib"
FLOOR = "the five products of a step with the two large layers"
D_LATENT, WIDTH, BATCH = 20, 400, 128
STEPS, RATE = 1000, 1e-3  # Adam's
SLACK = 6.0  # nats per datum; other seeds of ours differ by 4
DRAWS = 8  # for each held-out datum


class Networks(NamedTuple):
    """What a VAE is to the judge: two layers for each network, weights [in, out] and offsets, and c, whence σ."""

    encoder: Any
    decoder: Any
    c: Any


class Problem(NamedTuple):
    """X: [N, D], to train on. held_out: [n, D]. start: the first weights, which are everyone's."""

    X: Any
    held_out: Any
    start: Networks


class Ended(NamedTuple):
    """What a contender gives: the last weights, and the data that the judge needs."""

    networks: Networks
    held_out: Any


def prepare(folder: Path) -> None:
    """Nothing: everyone reads the images where they are."""


def load(folder: Path) -> Problem:
    """The same in every process."""
    try:
        X, held_out = datasets.mnist().X, datasets.mnist("test").X
    except FileNotFoundError:
        X, held_out = jnp.split(datasets.digits().X, [1500])
    return Problem(X, held_out, plain(*modules(X)))


def modules(X: Any) -> tuple[Any, Any]:
    """The decoder, μ and σ at the data's mean and deviation, and the encoder."""
    key_w, key_q = jax.random.split(jax.random.key(0))
    D = X.shape[1]
    w = decoders.MLP(D_LATENT, D, width=WIDTH, depth=1, constant_sigma=True, key=key_w)
    return decoders.start_at(w, X), amortised.encoders.MLP(D, D_LATENT, width=WIDTH, depth=1, key=key_q)


def plain(w: Any, encoder: Any) -> Networks:
    """Our modules as weights: b goes into the last offset, where it belongs to everyone else."""
    layers = [[(layer.weight.T, layer.bias) for layer in nn.layers] for nn in (encoder.nn, w.nn1)]
    (A, a), (B, b) = layers[1]
    return Networks(layers[0], [(A, a), (B, b + w.b)], w.c)


# The contenders: each gives the weights after STEPS steps.


def ours(problem: Problem) -> Callable[[int], Ended]:
    """`amortised.fit`."""
    X, held_out, _ = problem
    w, encoder = modules(X)

    def answer(seed: int) -> Ended:
        key = jax.random.key(seed)
        options: Any = {"batch_size": BATCH, "learning_rate": RATE, "progress": False}
        trained = amortised.fit(w, encoder, X, steps=STEPS, key=key, **options)
        return Ended(plain(trained.w, trained.encoder), held_out)

    return answer


def numpyro_run(problem: Problem) -> Callable[[int], Ended]:
    """NumPyro's `svi.run`; the data of a step are a plate's subsample."""
    import numpyro

    def batch(X: Any) -> Any:
        return numpyro.subsample(X, event_dim=1)

    svi, start = _numpyro(batch, plate={"subsample_size": BATCH})

    def answer(seed: int) -> Ended:
        found = svi.run(jax.random.key(seed), STEPS, problem.X, init_params=start(problem.start), progress_bar=False)
        return Ended(_networks(found.params), problem.held_out)

    return answer


def numpyro_scan(problem: Problem) -> Callable[[int], Ended]:
    """NumPyro's `svi.update` in a compiled loop that draws the data of a step itself."""
    svi, start = _numpyro(lambda X: X, plate={})

    @jax.jit
    def steps(state: Any, X: Any, key: Any) -> Any:
        def step(state: Any, key: Any) -> Any:
            return svi.update(state, X[jax.random.randint(key, (BATCH,), 0, len(X))])

        return jax.lax.scan(step, state, jax.random.split(key, STEPS))[0]

    def answer(seed: int) -> Ended:
        key_start, key = jax.random.split(jax.random.key(seed))
        state = svi.init(key_start, problem.X[:BATCH], init_params=start(problem.start))
        return Ended(_networks(svi.get_params(steps(state, problem.X, key))), problem.held_out)

    return answer


def _numpyro(batch: Callable[[Any], Any], plate: dict[str, Any]) -> tuple[Any, Callable[[Networks], Any]]:
    import numpyro
    from jax.example_libraries import stax
    from numpyro import distributions as dist
    from numpyro.infer import SVI, TraceMeanField_ELBO

    def mlp(D: int) -> Any:
        return stax.serial(stax.Dense(WIDTH), stax.Gelu, stax.Dense(D))

    def model(X: Any) -> None:
        decode = numpyro.module("decoder", mlp(X.shape[1]), (BATCH, D_LATENT))
        sigma = SIGMA_MIN + jax.nn.softplus(numpyro.param("c", jnp.zeros(())))
        with numpyro.plate("data", len(X), **plate):
            x = batch(X)
            t = numpyro.sample("t", dist.Normal(jnp.zeros((len(x), D_LATENT)), 1).to_event(1))
            numpyro.sample("x", dist.Normal(decode(t), sigma).to_event(1), obs=x)

    def guide(X: Any) -> None:
        encode = numpyro.module("encoder", mlp(2 * D_LATENT), (BATCH, X.shape[1]))
        with numpyro.plate("data", len(X), **plate):
            m, log_s = jnp.split(encode(batch(X)), 2, axis=1)
            numpyro.sample("t", dist.Normal(m, jnp.exp(log_s)).to_event(1))

    def start(networks: Networks) -> Any:
        (A, B), (C, E) = networks.encoder, networks.decoder
        return {"encoder$params": [A, (), B], "decoder$params": [C, (), E], "c": networks.c}

    return SVI(model, guide, numpyro.optim.Adam(RATE), TraceMeanField_ELBO()), start


def _networks(params: Any) -> Networks:
    (A, _, B), (C, _, E) = params["encoder$params"], params["decoder$params"]
    return Networks([A, B], [C, E], params["c"])


def torch_eager(problem: Problem) -> Callable[[int], Ended]:
    """PyTorch's modules, distributions and Adam, step by step."""
    import torch
    from torch import nn

    X = torch.tensor(np.asarray(problem.X))
    D = X.shape[1]

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(D, WIDTH), nn.GELU("tanh"), nn.Linear(WIDTH, 2 * D_LATENT))
            self.decoder = nn.Sequential(nn.Linear(D_LATENT, WIDTH), nn.GELU("tanh"), nn.Linear(WIDTH, D))
            self.c = nn.Parameter(torch.zeros(()))

        def forward(self, x: Any) -> Any:
            m, log_s = self.encoder(x).chunk(2, dim=1)
            t = m + log_s.exp() * torch.randn_like(m)
            sigma = SIGMA_MIN + nn.functional.softplus(self.c)
            log_p = torch.distributions.Normal(self.decoder(t), sigma).log_prob(x).sum(dim=1)
            kl = 0.5 * (m**2 + (2 * log_s).exp() - 1 - 2 * log_s).sum(dim=1)
            return (log_p - kl).mean()

    def parts(vae: Any) -> Networks:
        pairs = [[(net[i].weight.T, net[i].bias) for i in (0, 2)] for net in (vae.encoder, vae.decoder)]
        return Networks(*pairs, vae.c)

    def answer(seed: int) -> Ended:
        torch.manual_seed(seed)
        vae = VAE()
        with torch.no_grad():
            for parameter, value in zip(jax.tree.leaves(parts(vae)), jax.tree.leaves(problem.start), strict=True):
                parameter.copy_(torch.tensor(np.asarray(value)))
        adam = torch.optim.Adam(vae.parameters(), lr=RATE)
        for _ in range(STEPS):
            adam.zero_grad()
            (-vae(X[torch.randint(len(X), (BATCH,))])).backward()
            adam.step()
        return Ended(jax.tree.map(lambda p: p.detach().numpy(), parts(vae)), problem.held_out)

    return answer


CONTENDERS = {
    OURS: ours,
    "NumPyro svi.run": numpyro_run,
    "NumPyro svi.update, scan": numpyro_scan,
    "PyTorch, eager": torch_eager,
}


def floor(problem: Problem) -> Callable[[int], int]:
    """A large layer on each side of the latents: forward twice, the two layers' gradients, and one back to the t."""
    D = problem.X.shape[1]
    forward, gradients = [(BATCH, D, WIDTH), (BATCH, WIDTH, D)], [(D, BATCH, WIDTH), (WIDTH, BATCH, D)]
    products = Products(*forward, *gradients, (BATCH, D, WIDTH))
    return lambda _: products(STEPS)


# What the weights are worth.


def judged(ended: Ended) -> dict[str, Any]:
    """The steps done, and the mean bound on held-out images where they ended, in nats."""
    return {"value": STEPS, "bound": float(held_out_bound(*jax.tree.map(jnp.asarray, ended)))}


@jax.jit
def held_out_bound(networks: Networks, X: Any) -> Any:
    """1/n Σ_i L(w, q_i) by DRAWS draws for each datum, the same noise for all contenders."""

    def nn(layers: Any, a: Any) -> Any:
        (A, offset), (B, offset_B) = layers
        return jax.nn.gelu(a @ A + offset[None]) @ B + offset_B[None]

    m, log_s = jnp.split(nn(networks.encoder, X), 2, axis=1)
    sigma = SIGMA_MIN + jax.nn.softplus(networks.c)

    def log_p(key: Any) -> Any:
        mu = nn(networks.decoder, m + jnp.exp(log_s) * jax.random.normal(key, m.shape))
        return -0.5 * jnp.sum(((X - mu) / sigma) ** 2 + 2 * jnp.log(sigma) + LOG_2PI, axis=1)

    kl = 0.5 * jnp.sum(m**2 + jnp.exp(2 * log_s) - 1 - 2 * log_s, axis=1)
    return (jax.lax.map(log_p, jax.random.split(jax.random.key(0), DRAWS)).mean(axis=0) - kl).mean()


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """The held-out bound, and whether it is what ours is."""
    ours = answers[OURS]["bound"]
    return {name: (f"{a['bound']:.1f} nats", abs(a["bound"] - ours) <= SLACK) for name, a in answers.items()}
