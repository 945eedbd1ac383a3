"""The exercises of lecture 4, each with its answer and the mistakes that it knows by name."""

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
        "The prior is forgotten: log_weight holds the node's share of p(t), and both p(x) and q need it.": _e_step(
            lambda table, log_weight: table
        ),
        "The wrong axis: a posterior is over t, so the sum is over the nodes, and p(x) has one entry for each datum.": (
            _e_step(_joint, axis=0)
        ),
        "exp underflows: near −900 it is zero, and its logarithm −inf. Take the log-sum-exp.": _by_exp,
        "log q is not normalised: subtract log p(x), which you have.": lambda table, log_weight: (
            _joint(table, log_weight),
            jax.nn.logsumexp(_joint(table, log_weight), axis=1),
        ),
        "You returned q where its logarithm was meant.": _e_step(_joint, finish=jnp.exp),
        "The mean over the nodes where the sum was meant: the weights are inside log_weight already.": (
            lambda table, log_weight: (
                jax.nn.log_softmax(_joint(table, log_weight), axis=1),
                jax.nn.logsumexp(_joint(table, log_weight), axis=1) - jnp.log(table.shape[1]),
            )
        ),
        "A sign: log q = log joint − log p(x).": lambda table, log_weight: (
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
        "The entropy is forgotten: this is E_q log p(x,t) alone, which a spike at the mode would maximise.": (
            lambda log_q, log_joint: _expectation(log_q, log_joint)
        ),
        "A sign: log q is subtracted. The entropy of q is −E_q log q, and it helps.": lambda log_q, log_joint: (
            _expectation(log_q, log_joint + _finite(log_q))
        ),
        "0 · (−∞) is not a number: where q is 0 the term is 0, and `where` has to say so.": lambda log_q, log_joint: (
            jnp.sum(jnp.exp(log_q) * (log_joint - log_q))
        ),
        "Not weighted by q: an expectation under q multiplies every term with q_s.": lambda log_q, log_joint: jnp.sum(
            jnp.where(log_q > -jnp.inf, log_joint - _finite(log_q), 0)
        ),
        "The mean over the nodes where the sum was meant: q sums to one already.": lambda log_q, log_joint: (
            _expectation(log_q, log_joint - _finite(log_q)) / len(log_q)
        ),
        "This is log p(x): the sum stands inside the logarithm. The bound has the logarithm inside the sum.": (
            lambda log_q, log_joint: jax.nn.logsumexp(log_joint)
        ),
        "A sign: this is −L(w, q). The bound is what we maximise.": lambda log_q, log_joint: _expectation(
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
        "The wrong way round: this is KL(p‖q), the expectation under p. The gap of the bound is KL(q‖p).": (
            lambda log_q, log_joint: jnp.sum(jax.nn.softmax(log_joint) * (jax.nn.log_softmax(log_joint) - log_q))
        ),
        "The posterior is not normalised: from log p(x,t), log p(x) is to be taken off. This is −L(w, q).": (
            lambda log_q, log_joint: _expectation(log_q, _finite(log_q) - log_joint)
        ),
        "A sign: KL is never negative.": lambda log_q, log_joint: -_kl(log_q, log_joint),
        "0 · (−∞) is not a number: where q is 0 the term is 0, and `where` has to say so.": lambda log_q, log_joint: (
            jnp.sum(jnp.exp(log_q) * (log_q - jax.nn.log_softmax(log_joint)))
        ),
        "Not weighted by q: KL is an expectation under q.": lambda log_q, log_joint: jnp.sum(
            jnp.where(log_q > -jnp.inf, _finite(log_q) - jax.nn.log_softmax(log_joint), 0)
        ),
        "The entropy of q is forgotten: this is −E_q log p(t|x) alone.": lambda log_q, log_joint: _expectation(
            log_q, -jax.nn.log_softmax(log_joint)
        ),
        "The mean over the nodes where the sum was meant.": lambda log_q, log_joint: _kl(log_q, log_joint) / len(log_q),
    },
    praise="Right. Add it to exercise 2: the sum does not depend on q.",
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
        "You returned σ² where the standard deviation σ was meant.": _sigma_squared,
        "The sum over the pixels where their mean was meant: σ² divides by N D.": _m_step(
            mean_square=lambda total, N, S, D: total / N
        ),
        "σ² is divided by N D, not by N S D: for each datum the q_is sum to one over s.": _m_step(
            mean_square=lambda total, N, S, D: total / (N * S * D)
        ),
        "μ_s is divided by N where Σ_i q_is was meant: a node is the mean of the data that it answers for.": _m_step(
            means=lambda X, q: q.T @ X / len(X)
        ),
        "μ_s is not divided at all: a weighted mean is a weighted sum over the sum of the weights.": _m_step(
            means=lambda X, q: q.T @ X
        ),
        "Each datum was given to its best node alone: that is K-means. Every node gets its share q_is.": _m_step(
            responsibility=lambda q: jnp.eye(q.shape[1], dtype=q.dtype)[jnp.argmax(q, axis=1)]
        ),
        "|x_i − Σ_s q_is μ_s|² is not Σ_s q_is |x_i − μ_s|²: t is uncertain, and that is error too.": _without_spread,
        "Divided by N − 1 where the maximum has N.": _m_step(mean_square=lambda total, N, S, D: total / ((N - 1) * D)),
    },
    praise="Right: with a free μ_s for every node this is EM for a mixture of Gaussians with fixed shares.",
)
