"""The exercises of lecture 2, each with its answer and the mistakes that it knows by name."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from cmog_lib.classroom.checks import Exercise


def _model_and_datum():
    rng = np.random.default_rng(4)
    W, b, x = (jnp.asarray(rng.normal(size=size)) for size in ((5, 2), 5, 5))
    return [(W, b, 0.6, x)]


def _posterior(M, projected):
    def posterior(W, b, sigma, x):
        covariance = jnp.linalg.inv(M(W, sigma))
        return covariance @ projected(W, b, sigma, x), covariance

    return posterior


def _M(W, sigma):
    return jnp.eye(W.shape[1]) + W.T @ W / sigma**2


def _projected(W, b, sigma, x):
    return W.T @ (x - b) / sigma**2


posterior = Exercise(
    answer=_posterior(_M, _projected),
    cases=_model_and_datum,
    mistakes={
        "The prior is forgotten: without the I in M this is least squares, with its covariance.": _posterior(
            lambda W, sigma: W.T @ W / sigma**2, _projected
        ),
        "σ where σ² was meant: the precision of the noise is 1/σ².": _posterior(
            lambda W, sigma: jnp.eye(W.shape[1]) + W.T @ W / sigma, lambda W, b, sigma, x: W.T @ (x - b) / sigma
        ),
        "The noise is forgotten: M = I + WᵀW holds for σ = 1 only.": _posterior(
            lambda W, sigma: jnp.eye(W.shape[1]) + W.T @ W, lambda W, b, sigma, x: W.T @ (x - b)
        ),
        "x was not centred: it is x − b that W explains.": _posterior(_M, lambda W, b, sigma, x: W.T @ x / sigma**2),
        "The mean lacks a factor 1/σ²: Wᵀ(x − b) is to be weighed by the precision of the noise.": _posterior(
            _M, lambda W, b, sigma, x: W.T @ (x - b)
        ),
        "You returned M, the precision, where its inverse, the covariance, was meant.": lambda W, b, sigma, x: (
            jnp.linalg.solve(_M(W, sigma), _projected(W, b, sigma, x)),
            _M(W, sigma),
        ),
        "M = WᵀW + σ²I is another book's M: with it the covariance is σ²M⁻¹, and σ² is forgotten here.": (
            lambda W, b, sigma, x: (
                jnp.linalg.solve(sigma**2 * _M(W, sigma), W.T @ (x - b)),
                jnp.linalg.inv(sigma**2 * _M(W, sigma)),
            )
        ),
        "A sign: it is x − b, not b − x.": _posterior(_M, lambda W, b, sigma, x: -_projected(W, b, sigma, x)),
    },
    praise="Right. This is ppca.posterior; the library only avoids the inverse.",
)


sigma = Exercise(
    answer=lambda eigenvalues, d: jnp.sqrt(jnp.mean(eigenvalues[d:])),
    cases=lambda: [(jnp.asarray([4.0, 2.5, 0.9, 0.4, 0.2, 0.06]), d) for d in (1, 2, 4)],
    mistakes={
        "This is the variance σ²: the standard deviation is its root.": lambda eigenvalues, d: jnp.mean(
            eigenvalues[d:]
        ),
        "The sum where the mean was meant: divide by the number of discarded eigenvalues.": lambda eigenvalues, d: (
            jnp.sqrt(jnp.sum(eigenvalues[d:]))
        ),
        "Divided by D: the mean is over the D − d eigenvalues that were discarded.": lambda eigenvalues, d: jnp.sqrt(
            jnp.sum(eigenvalues[d:]) / len(eigenvalues)
        ),
        "These are the kept eigenvalues: noise is what is left over, λ_j with j > d.": lambda eigenvalues, d: jnp.sqrt(
            jnp.mean(eigenvalues[:d])
        ),
        "One too many kept: Python counts from 0, so eigenvalues[d] is λ_(d+1), the first to be discarded.": (
            lambda eigenvalues, d: jnp.sqrt(jnp.mean(eigenvalues[d + 1 :]))
        ),
        "One too few kept: the first d eigenvalues stay.": lambda eigenvalues, d: jnp.sqrt(
            jnp.mean(eigenvalues[d - 1 :])
        ),
        "The mean of the roots is not the root of the mean.": lambda eigenvalues, d: jnp.mean(
            jnp.sqrt(eigenvalues[d:])
        ),
    },
    praise="Right: σ² is the mean of what was thrown away.",
)


def _marginal(covariance, constant=lambda D: D * jnp.log(2 * jnp.pi), centred=True, log_det=1.0, sign=-0.5):
    def log_marginal(W, b, sigma, x):
        C = covariance(W, sigma)
        r = x - b if centred else x
        determinant = log_det * jnp.linalg.slogdet(C)[1]
        return sign * (constant(len(x)) + determinant + r @ jnp.linalg.solve(C, r))

    return log_marginal


def _covariance(W, sigma):
    return W @ W.T + sigma**2 * jnp.eye(len(W))


marginal = Exercise(
    answer=_marginal(_covariance),
    cases=_model_and_datum,
    mistakes={
        "σ where σ² was meant: a covariance holds variances.": _marginal(
            lambda W, sigma: W @ W.T + sigma * jnp.eye(len(W))
        ),
        "The noise is missing: WWᵀ alone has rank d and no inverse; add σ²I.": _marginal(lambda W, sigma: W @ W.T),
        "The constant D log 2π is missing.": _marginal(_covariance, constant=lambda D: 0.0),
        "The constant is D log 2π, once for each of the D coordinates.": _marginal(
            _covariance, constant=lambda D: jnp.log(2 * jnp.pi)
        ),
        "The log determinant is missing.": _marginal(_covariance, log_det=0.0),
        "The log determinant is halved twice: the ½ stands in front of the bracket.": _marginal(
            _covariance, log_det=0.5
        ),
        "A sign in the bracket: + log det C, all of it times −½.": _marginal(_covariance, log_det=-1.0),
        "The inverse is missing: (x − b)ᵀ C⁻¹ (x − b).": lambda W, b, sigma, x: (
            -0.5
            * (
                len(x) * jnp.log(2 * jnp.pi)
                + jnp.linalg.slogdet(_covariance(W, sigma))[1]
                + (x - b) @ _covariance(W, sigma) @ (x - b)
            )
        ),
        "x was not centred: the distance is measured from b.": _marginal(_covariance, centred=False),
        "A sign: this is −log p(x).": _marginal(_covariance, sign=0.5),
        "The factor ½ is missing.": _marginal(_covariance, sign=-1.0),
    },
    praise="Right. ppca.log_p_x gives the same number through a d × d matrix.",
)


def _m_step_cases():
    rng = np.random.default_rng(5)
    m = rng.normal(size=(30, 2))
    X = m @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(30, 4))
    return [tuple(jnp.asarray(part) for part in (X - X.mean(0), m, np.array([[0.5, 0.1], [0.1, 0.3]])))]


def _m_step(second_moment, sigma_squared, finish=jnp.sqrt):
    def m_step(X, m, C):
        W = X.T @ m @ jnp.linalg.inv(second_moment(m, C))
        return W, finish(sigma_squared(X, m, C, W))

    return m_step


def _moment(m, C):
    return m.T @ m + len(m) * C


def _sigma_squared(X, m, C, W):
    return jnp.mean((X - m @ W.T) ** 2) + jnp.trace(W @ C @ W.T) / X.shape[1]


m_step = Exercise(
    answer=_m_step(_moment, _sigma_squared),
    cases=_m_step_cases,
    mistakes={
        "t_i was taken for m_i everywhere: without C the noise is underestimated, and EM becomes plain PCA.": _m_step(
            lambda m, C: m.T @ m, lambda X, m, C, W: jnp.mean((X - m @ W.T) ** 2)
        ),
        "In W, t_i was taken for m_i: E[t tᵀ] = m mᵀ + C.": _m_step(lambda m, C: m.T @ m, _sigma_squared),
        "C must be counted once for each datum: the sum over i has N of them.": _m_step(
            lambda m, C: m.T @ m + C, _sigma_squared
        ),
        "σ² lacks tr(W C Wᵀ): the latents are uncertain, and that is error too.": _m_step(
            _moment, lambda X, m, C, W: jnp.mean((X - m @ W.T) ** 2)
        ),
        "You returned σ² where the standard deviation σ was meant.": _m_step(
            _moment, _sigma_squared, finish=lambda value: value
        ),
        "The sum over the coordinates where their mean was meant: σ² divides by N D.": _m_step(
            _moment, lambda X, m, C, W: X.shape[1] * _sigma_squared(X, m, C, W)
        ),
        "tr(W C Wᵀ) is a sum over D coordinates too: divide it by D.": _m_step(
            _moment, lambda X, m, C, W: jnp.mean((X - m @ W.T) ** 2) + jnp.trace(W @ C @ W.T)
        ),
        "tr(W C Wᵀ) belongs to every datum: in the sum over i it is there N times.": _m_step(
            _moment,
            lambda X, m, C, W: jnp.mean((X - m @ W.T) ** 2) + jnp.trace(W @ C @ W.T) / X.size,
        ),
        "Divided by N − 1 where the maximum of the likelihood has N.": _m_step(
            _moment, lambda X, m, C, W: _sigma_squared(X, m, C, W) * len(X) / (len(X) - 1)
        ),
    },
    praise="Right: ppca.em_step does this, and moves b along.",
)
