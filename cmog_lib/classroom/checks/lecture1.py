"""The exercises of lecture 1, each with its answer and the mistakes that the checker recognises."""

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
        "You multiplied by the variance σ² where the standard deviation σ was meant. "
        "Look at the power of sigma in your line: there should be none.": _painted(
            lambda mu, sigma, noise: mu + sigma**2 * noise
        ),
        "You multiplied by √σ, but sigma is a standard deviation already. "
        "Look for a square root in your line that is not needed.": _painted(
            lambda mu, sigma, noise: mu + jnp.sqrt(sigma) * noise
        ),
        "The noise still has deviation 1: it was never multiplied by σ. "
        "Look at what stands in front of `noise` in your line.": _painted(lambda mu, sigma, noise: mu + noise),
        "The noise is missing: you returned μ(t), the middle of the blob, and not a draw from it. "
        "Look at which of the three arrays your line does not use.": _painted(lambda mu, sigma, noise: mu),
        "The mean is missing: you returned the noise without μ(t). "
        "Look at which of the three arrays your line does not use.": _painted(lambda mu, sigma, noise: sigma * noise),
        "A sign: you subtracted the noise. Look at the formula above your cell, x = μ(t) + σ(t) ε.": _painted(
            lambda mu, sigma, noise: mu - sigma * noise
        ),
        "μ and σ have changed places: you multiplied the noise by μ and added σ. "
        "Compare your line with x = μ(t) + σ(t) ε, letter by letter.": _painted(
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
        "The prior is forgotten: your weights are proportional to p(x|t) alone. "
        "Look at where log_prior enters your line.": lambda table, log_prior: jax.nn.softmax(table, axis=1),
        "exp underflows: near −2000 you divide 0 by 0. "
        "Look at jax.nn.softmax, which takes the largest entry out before it takes exp.": _exp_over_sum,
        "Your whole table sums to one, but each row is a posterior of its own. "
        "Look at the axis of your softmax.": lambda table, log_prior: jax.nn.softmax(
            table + log_prior[None, :], axis=None
        ),
        "The wrong axis: each of your columns sums to one, but a posterior is over t, so each row must. "
        "Look at the shape [N, S]: t runs along axis 1.": lambda table, prior: jax.nn.softmax(
            table + prior[None, :], axis=0
        ),
        "Not divided by p(x): you returned p(x|t) p(t), and its rows do not sum to one. "
        "Look at the denominator of Bayes' rule above.": lambda table, log_prior: jnp.exp(table + log_prior[None, :]),
        "You returned logarithms of the weights: one exp is missing. "
        "Look at whether you called log_softmax where softmax was meant.": lambda table, log_prior: jax.nn.log_softmax(
            table + log_prior[None, :], axis=1
        ),
        "A sign: you subtracted the log prior. "
        "Look at the numerator of Bayes' rule, a product: its logarithm is a sum.": lambda table, log_prior: (
            jax.nn.softmax(table - log_prior[None, :], axis=1)
        ),
        "You added the prior itself, where its logarithm was meant. "
        "Look for an exp around log_prior: the logarithm of a product is a sum of logarithms.": (
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
        "The sum where the mean was meant: 1/M is missing. "
        "Look at what 1/M becomes once it has left the logarithm.": lambda log_likelihood: jax.nn.logsumexp(
            log_likelihood
        ),
        "exp underflows: for numbers near −2000 you took the logarithm of zero. "
        "Look at jax.nn.logsumexp, which takes the largest term out first.": (
            lambda log_likelihood: jnp.log(jnp.mean(jnp.exp(log_likelihood)))
        ),
        "You took the mean of the logs, which is smaller than the log of the mean (Jensen). "
        "Look at the formula: the logarithm stands outside the sum.": lambda log_likelihood: jnp.mean(log_likelihood),
        "You divided the logarithm by M, but 1/M stands inside the logarithm. "
        "Look at the rule log(a/M) = log a − log M.": (
            lambda log_likelihood: jax.nn.logsumexp(log_likelihood) / len(log_likelihood)
        ),
        "A sign: you added log M. Look at the rule log(a/M) = log a − log M.": lambda log_likelihood: (
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
    """What is compared of a ring: log p(x), by the plain sum over a grid, and the number of axes of sigma."""
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
        "The ring is inked unevenly: you took t itself as the angle, and t is Gaussian. "
        "Look at Φ(t), which is uniform on (0, 1).": _ring(lambda t: t, jnp.full(2, 0.1)),
        "Without 2π your path is an arc of one radian, not a ring. "
        "Look at what your angle is when Φ(t) reaches 1.": _ring(jax.scipy.stats.norm.cdf, jnp.full(2, 0.1)),
        "You returned the variance 0.01 where the standard deviation 0.1 was meant. "
        "Look at the second thing that your class returns.": _ring(_uniform_angle, jnp.full(2, 0.01)),
        "You returned one number for sigma, and it needs one for each coordinate of x. "
        "Look at the comment in the cell: sigma has the shape [2].": _ring(_uniform_angle, jnp.asarray(0.1)),
        "Your ring has radius 1, and 2 was asked for. Look at what multiplies the cosine and the sine.": _ring(
            _uniform_angle, jnp.full(2, 0.1), 1.0
        ),
    },
    praise="Right. At the centre every angle is equally good, so the posterior there is the prior.",
    tolerance=1e-3,
)
