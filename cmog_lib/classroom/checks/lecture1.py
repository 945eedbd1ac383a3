"""The exercises of lecture 1, each with its answer and the mistakes that it knows by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.classroom.checks import Exercise
from cmog_lib.decoders import Linear


def _painted(deviation):
    def paint(w, T, noise):
        mu, sigma = jax.vmap(w)(T)
        return deviation(mu, sigma, noise)

    return paint


def _paint_cases():
    w = Linear(jnp.array([[1.0], [-2.0], [0.5]]), jnp.array([0.1, 0.2, 0.3]), jnp.log(jnp.array([0.2, 0.5, 3.0])))
    rng = np.random.default_rng(1)
    return [(w, jnp.asarray(rng.normal(size=(7, 1))), jnp.asarray(rng.normal(size=(7, 3))))]


paint = Exercise(
    answer=_painted(lambda mu, sigma, noise: mu + sigma * noise),
    cases=_paint_cases,
    mistakes={
        "You multiplied by the variance σ² where the standard deviation σ was meant.": _painted(
            lambda mu, sigma, noise: mu + sigma**2 * noise
        ),
        "You multiplied by √σ: sigma is a standard deviation already, no root is needed.": _painted(
            lambda mu, sigma, noise: mu + jnp.sqrt(sigma) * noise
        ),
        "The noise has deviation 1 still: it was never multiplied by σ.": _painted(lambda mu, sigma, noise: mu + noise),
        "The noise is missing: you returned μ(t), the middle of the blob, and not a draw from it.": _painted(
            lambda mu, sigma, noise: mu
        ),
        "The mean is missing: you returned the noise without μ(t).": _painted(lambda mu, sigma, noise: sigma * noise),
        "A sign: the noise is subtracted.": _painted(lambda mu, sigma, noise: mu - sigma * noise),
        "μ and σ have changed places: the noise is multiplied by σ, and μ is added.": _painted(
            lambda mu, sigma, noise: sigma + mu * noise
        ),
    },
    praise="Right: first the cause, then the blob. This is the last line of model.sample.",
)


def _bayes_cases():
    rng = np.random.default_rng(2)
    log_prior = jnp.asarray(-0.5 * np.linspace(-3, 3, 9) ** 2)
    table = rng.normal(size=(5, 9)) * 3
    return [(jnp.asarray(table), log_prior), (jnp.asarray(table - 2000.0), log_prior)]


def _exp_over_sum(table, log_prior):
    joint = jnp.exp(table + log_prior[None, :])
    return joint / joint.sum(axis=1, keepdims=True)


bayes = Exercise(
    answer=lambda table, log_prior: jax.nn.softmax(table + log_prior[None, :], axis=1),
    cases=_bayes_cases,
    mistakes={
        "The prior is forgotten: these weights are proportional to p(x|t) alone.": lambda table, log_prior: (
            jax.nn.softmax(table, axis=1)
        ),
        "exp underflows: near −2000 this is 0/0. A softmax takes the largest entry out first.": _exp_over_sum,
        "The whole table sums to one here, but each row is a posterior of its own.": lambda table, log_prior: (
            jax.nn.softmax(table + log_prior[None, :], axis=None)
        ),
        "The wrong axis: each column sums to one, but a posterior is over t, so each row must.": lambda table, prior: (
            jax.nn.softmax(table + prior[None, :], axis=0)
        ),
        "Not divided by p(x): these are p(x|t) p(t), and their rows do not sum to one.": lambda table, log_prior: (
            jnp.exp(table + log_prior[None, :])
        ),
        "These are logarithms of the weights: one exp is missing.": lambda table, log_prior: jax.nn.log_softmax(
            table + log_prior[None, :], axis=1
        ),
        "A sign: the log prior is added, not subtracted.": lambda table, log_prior: jax.nn.softmax(
            table - log_prior[None, :], axis=1
        ),
        "The prior was added without its logarithm: log p(x|t) + p(t) is not the log of a product.": (
            lambda table, log_prior: jax.nn.softmax(table + jnp.exp(log_prior)[None, :], axis=1)
        ),
    },
    praise="Right: a posterior is a softmax of log p(x|t) + log p(t) over t.",
)


def _monte_carlo_cases():
    rng = np.random.default_rng(3)
    return [(jnp.asarray(rng.normal(size=20) * 5),), (jnp.asarray(rng.normal(size=50) - 2000.0),)]


monte_carlo = Exercise(
    answer=lambda log_likelihood: jax.nn.logsumexp(log_likelihood) - jnp.log(len(log_likelihood)),
    cases=_monte_carlo_cases,
    mistakes={
        "The sum where the mean was meant: log M is not subtracted.": lambda log_likelihood: jax.nn.logsumexp(
            log_likelihood
        ),
        "exp underflows: for numbers near −2000 this is the logarithm of zero. Take the log-sum-exp.": (
            lambda log_likelihood: jnp.log(jnp.mean(jnp.exp(log_likelihood)))
        ),
        "The mean of the logs is not the log of the mean: it is smaller (Jensen).": lambda log_likelihood: jnp.mean(
            log_likelihood
        ),
        "The logarithm is to be divided by nothing: (1/M) stands inside the log, where it becomes − log M.": (
            lambda log_likelihood: jax.nn.logsumexp(log_likelihood) / len(log_likelihood)
        ),
        "A sign: log M is subtracted, not added.": lambda log_likelihood: (
            jax.nn.logsumexp(log_likelihood) + jnp.log(len(log_likelihood))
        ),
    },
    praise="Right, and it holds where exp underflows. This is quadrature.log_p_x with Monte Carlo nodes.",
)


def _ring(angle, sigma, radius=2.0):
    def decoder(t):
        phase = angle(t[0])
        return radius * jnp.array([jnp.cos(phase), jnp.sin(phase)]), sigma

    return decoder


def _uniform_angle(t):
    return 2 * jnp.pi * jax.scipy.stats.norm.cdf(t)


def _density_and_shape(decoder):
    """What of a ring is compared: log p(x), by the plain sum over a grid, and the number of axes that sigma has."""
    t = jnp.linspace(-6, 6, 4001)

    def view(X):
        first = decoder(jnp.zeros(1))
        if first is Ellipsis or (isinstance(first, tuple) and Ellipsis in first):
            return ...
        if not isinstance(first, tuple) or len(first) != 2:
            raise ValueError("mu, sigma = w(t) needs a tuple of two arrays")
        mu, sigma = jax.vmap(lambda t: tuple(map(jnp.asarray, decoder(t))))(t[:, None])
        axes = sigma.ndim - 1
        sigma = sigma.reshape(len(t), -1)
        deviation = (X[:, None, :] - mu[None]) / sigma[None]
        log_terms = -0.5 * jnp.sum(deviation**2, axis=2) - jnp.sum(jnp.log(sigma) * (2 / sigma.shape[1]), axis=1)[None]
        log_p = jax.nn.logsumexp(log_terms - 0.5 * t[None] ** 2, axis=1)
        return jnp.logaddexp(log_p, -60.0), axes  # far from the ring only rounding would be compared

    return view


def _ring_cases():
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    on_the_ring = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [(jnp.asarray(np.concatenate([on_the_ring, 0.95 * on_the_ring[:2], [[0.0, 0.0]]])),)]


ring = Exercise(
    answer=_ring(_uniform_angle, jnp.full(2, 0.1)),
    view=_density_and_shape,
    cases=_ring_cases,
    mistakes={
        "The ring is inked unevenly: you took t as the angle, but only Φ(t) is uniform.": _ring(
            lambda t: t, jnp.full(2, 0.1)
        ),
        "Φ(t) runs from 0 to 1: without 2π the path is an arc of one radian, not a ring.": _ring(
            jax.scipy.stats.norm.cdf, jnp.full(2, 0.1)
        ),
        "You returned the variance 0.01 where the standard deviation 0.1 was meant.": _ring(
            _uniform_angle, jnp.full(2, 0.01)
        ),
        "sigma needs one entry for each coordinate of x, not one number.": _ring(_uniform_angle, jnp.asarray(0.1)),
        "The radius is 1: multiply the point on the unit circle by 2.": _ring(_uniform_angle, jnp.full(2, 0.1), 1.0),
    },
    praise="Right. At the centre every angle is equally good, so the posterior there is the prior.",
    tolerance=1e-3,
)
