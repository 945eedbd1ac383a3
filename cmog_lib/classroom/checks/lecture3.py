"""The exercises of lecture 3, each with its answer and the mistakes that the checker recognises."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.classroom.checks import Exercise

floor = Exercise(
    answer=lambda a, sigma_min: sigma_min + jax.nn.softplus(a),
    cases=lambda: [(jnp.asarray([-6.0, -0.5, 0.0, 0.4, 3.0]), 0.05)],
    mistakes={
        "There is no floor: softplus alone comes as near to 0 as it likes. "
        "Look at the first term of the formula, σ_min.": lambda a, sigma_min: jax.nn.softplus(a),
        "maximum(a, σ_min) has the gradient 0 below the floor: a σ that has fallen there stays there. "
        "Look at the formula: it adds σ_min, and cuts nothing off.": (lambda a, sigma_min: jnp.maximum(a, sigma_min)),
        "maximum(softplus(a), σ_min) is a floor, but its gradient is 0 there: a σ that has fallen stays. "
        "Look at the formula: it adds σ_min, and cuts nothing off.": (
            lambda a, sigma_min: jnp.maximum(jax.nn.softplus(a), sigma_min)
        ),
        "Your floor is inside the softplus, where it only shifts a: σ may still fall to 0. "
        "Look at your brackets: σ_min is added outside.": lambda a, sigma_min: jax.nn.softplus(a + sigma_min),
        "You took exp(a) for softplus(a): it is positive too, but it explodes for large a. "
        "Look at jax.nn.softplus.": lambda a, sigma_min: sigma_min + jnp.exp(a),
        "You took log(e^a), which is a itself and may be negative. "
        "Look at the 1 in log(1 + e^a).": lambda a, sigma_min: sigma_min + a,
        "You returned σ², and what is asked for is the standard deviation. "
        "Look at the power in your line: the formula has none.": lambda a, sigma_min: (
            (sigma_min + jax.nn.softplus(a)) ** 2
        ),
        "You took a root, but what the network puts out stands for σ here, not for σ². "
        "Look at the formula: it gives σ itself.": lambda a, sigma_min: jnp.sqrt(sigma_min + jax.nn.softplus(a)),
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
        "The sum over the images where the mean was meant. "
        "Look at 1/N in front of the sum.": lambda table, log_weight: jax.nn.logsumexp(
            table + log_weight[None], axis=1
        ).sum(),
        "The weights are forgotten: you added up over the nodes, and that is no integral yet. "
        "Look at where log_weight enters your line.": (
            lambda table, log_weight: jax.nn.logsumexp(table, axis=1).mean()
        ),
        "The mean over the nodes where the weighted sum was meant. "
        "Look at log_weight: every node brings a weight of its own, and no 1/S is needed.": (
            lambda table, log_weight: (jax.nn.logsumexp(table, axis=1) - jnp.log(table.shape[1])).mean()
        ),
        "Your logarithm is inside the sum over the nodes, which is lower (Jensen), here by very much. "
        "Look at log Σ_s π_s p(x|t_s): the logarithm comes last.": (
            lambda table, log_weight: (table @ jnp.exp(log_weight)).mean()
        ),
        "A wrong axis: your inner sum runs over the images. "
        "Look at the shape [N, S]: the nodes lie along axis 1.": lambda table, log_weight: jax.nn.logsumexp(
            table + log_weight[None], axis=0
        ).mean(),
        "You took one logarithm around everything, but images are independent, so their logs are added. "
        "Look at the order: logsumexp over the nodes of each image, then the mean over the images.": (
            lambda table, log_weight: jax.nn.logsumexp(table + log_weight[None]) - jnp.log(len(table))
        ),
        "You added the weights themselves, where their logarithms were meant. "
        "Look for an exp around log_weight: the logarithm of a product is a sum of logarithms.": (
            lambda table, log_weight: jax.nn.logsumexp(table + jnp.exp(log_weight)[None], axis=1).mean()
        ),
        "exp(−300) is 0 in float32, and the logarithm of 0 is −inf. "
        "Look at jax.nn.logsumexp, which takes the largest term out first.": (
            lambda table, log_weight: jnp.log(
                jnp.exp(table.astype(jnp.float32)) @ jnp.exp(log_weight.astype(jnp.float32))
            ).mean()
        ),
        "A sign: this is −log p(X|w)/N, and training climbs. "
        "Look for a minus that the formula does not have.": lambda table, log_weight: (
            -jax.nn.logsumexp(table + log_weight[None], axis=1).mean()
        ),
    },
    praise="Right: this is what likelihood.fit climbs, on a grid that moves.",
)


collapse = Exercise(
    answer=lambda k, sigma_1, sigma_2: k * jnp.log(sigma_1 / sigma_2),
    cases=lambda: [(3, 0.02, 0.005), (12, 0.1, 0.07)],
    mistakes={
        "A sign: a smaller σ makes the density higher, so the gain is positive. "
        "Look at which of the two σ you divided by.": lambda k, sigma_1, sigma_2: k * jnp.log(sigma_2 / sigma_1),
        "This is for one pixel, and there are k of them. "
        "Look at pixels that are independent given t: their nats add up.": lambda k, sigma_1, sigma_2: jnp.log(
            sigma_1 / sigma_2
        ),
        "Halved: log σ² is 2 log σ, and that uses up the ½ in front. "
        "Look at −½ log σ² once more.": lambda k, sigma_1, sigma_2: 0.5 * k * jnp.log(sigma_1 / sigma_2),
        "Doubled: you took −2 log σ for −½ log σ². Look at the rule log σ² = 2 log σ.": lambda k, sigma_1, sigma_2: (
            2 * k * jnp.log(sigma_1 / sigma_2)
        ),
        "Bits where nats were meant. "
        "Look at the base of your logarithm: the natural one is jnp.log.": lambda k, sigma_1, sigma_2: (
            k * jnp.log2(sigma_1 / sigma_2)
        ),
        "You returned the ratio of the densities, where its logarithm was meant. "
        "Look at what is asked for: nats are logarithms.": lambda k, sigma_1, sigma_2: jnp.asarray(
            (sigma_1 / sigma_2) ** k
        ),
        "You took the difference of the σ, where that of their logarithms was meant. "
        "Write log p of one pixel, before and after, and subtract.": lambda k, sigma_1, sigma_2: jnp.asarray(
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
        "You have only the mean of Σ(t), but the means μ(t) move too, and that is what ties the pixels together. "
        "Look at the second term of the law of total covariance.": (
            lambda weight, mu, sigma: jnp.diag(weight @ sigma**2)
        ),
        "You have only the covariance of μ(t): the noise Σ(t) is forgotten. "
        "Look at the first term of the law of total covariance.": lambda weight, mu, sigma: _between(weight, mu),
        "σ where σ² was meant: a covariance holds variances. "
        "Look at the diagonal that you made of sigma.": lambda weight, mu, sigma: (
            jnp.diag(weight @ sigma) + _between(weight, mu)
        ),
        "You squared the mean of σ, which is not the mean of σ². "
        "Look at the order: square first, then average.": lambda weight, mu, sigma: (
            jnp.diag((weight @ sigma) ** 2) + _between(weight, mu)
        ),
        "The means were not centred: this is E[x xᵀ], not the covariance. "
        "Look at what has to be taken off mu before it is multiplied: its mean.": lambda weight, mu, sigma: (
            jnp.diag(weight @ sigma**2) + (weight[:, None] * mu).T @ mu
        ),
        "The weights are forgotten: you counted every node as 1/S. "
        "Look at `weight`: node s counts by its π_s, in both terms.": lambda weight, mu, sigma: (
            jnp.diag((sigma**2).mean(axis=0)) + _between(jnp.full_like(weight, 1 / len(weight)), mu)
        ),
        "You centred at the plain average of μ, where the weighted one was meant. "
        "Look at how you took the mean: it is weight @ mu.": lambda weight, mu, sigma: (
            jnp.diag(weight @ sigma**2)
            + (weight[:, None] * (mu - mu.mean(axis=0)[None])).T @ (mu - mu.mean(axis=0)[None])
        ),
        "You have only the diagonal: the pixels' variances, without what ties them together. "
        "Look at the second term: it is a full D × D matrix.": lambda weight, mu, sigma: jnp.diag(
            weight @ sigma**2 + jnp.diag(_between(weight, mu))
        ),
    },
    praise="Right: diagonal given t, full without it. For a Linear decoder it is WWᵀ + σ²I.",
)
