"""The exercises of lecture 4, each with its answer and the mistakes that the checker recognises."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.classroom.checks import Exercise


def _table_cases():
    rng = np.random.default_rng(11)
    log_weight = jnp.asarray(np.log(rng.dirichlet(np.ones(6))))
    table = rng.normal(size=(4, 6)) * 3
    return [(jnp.asarray(table), log_weight), (jnp.asarray(table - 900.0), log_weight)]


def _e_step(joint, axis=1, finish=lambda log_q: log_q):
    def e_step(table, log_weight):
        log_joint = joint(table, log_weight)
        log_p_x = jax.nn.logsumexp(log_joint, axis=axis)
        return finish(log_joint - jnp.expand_dims(log_p_x, axis)), log_p_x

    return e_step


def _joint(table, log_weight):
    return table + log_weight[None, :]


def _by_exp(table, log_weight):
    joint = jnp.exp(_joint(table, log_weight))
    p_x = joint.sum(axis=1)
    return jnp.log(joint / p_x[:, None]), jnp.log(p_x)


def _answer_e_step(table, log_weight):
    return _e_step(_joint)(table, log_weight)


e_step = Exercise(
    answer=_answer_e_step,
    cases=_table_cases,
    mistakes={
        "The prior is forgotten, and both p(x) and q need it. "
        "Look at log_weight, which holds each node's share of p(t).": _e_step(lambda table, log_weight: table),
        "The wrong axis: you added up over the data. "
        "Look at the shapes: the sum is over t, axis 1, and log p(x) has one entry for each datum.": (
            _e_step(_joint, axis=0)
        ),
        "exp underflows: near −900 it is zero, and its logarithm −inf. "
        "Look at jax.nn.logsumexp, which takes the largest term out first.": _by_exp,
        "log q is not normalised. "
        "Look at your second answer: log p(x) is what has to be subtracted.": lambda table, log_weight: (
            _joint(table, log_weight),
            jax.nn.logsumexp(_joint(table, log_weight), axis=1),
        ),
        "You returned q where its logarithm was meant. Look at the first thing that your function returns.": _e_step(
            _joint, finish=jnp.exp
        ),
        "The mean over the nodes where the sum was meant. "
        "Look at log_weight: the weights are in it already, and no 1/S is needed.": (
            lambda table, log_weight: (
                jax.nn.log_softmax(_joint(table, log_weight), axis=1),
                jax.nn.logsumexp(_joint(table, log_weight), axis=1) - jnp.log(table.shape[1]),
            )
        ),
        "A sign: you added log p(x). Look at Bayes' rule: p(x) is in the denominator.": lambda table, log_weight: (
            _joint(table, log_weight) + jax.nn.logsumexp(_joint(table, log_weight), axis=1)[:, None],
            jax.nn.logsumexp(_joint(table, log_weight), axis=1),
        ),
    },
    praise="Right, and see what it cost: log q came for the price of log p(x), and not without it.",
)


def _q_cases():
    rng = np.random.default_rng(12)
    cases = []
    for q in (rng.dirichlet(np.ones(7)), np.array([0.5, 0.0, 0.25, 0.0, 0.2, 0.05, 0.0])):
        with np.errstate(divide="ignore"):
            cases.append((jnp.asarray(np.log(q)), jnp.asarray(rng.normal(size=7) * 2 - 30.0)))
    return cases


def _expectation(log_q, values):
    q = jnp.exp(log_q)
    return jnp.sum(jnp.where(q > 0, q * jnp.where(q > 0, values, 0), 0))


def _finite(log_q):
    return jnp.where(log_q > -jnp.inf, log_q, 0)


lower_bound = Exercise(
    answer=lambda log_q, log_joint: _expectation(log_q, log_joint - _finite(log_q)),
    cases=_q_cases,
    mistakes={
        "The entropy is forgotten: this is E_q log p(x,t|w) alone, which a spike at the mode would maximise. "
        "Look at the denominator q(t) in the formula for L(w, q).": (
            lambda log_q, log_joint: _expectation(log_q, log_joint)
        ),
        "A sign: you added log q. "
        "Look at the formula for L(w, q): q(t) is in the denominator.": lambda log_q, log_joint: _expectation(
            log_q, log_joint + _finite(log_q)
        ),
        "0 · (−∞) is not a number, and your sum has it wherever q is 0. "
        "Look at jnp.where: it puts a 0 there, before the product.": lambda log_q, log_joint: jnp.sum(
            jnp.exp(log_q) * (log_joint - log_q)
        ),
        "Not weighted by q: you added the terms up as they are. "
        "Look at E_q: every term is multiplied by q_s = exp(log_q).": lambda log_q, log_joint: jnp.sum(
            jnp.where(log_q > -jnp.inf, log_joint - _finite(log_q), 0)
        ),
        "The mean over the nodes where the sum was meant. "
        "Look at q: it sums to one already, and no 1/S is needed.": lambda log_q, log_joint: (
            _expectation(log_q, log_joint - _finite(log_q)) / len(log_q)
        ),
        "This is log p(x): your sum stands inside the logarithm. "
        "Look at the formula for L(w, q): there the logarithm stands inside the sum.": (
            lambda log_q, log_joint: jax.nn.logsumexp(log_joint)
        ),
        "A sign: this is −L(w, q). "
        "Look at the fraction in the formula: the joint is above, q below.": lambda log_q, log_joint: _expectation(
            log_q, _finite(log_q) - log_joint
        ),
    },
    praise="Right: this is bound.lower_bound_on_nodes once the table is there.",
)


def _kl(log_q, log_joint):
    return _expectation(log_q, _finite(log_q) - jax.nn.log_softmax(log_joint))


kl = Exercise(
    answer=_kl,
    cases=_q_cases,
    mistakes={
        "The wrong way round: you averaged under p, so this is KL(p‖q). "
        "Look at what multiplies your terms: the gap of the bound has q there.": (
            lambda log_q, log_joint: jnp.sum(jax.nn.softmax(log_joint) * (jax.nn.log_softmax(log_joint) - log_q))
        ),
        "The posterior is not normalised: this is −L(w, q). "
        "Look at log_joint: log p(x|w), its log-sum-exp, has to be taken off.": (
            lambda log_q, log_joint: _expectation(log_q, _finite(log_q) - log_joint)
        ),
        "A sign: KL is never negative. "
        "Look at the fraction in the formula: q is above, the posterior below.": lambda log_q, log_joint: (
            -_kl(log_q, log_joint)
        ),
        "0 · (−∞) is not a number, and your sum has it wherever q is 0. "
        "Look at jnp.where: it puts a 0 there, before the product.": lambda log_q, log_joint: jnp.sum(
            jnp.exp(log_q) * (log_q - jax.nn.log_softmax(log_joint))
        ),
        "Not weighted by q: you added the terms up as they are. "
        "Look at E_q: every term is multiplied by q_s = exp(log_q).": lambda log_q, log_joint: jnp.sum(
            jnp.where(log_q > -jnp.inf, _finite(log_q) - jax.nn.log_softmax(log_joint), 0)
        ),
        "The entropy of q is forgotten: this is −E_q log p(t|x,w) alone. "
        "Look at the numerator in the formula for KL.": lambda log_q, log_joint: _expectation(
            log_q, -jax.nn.log_softmax(log_joint)
        ),
        "The mean over the nodes where the sum was meant. "
        "Look at q: it sums to one already, and no 1/S is needed.": lambda log_q, log_joint: (
            _kl(log_q, log_joint) / len(log_q)
        ),
    },
    praise="Right. Add it to the bound of exercise 1: the sum does not depend on q.",
)


def _m_step_cases():
    rng = np.random.default_rng(13)
    return [(jnp.asarray(rng.normal(size=(9, 3)) + 1.0), jnp.asarray(rng.dirichlet(0.6 * np.ones(4), size=9)))]


def _means(X, q):
    return q.T @ X / q.sum(axis=0)[:, None]


def _squares(X, q, mu):
    """Σ_i Σ_s q_is |x_i − μ_s|²."""
    return jnp.sum(q[:, :, None] * (X[:, None, :] - mu[None]) ** 2)


def _m_step(means=_means, responsibility=lambda q: q, mean_square=lambda total, N, S, D: total / (N * D)):
    def m_step(X, q):
        q_used = responsibility(q)
        mu = means(X, q_used)
        (N, D), S = X.shape, q.shape[1]
        return mu, jnp.sqrt(mean_square(_squares(X, q_used, mu), N, S, D))

    return m_step


def _without_spread(X, q):
    mu = _means(X, q)
    return mu, jnp.sqrt(jnp.mean((X - q @ mu) ** 2))


def _sigma_squared(X, q):
    mu, sigma = _m_step()(X, q)
    return mu, sigma**2


m_step = Exercise(
    answer=_m_step(),
    cases=_m_step_cases,
    mistakes={
        "You returned σ² where the standard deviation σ was meant. "
        "Look at the last thing that your function returns.": _sigma_squared,
        "You summed over the pixels where their mean was meant. "
        "Look at what σ² is: a mean over the N images and the D pixels.": _m_step(
            mean_square=lambda total, N, S, D: total / N
        ),
        "You divided σ² by N S D, and N D was meant. "
        "Look at the weights: for each datum the q_is sum to one over s.": _m_step(
            mean_square=lambda total, N, S, D: total / (N * S * D)
        ),
        "You divided μ_s by N, where Σ_i q_is was meant. "
        "Look at what a weighted mean is divided by: the sum of its weights.": _m_step(
            means=lambda X, q: q.T @ X / len(X)
        ),
        "You did not divide μ_s at all. Look at what a weighted mean is divided by: the sum of its weights.": _m_step(
            means=lambda X, q: q.T @ X
        ),
        "You gave each datum to its best node alone: that is K-means. "
        "Look at q: every node gets its share q_is of every datum.": _m_step(
            responsibility=lambda q: jnp.eye(q.shape[1], dtype=q.dtype)[jnp.argmax(q, axis=1)]
        ),
        "You took |x_i − Σ_s q_is μ_s|² for Σ_s q_is |x_i − μ_s|²: t is uncertain, and that is error too. "
        "Look at the order: first the square for every pair (i, s), then the weights.": _without_spread,
        "You divided by N − 1 where the maximum has N. Look at the weights: the q_is of all pairs sum to N.": _m_step(
            mean_square=lambda total, N, S, D: total / ((N - 1) * D)
        ),
    },
    praise="Right: with a free μ_s for every node this is EM for a mixture of Gaussians with fixed shares.",
)
