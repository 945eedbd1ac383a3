"""The exercises of lecture 6, each with its answer and the mistakes that the checker recognises."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.classroom.checks import Exercise
from cmog_lib.model import LOG_2PI


def _update_cases():
    rng = np.random.default_rng(31)
    log_q2 = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(2, 5))), axis=1)
    return [(jnp.asarray(rng.normal(size=(5, 5)) * 2 + level), log_q2[k]) for k, level in enumerate((-4.0, -30.0))]


update = Exercise(
    answer=lambda J, log_q2: jax.nn.log_softmax(J @ jnp.exp(log_q2)),
    cases=_update_cases,
    mistakes={
        "This is the log of an average of densities, which with a flat q̃₂ is the marginal. "
        "Look at the box: the update averages logarithms, and J holds them.": (
            lambda J, log_q2: jax.nn.log_softmax(jax.nn.logsumexp(J + log_q2[None], axis=1))
        ),
        "The wrong axis: you averaged over t₁. Look at J[a, b]: rows are t₁, columns t₂.": (
            lambda J, log_q2: jax.nn.log_softmax(J.T @ jnp.exp(log_q2))
        ),
        "Not normalised: exp of your answer does not sum to one. "
        "Look at the const of the formula, or at jax.nn.log_softmax.": (lambda J, log_q2: J @ jnp.exp(log_q2)),
        "You took log q̃₂ for the weights. Look at log_q2: the weights of the average are its exp.": lambda J, log_q2: (
            jax.nn.log_softmax(J @ log_q2)
        ),
        "You took a plain mean over t₂. Look at log_q2: each t₂ has its weight, q̃₂(t₂).": lambda J, log_q2: (
            jax.nn.log_softmax(J.mean(axis=1))
        ),
        "You looked at the likeliest t₂ only: a maximum, not an expectation. "
        "Look at the E in the box: it averages over all t₂.": (lambda J, log_q2: jax.nn.log_softmax(J.max(axis=1))),
        "A sign: your q̃₁ is high where log p(x,t|w) is low. Look for a minus that the box does not have.": (
            lambda J, log_q2: jax.nn.log_softmax(-J @ jnp.exp(log_q2))
        ),
        "You returned the weights, and their logarithm was asked for. "
        "Look at your last function: log_softmax, not softmax.": lambda J, log_q2: jax.nn.softmax(J @ jnp.exp(log_q2)),
    },
    praise="Right. Do this for t₁, then for t₂, and again: that is all of coordinate ascent.",
)


def _gap_cases():
    rng = np.random.default_rng(32)
    return [(jnp.asarray(rng.normal(size=shape)), sigma) for shape, sigma in (((4, 2), 0.6), ((6, 3), 1.7))]


def _precision(W, sigma):
    return jnp.eye(W.shape[1]) + W.T @ W / sigma**2


def _half(A, weight=0.5):
    return weight * (jnp.sum(jnp.log(jnp.diagonal(A))) - jnp.linalg.slogdet(A)[1])


gap = Exercise(
    answer=lambda W, sigma: _half(_precision(W, sigma)),
    cases=_gap_cases,
    mistakes={
        "The factor ½ is missing. Look at the formula: ½ stands in front of the bracket.": lambda W, sigma: _half(
            _precision(W, sigma), 1.0
        ),
        "A sign: a KL is never negative. "
        "Look at the bracket: Σ log P_jj comes first, and is the larger.": lambda W, sigma: _half(
            _precision(W, sigma), -0.5
        ),
        "σ where σ² was meant: sigma is a standard deviation. Look at the power of sigma in P = I + WᵀW/σ².": (
            lambda W, sigma: _half(jnp.eye(W.shape[1]) + W.T @ W / sigma)
        ),
        "The prior's part of P is forgotten. Look at the first term of P = I + WᵀW/σ².": lambda W, sigma: _half(
            W.T @ W / sigma**2
        ),
        "You used the covariance P⁻¹: this is KL(p‖q) for the q with p's own deviations. "
        "Look at the formula: L(w, q) pays KL(q‖p), which is made of P itself.": (
            lambda W, sigma: _half(jnp.linalg.inv(_precision(W, sigma)))
        ),
        "You took WWᵀ + σ² I, which is the covariance of x. "
        "Look at the shape: P is the precision of t given x, d × d.": (
            lambda W, sigma: _half(W @ W.T + sigma**2 * jnp.eye(len(W)))
        ),
        "You have only one of the two terms. Look at Σ log P_jj, which comes from the widths of the product.": (
            lambda W, sigma: -0.5 * jnp.linalg.slogdet(_precision(W, sigma))[1]
        ),
    },
    praise="Right. No x in it: turning W costs every image the same.",
)


def _bound_cases():
    rng = np.random.default_rng(33)
    drawn = rng.normal(size=(6, 2))
    # Second moments of one: then the entropy in closed form and its average over these draws are the same number.
    noise = jnp.asarray(drawn / np.sqrt((drawn**2).mean(axis=0)))
    return [
        (jnp.array([0.4, -1.1]), jnp.array([0.3, 1.6]), noise, _log_joint),
        (jnp.array([-0.2, 0.7]), jnp.array([0.8, 0.5]), noise, _log_joint),
    ]


def _log_joint(t):
    return -0.5 * jnp.sum(jnp.array([3.0, 1.5]) * (t - 0.5) ** 2) - 0.2 * t[0] ** 2 * t[1] ** 2 + 4.0


def _bound(spread=lambda s: s, sign=-1.0, log_scale=lambda s: jnp.log(s), average=jnp.mean, centre=1.0):
    def lower_bound(m, s, noise, log_joint):
        T = centre * m[None] + spread(s)[None] * noise
        log_q = -0.5 * jnp.sum(noise**2 + 2 * log_scale(s)[None] + LOG_2PI, axis=1)
        return average(jax.vmap(log_joint)(T) + sign * log_q)

    return lower_bound


lower_bound = Exercise(
    answer=_bound(),
    cases=_bound_cases,
    mistakes={
        "s² where s was meant: your draws have the wrong width. "
        "Look at t = m + s ε, where s is a standard deviation.": _bound(spread=lambda s: s**2),
        "log s² where log s was meant: your q has an entropy that is not its own. "
        "Look at log q(t): each coordinate has one log s.": _bound(log_scale=lambda s: 2 * jnp.log(s)),
        "A sign: you added log q(t). Look at L(w, q): q(t) is in the denominator.": _bound(sign=1.0),
        "log 2π is missing: the gradient is right, the bound is not. "
        "Look at the normaliser of q: it has ½ log 2π for each coordinate of t.": _bound(
            log_scale=lambda s: jnp.log(s) - 0.5 * LOG_2PI
        ),
        "log q(t) is forgotten: this is E_q log p(x, t|w), whose best q is a spike. "
        "Look at what L(w, q) averages: a difference of two logarithms.": _bound(sign=0.0),
        "The sum over the draws where the mean was meant. "
        "Look at the expectation: M draws stand for it by 1/M Σ.": _bound(average=jnp.sum),
        "You took the log of a mean of weights: that is the importance-weighted bound. "
        "Look at the order: first the logarithm at each draw, then the mean.": _bound(
            average=lambda a: jax.nn.logsumexp(a) - jnp.log(len(a))
        ),
        "Your draws are from the prior, not from q. Look at t = m + s ε: both m and s move the draw.": _bound(
            spread=jnp.ones_like, centre=0.0
        ),
        "m is missing from your draws. Look at t = m + s ε.": _bound(centre=0.0),
        "log s is missing from log q(t): a narrow q would cost nothing. "
        "Look at the normaliser of q: it has one log s for each coordinate.": _bound(log_scale=jnp.zeros_like),
    },
    praise="Right. ε carries the noise, so this is a smooth function of m and s: take its gradient.",
)


def _score_cases():
    rng = np.random.default_rng(34)
    return [
        (jnp.asarray(rng.normal(size=M) * 3 + level), jnp.asarray(rng.normal(size=(M, 2))))
        for M, level in ((5, 60.0), (8, -20.0))
    ]


def _scored(of_others):
    def gradient(height, slope):
        return jnp.mean((height - of_others(height))[:, None] * slope, axis=0)

    return gradient


def _others(height):
    return (jnp.sum(height) - height) / (len(height) - 1)


with_baseline = Exercise(
    answer=_scored(_others),
    cases=_score_cases,
    mistakes={
        "There is no baseline: right in the mean, and as noisy as the heights are high. "
        "Look at what is to be taken off each height: the mean of the others.": _scored(jnp.zeros_like),
        "Your baseline has the draw itself in it: every gradient comes out short by the factor (M − 1)/M. "
        "Look at your mean: the draw's own height has to be left out.": _scored(jnp.mean),
        "You divided by M, but the others are fewer. Count the draws that are left when one is taken away.": _scored(
            lambda height: (jnp.sum(height) - height) / len(height)
        ),
        "A sign: you added the baseline. Look at how it meets the height: it is taken away.": _scored(
            lambda height: -_others(height)
        ),
        "The sum over the draws where the mean was meant. "
        "Look at the expectation: M draws stand for it by 1/M Σ.": lambda height, slope: jnp.sum(
            (height - _others(height))[:, None] * slope, axis=0
        ),
        "You divided by the heights' deviation, and that changes how long the gradient is. "
        "Look at what is allowed: a baseline is only taken away.": lambda height, slope: (
            _scored(_others)(height, slope) / jnp.std(height)
        ),
        "Your baseline is the highest draw, which depends on the draw itself: the mean is not ∇L any more. "
        "Look at what is asked for: the mean of all other draws.": _scored(jnp.max),
        "Your baseline is the median, which has the draw itself in it. "
        "Look at what is asked for: the mean of all other draws.": _scored(jnp.median),
    },
    praise="Right. What is taken away has mean zero, since E_q ∇ log q = 0; what stays is far less noisy.",
)
