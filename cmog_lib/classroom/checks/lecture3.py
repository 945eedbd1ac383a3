"""The exercises of lecture 3, each with its answer and the mistakes that it knows by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.classroom.checks import Exercise

floor = Exercise(
    answer=lambda a, sigma_min: sigma_min + jax.nn.softplus(a),
    cases=lambda: [(jnp.asarray([-6.0, -0.5, 0.0, 0.4, 3.0]), 0.05)],
    mistakes={
        "There is no floor: softplus alone comes as near to 0 as it likes.": lambda a, sigma_min: jax.nn.softplus(a),
        "maximum(a, σ_min) has the gradient 0 below the floor: a σ that has fallen there stays there.": (
            lambda a, sigma_min: jnp.maximum(a, sigma_min)
        ),
        "maximum(softplus(a), σ_min) is a floor, but its gradient is 0 there: a σ that has fallen stays.": (
            lambda a, sigma_min: jnp.maximum(jax.nn.softplus(a), sigma_min)
        ),
        "The floor went inside the softplus, where it only shifts a: σ may still fall to 0.": lambda a, sigma_min: (
            jax.nn.softplus(a + sigma_min)
        ),
        "exp(a) was meant as softplus(a): it is positive too, but it explodes for large a.": lambda a, sigma_min: (
            sigma_min + jnp.exp(a)
        ),
        "log(1 + e^a), not log(e^a): this is a itself above the floor, and may be negative.": lambda a, sigma_min: (
            sigma_min + a
        ),
        "You returned σ², and what is asked for is the standard deviation.": lambda a, sigma_min: (
            (sigma_min + jax.nn.softplus(a)) ** 2
        ),
        "You took a root: what the network puts out stands for σ here, not for σ².": lambda a, sigma_min: jnp.sqrt(
            sigma_min + jax.nn.softplus(a)
        ),
    },
    praise="Right: positive, never below the floor, and with a gradient everywhere. decoders.MLP does the same.",
)


def _table():
    rng = np.random.default_rng(6)
    table = -300 + 8 * rng.normal(size=(5, 7))
    return [(jnp.asarray(table), jnp.asarray(np.log(rng.dirichlet(np.ones(7)))))]


objective = Exercise(
    answer=lambda table, log_weight: jax.nn.logsumexp(table + log_weight[None], axis=1).mean(),
    cases=_table,
    mistakes={
        "The sum over the images where the mean was meant: divide by N.": lambda table, log_weight: jax.nn.logsumexp(
            table + log_weight[None], axis=1
        ).sum(),
        "The weights are forgotten: without p(t_s) h^d this is a sum over nodes, not the integral.": (
            lambda table, log_weight: jax.nn.logsumexp(table, axis=1).mean()
        ),
        "The mean over the nodes where the weighted sum was meant: the weights are the nodes' own.": (
            lambda table, log_weight: (jax.nn.logsumexp(table, axis=1) - jnp.log(table.shape[1])).mean()
        ),
        "The logarithm went inside: Σ π log p is below log Σ π p (Jensen), by very much here.": (
            lambda table, log_weight: (table @ jnp.exp(log_weight)).mean()
        ),
        "A wrong axis: inside, the sum runs over the nodes, axis 1, not over the images.": lambda table, log_weight: (
            jax.nn.logsumexp(table + log_weight[None], axis=0).mean()
        ),
        "One logarithm around everything: images are multiplied, p(X|w) = Π p(x_i|w), so their logs are added.": (
            lambda table, log_weight: jax.nn.logsumexp(table + log_weight[None]) - jnp.log(len(table))
        ),
        "The weights came in as they are where their logarithms were meant: + log π inside the exponential.": (
            lambda table, log_weight: jax.nn.logsumexp(table + jnp.exp(log_weight)[None], axis=1).mean()
        ),
        "exp(−300) is 0 in float32, and log 0 = −inf: use logsumexp, which takes the largest term out first.": (
            lambda table, log_weight: jnp.log(
                jnp.exp(table.astype(jnp.float32)) @ jnp.exp(log_weight.astype(jnp.float32))
            ).mean()
        ),
        "A sign: training climbs, this is −log p(X|w)/N.": lambda table, log_weight: (
            -jax.nn.logsumexp(table + log_weight[None], axis=1).mean()
        ),
    },
    praise="Right: this is what likelihood.fit climbs, on a grid that moves.",
)


collapse = Exercise(
    answer=lambda k, sigma_1, sigma_2: k * jnp.log(sigma_1 / sigma_2),
    cases=lambda: [(3, 0.02, 0.005), (12, 0.1, 0.07)],
    mistakes={
        "A sign: a smaller σ makes the density higher, so the gain is positive.": lambda k, sigma_1, sigma_2: (
            k * jnp.log(sigma_2 / sigma_1)
        ),
        "This is for one pixel: they are independent given t, so their nats add up.": lambda k, sigma_1, sigma_2: (
            jnp.log(sigma_1 / sigma_2)
        ),
        "Halved: log σ² = 2 log σ, and the ½ in front makes it log σ.": lambda k, sigma_1, sigma_2: (
            0.5 * k * jnp.log(sigma_1 / sigma_2)
        ),
        "Doubled: −½ log σ² is −log σ, not −2 log σ.": lambda k, sigma_1, sigma_2: 2 * k * jnp.log(sigma_1 / sigma_2),
        "Bits where nats were meant: the natural logarithm.": lambda k, sigma_1, sigma_2: (
            k * jnp.log2(sigma_1 / sigma_2)
        ),
        "The ratio of the densities, where its logarithm was meant.": lambda k, sigma_1, sigma_2: jnp.asarray(
            (sigma_1 / sigma_2) ** k
        ),
        "The difference of the σ, where that of their logarithms was meant.": lambda k, sigma_1, sigma_2: jnp.asarray(
            k * (sigma_1 - sigma_2)
        ),
    },
    praise="Right: log 2 for each pixel and each halving, with no end to it.",
)


def _decoded():
    rng = np.random.default_rng(7)
    weight, mu, sigma = rng.dirichlet(np.ones(6)), 1 + rng.normal(size=(6, 3)), rng.uniform(0.2, 0.9, (6, 3))
    return [tuple(map(jnp.asarray, (weight, mu, sigma)))]


def _between(weight, mu):
    centred = mu - (weight @ mu)[None]
    return (weight[:, None] * centred).T @ centred


covariance = Exercise(
    answer=lambda weight, mu, sigma: jnp.diag(weight @ sigma**2) + _between(weight, mu),
    cases=_decoded,
    mistakes={
        "Only the mean of Σ(t): that the means μ(t) move is forgotten, and it is what ties the pixels together.": (
            lambda weight, mu, sigma: jnp.diag(weight @ sigma**2)
        ),
        "Only the covariance of μ(t): the noise Σ(t) is forgotten.": lambda weight, mu, sigma: _between(weight, mu),
        "σ where σ² was meant: a covariance holds variances.": lambda weight, mu, sigma: (
            jnp.diag(weight @ sigma) + _between(weight, mu)
        ),
        "The mean of σ, squared, is not the mean of σ².": lambda weight, mu, sigma: (
            jnp.diag((weight @ sigma) ** 2) + _between(weight, mu)
        ),
        "The means were not centred: this is E[x xᵀ], not the covariance.": lambda weight, mu, sigma: (
            jnp.diag(weight @ sigma**2) + (weight[:, None] * mu).T @ mu
        ),
        "The weights are forgotten: every node counts by its π_s, not by 1/S.": lambda weight, mu, sigma: (
            jnp.diag((sigma**2).mean(axis=0)) + _between(jnp.full_like(weight, 1 / len(weight)), mu)
        ),
        "Centred at the plain average of μ where the weighted one was meant.": lambda weight, mu, sigma: (
            jnp.diag(weight @ sigma**2)
            + (weight[:, None] * (mu - mu.mean(axis=0)[None])).T @ (mu - mu.mean(axis=0)[None])
        ),
        "Only the diagonal of it: the pixels' variances, without what ties them together.": lambda weight, mu, sigma: (
            jnp.diag(weight @ sigma**2 + jnp.diag(_between(weight, mu)))
        ),
    },
    praise="Right: diagonal given t, full without it. For a Linear decoder it is WWᵀ + σ²I.",
)
