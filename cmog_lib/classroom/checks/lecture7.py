"""The exercises of lecture 7, each with its answer and the mistakes that the checker recognises."""

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
        "You took s for a variance, and it is a standard deviation. "
        "Look at both places of s: the formula has s² and log s.": (
            lambda m, s: 0.5 * jnp.sum(m**2 + s - 1 - jnp.log(s))
        ),
        "The factor ½ is missing. "
        "Look at the formula: ½ is in front of m² + s² − 1, and ½ log s² is log s.": lambda m, s: 2 * _kl(m, s),
        "You have ½ log s, where ½ log s² = log s is meant. Look at the last term of the formula.": (
            lambda m, s: 0.5 * jnp.sum(m**2 + s**2 - 1 - jnp.log(s))
        ),
        "A sign: a KL is never negative. "
        "Look at the order: E_q log q(t) comes first, E_q log p(t) is taken off.": lambda m, s: -_kl(m, s),
        "The −1 is missing. Try q = p(t), that is m = 0 and s = 1: it must come out 0.": lambda m, s: jnp.sum(
            0.5 * (m**2 + s**2) - jnp.log(s)
        ),
        "This is KL(p(t)‖q), the other way round. Look at which of the two is averaged over: here it is q.": (
            lambda m, s: jnp.sum(0.5 * ((1 + m**2) / s**2 - 1) + jnp.log(s))
        ),
        "The mean over the latents where the sum was meant. Look at log q(t): it is a sum over the latents.": (
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
        "The mean over the pixels where the sum was meant: the KL weighs D times too much, and latents fall silent. "
        "Look at log p(x|t, w): it is a sum over the pixels, axis 1.": _bound(pixels=jnp.mean),
        "A sign: you added the KL. Look at the bound: the KL is taken away.": _bound(sign=1.0),
        "A sign: this is the negative of the bound. "
        "Look at L(w, q): it is maximised, and has log p in front.": lambda *args: -_bound()(*args),
        "The KL is forgotten: nothing keeps q near p(t), and s goes to 0. "
        "Look at the second part of the bound, which is exercise 1.": _bound(sign=0.0),
        "The sum over the images where the mean was meant. Look at 1/N in front of the sum.": _bound(data=jnp.sum),
        "The mean over the latents where the sum was meant. "
        "Look at exercise 1: the KL is a sum over the latents.": _bound(latents=jnp.mean),
        "½ log 2π is missing, once a pixel: the gradient is right, the bound is not. "
        "Look at the normaliser of a pixel's density.": _bound(normaliser=jnp.log),
        "log σ is missing: σ is learned here, and would grow without end. "
        "Look at the normaliser of a pixel's density.": _bound(
            normaliser=lambda sigma: jnp.full_like(sigma, 0.5 * LOG_2PI)
        ),
        "You took σ for a variance, and it is a standard deviation. "
        "Look at the exponent: (x − μ)/σ is squared as a whole.": _bound(width=lambda s: s),
        "You have squared errors alone, as for σ = 1. Look at a pixel's density: σ is in it twice.": _bound(
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
        "Least squares: the prior, which pulls every m towards 0, is forgotten. "
        "Look at the I in P = I + WᵀW/σ².": lambda W, sigma: _ridge(W, sigma, 0.0),
        "σ where σ² was meant: sigma is a standard deviation. "
        "Look at the power of sigma in P = I + WᵀW/σ².": lambda W, sigma: _ridge(W, sigma, 1.0, 1),
        "The noise is forgotten: this is the V of σ = 1. "
        "Look at where σ² stands in the posterior's mean.": lambda W, sigma: _ridge(W, 1.0),
        "Wᵀ alone points the right way, but it is not scaled. "
        "Look at what stands around Wᵀ in the posterior's mean.": lambda W, sigma: W.T,
        "This is Wᵀ/σ², still to be divided by P. "
        "Look at P⁻¹ in the posterior's mean, where P = I + WᵀW/σ².": lambda W, sigma: W.T / sigma**2,
        "Transposed: your V is [D, d]. Look at the shapes: V takes x [D] to m [d].": lambda W, sigma: (
            _ridge(W, sigma).T
        ),
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
        "You took the mean of the logarithms: that is L(w, q). "
        "Look at the formula: the logarithm stands outside the mean.": (lambda log_weights: log_weights.mean(axis=1)),
        "exp(−2000) is 0 to a computer. Look at jax.nn.logsumexp, which takes the largest out of the sum first.": (
            lambda log_weights: jnp.log(jnp.mean(jnp.exp(log_weights), axis=1))
        ),
        "The log of the sum where that of the mean was meant. "
        "Look at what 1/M becomes once it has left the logarithm.": lambda log_weights: jax.nn.logsumexp(
            log_weights, axis=1
        ),
        "You averaged over the images instead of the draws. Look at the shape [N, M]: draws are axis 1.": lambda lw: (
            _log_mean(lw, 0)
        ),
        "You took the largest weight alone. Look at the sum over s: the others count too.": lambda log_weights: (
            log_weights.max(axis=1)
        ),
        "You returned the weights' means, and their logarithms were asked for. "
        "Look at the last function in your line.": lambda lw: jnp.exp(lw).mean(axis=1),
        "You took the mean over the images as well. Look at what is asked for: one number for each image.": (
            lambda log_weights: _log_mean(log_weights).mean()
        ),
        "A sign: this is minus the log of the mean weight. "
        "Look for a minus that the formula does not have.": lambda log_weights: -_log_mean(log_weights),
    },
    praise="Right. One draw gives L(w, q) in the mean; the more there are, the nearer it comes to log p(x|w).",
)
