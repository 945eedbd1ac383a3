"""The exercises of lecture 7, each with its answer and the mistakes that it knows by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.classroom.checks import Exercise
from cmog_lib.model import LOG_2PI


def _kl_cases():
    rng = np.random.default_rng(41)
    return [(jnp.asarray(rng.normal(size=d)), jnp.asarray(rng.uniform(0.2, 1.8, size=d))) for d in (2, 5)]


def _kl(m, s, add=jnp.sum):
    return add(0.5 * (m**2 + s**2 - 1) - jnp.log(s))


kl = Exercise(
    answer=_kl,
    cases=_kl_cases,
    mistakes={
        "s was taken for a variance: it is a standard deviation, so the formula has s² and log s².": (
            lambda m, s: 0.5 * jnp.sum(m**2 + s - 1 - jnp.log(s))
        ),
        "The factor ½ is missing.": lambda m, s: 2 * _kl(m, s),
        "½ log s stands where ½ log s² = log s is meant.": (lambda m, s: 0.5 * jnp.sum(m**2 + s**2 - 1 - jnp.log(s))),
        "A sign: a KL is never negative.": lambda m, s: -_kl(m, s),
        "The −1 is missing: for q = p(t) it must come out 0.": lambda m, s: jnp.sum(0.5 * (m**2 + s**2) - jnp.log(s)),
        "This is KL(p(t)‖q), the other way round: here it is q that is averaged over.": (
            lambda m, s: jnp.sum(0.5 * ((1 + m**2) / s**2 - 1) + jnp.log(s))
        ),
        "The mean over the latents where the sum was meant: log q(t) is a sum over them.": (
            lambda m, s: _kl(m, s, jnp.mean)
        ),
    },
    praise="Right. It is 0 only where q = p(t): a latent of which q says nothing.",
)


def _bound_cases():
    rng = np.random.default_rng(42)
    return [
        (
            jnp.asarray(rng.uniform(size=(N, D))),
            jnp.asarray(rng.uniform(size=(N, D))),
            jnp.asarray(rng.uniform(0.1, 0.6, size=(N, D))),
            jnp.asarray(rng.normal(size=(N, d))),
            jnp.asarray(rng.uniform(0.2, 1.8, size=(N, d))),
        )
        for N, D, d in ((4, 6, 2), (7, 5, 3))
    ]


def _bound(
    pixels=jnp.sum,
    latents=jnp.sum,
    data=jnp.mean,
    sign=-1.0,
    normaliser=lambda sigma: jnp.log(sigma) + 0.5 * LOG_2PI,
    width=lambda s: s**2,
):
    def batch_bound(X, mu, sigma, m, s):
        log_p = -0.5 * ((X - mu) ** 2) / width(sigma) - normaliser(sigma)
        kl = 0.5 * (m**2 + s**2 - 1) - jnp.log(s)
        return data(pixels(log_p, axis=1) + sign * latents(kl, axis=1))

    return batch_bound


batch_bound = Exercise(
    answer=_bound(),
    cases=_bound_cases,
    mistakes={
        "The mean over the pixels where the sum was meant: then the KL weighs D times too much, and all latents fall "
        "silent.": _bound(pixels=jnp.mean),
        "A sign: the KL was added; it has to be taken away.": _bound(sign=1.0),
        "This is the negative of the bound. L(w, q) is maximised.": lambda *args: -_bound()(*args),
        "The KL is forgotten: then nothing keeps q near p(t), and s goes to 0.": _bound(sign=0.0),
        "The sum over the images where the mean was meant.": _bound(data=jnp.sum),
        "The mean over the latents where the sum was meant.": _bound(latents=jnp.mean),
        "½ log 2π is missing, once a pixel: the gradient is right, the bound is not.": _bound(normaliser=jnp.log),
        "log σ is missing: σ is learned here, and would grow without end.": _bound(
            normaliser=lambda sigma: jnp.full_like(sigma, 0.5 * LOG_2PI)
        ),
        "σ was taken for a variance: it is a standard deviation.": _bound(width=lambda s: s),
        "Squared errors alone, as for σ = 1: the density has σ in it, twice.": _bound(
            width=jnp.ones_like, normaliser=jnp.zeros_like
        ),
    },
    praise="Right. That, and its gradient, is a variational autoencoder.",
)


def _encoder_cases():
    rng = np.random.default_rng(43)
    return [(jnp.asarray(rng.normal(size=shape)), sigma) for shape, sigma in (((5, 2), 0.5), ((7, 3), 1.6))]


def _ridge(W, sigma, prior=1.0, power=2):
    return jnp.linalg.solve(prior * jnp.eye(W.shape[1]) * sigma**power + W.T @ W, W.T)


best_encoder = Exercise(
    answer=_ridge,
    cases=_encoder_cases,
    mistakes={
        "Least squares: the prior is forgotten, which pulls every m towards 0.": lambda W, sigma: _ridge(W, sigma, 0.0),
        "σ where σ² was meant: sigma is a standard deviation.": lambda W, sigma: _ridge(W, sigma, 1.0, 1),
        "The noise is forgotten: this is the V of σ = 1.": lambda W, sigma: _ridge(W, 1.0),
        "Wᵀ alone points the right way, but it is not scaled.": lambda W, sigma: W.T,
        "This is Wᵀ/σ²: still to be divided by P = I + WᵀW/σ².": lambda W, sigma: W.T / sigma**2,
        "Transposed: V takes x [D] to m [d].": lambda W, sigma: _ridge(W, sigma).T,
    },
    praise="Right. For a straight decoder one matrix tells every image's mean: nothing is lost to the encoder.",
)


def _weights_cases():
    rng = np.random.default_rng(44)
    return [(jnp.asarray(rng.normal(size=shape) * 3 + level),) for shape, level in (((4, 6), 2.0), ((3, 8), -2000.0))]


def _log_mean(log_weights, axis=1):
    return jax.nn.logsumexp(log_weights, axis=axis) - jnp.log(log_weights.shape[axis])


importance = Exercise(
    answer=_log_mean,
    cases=_weights_cases,
    mistakes={
        "The mean of the logarithms: that is L(w, q). Here it is the log of the mean weight.": (
            lambda log_weights: log_weights.mean(axis=1)
        ),
        "exp(−2000) is 0 to a computer: take the largest out of the sum first, as logsumexp does.": (
            lambda log_weights: jnp.log(jnp.mean(jnp.exp(log_weights), axis=1))
        ),
        "The log of the sum: − log M is missing.": lambda log_weights: jax.nn.logsumexp(log_weights, axis=1),
        "Averaged over the images instead of the draws: draws are the second axis.": lambda lw: _log_mean(lw, 0),
        "The largest weight alone: the others count too.": lambda log_weights: log_weights.max(axis=1),
        "These are the weights' means, not their logarithms.": lambda lw: jnp.exp(lw).mean(axis=1),
        "The mean over the images was taken as well: one number for each image was asked for.": (
            lambda log_weights: _log_mean(log_weights).mean()
        ),
        "A sign: this is minus the log of the mean weight.": lambda log_weights: -_log_mean(log_weights),
    },
    praise="Right. One draw gives L(w, q) in the mean; the more there are, the nearer it comes to log p(x|w).",
)
