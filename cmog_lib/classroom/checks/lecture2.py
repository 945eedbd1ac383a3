"""The exercises of lecture 2, each with its answer and the mistakes that the checker recognises."""

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
        "The prior is forgotten: without the I in M this is least squares, with its covariance. "
        "Look at the first term of M = I + WᵀW/σ².": _posterior(lambda W, sigma: W.T @ W / sigma**2, _projected),
        "σ where σ² was meant: you divided by σ, and the precision of the noise is 1/σ². "
        "Look at Σ₀ = σ² I and at its inverse.": _posterior(
            lambda W, sigma: jnp.eye(W.shape[1]) + W.T @ W / sigma, lambda W, b, sigma, x: W.T @ (x - b) / sigma
        ),
        "The noise is forgotten: your M = I + WᵀW holds for σ = 1 only. "
        "Look at where Σ₀⁻¹ stands in M and in m.": _posterior(
            lambda W, sigma: jnp.eye(W.shape[1]) + W.T @ W, lambda W, b, sigma, x: W.T @ (x - b)
        ),
        "x was not centred: it is x − b that W explains. Look at the last factor in the formula for m.": _posterior(
            _M, lambda W, b, sigma, x: W.T @ x / sigma**2
        ),
        "Your mean lacks a factor 1/σ². Look at the formula for m: Σ₀⁻¹ stands between Wᵀ and x − b.": _posterior(
            _M, lambda W, b, sigma, x: W.T @ (x - b)
        ),
        "You returned M, the precision, where its inverse, the covariance, was meant. "
        "Look at the second thing that your function returns.": lambda W, b, sigma, x: (
            jnp.linalg.solve(_M(W, sigma), _projected(W, b, sigma, x)),
            _M(W, sigma),
        ),
        "Your M = WᵀW + σ²I is another book's: with it the covariance is σ²M⁻¹, and your σ² is missing. "
        "Look at the M of this page, I + WᵀW/σ², or multiply your inverse by σ².": (
            lambda W, b, sigma, x: (
                jnp.linalg.solve(sigma**2 * _M(W, sigma), W.T @ (x - b)),
                jnp.linalg.inv(sigma**2 * _M(W, sigma)),
            )
        ),
        "A sign: you took b − x where x − b was meant. Look at the last factor in the formula for m.": _posterior(
            _M, lambda W, b, sigma, x: -_projected(W, b, sigma, x)
        ),
    },
    praise="Right. This is ppca.posterior; the library only avoids the inverse.",
)


sigma = Exercise(
    answer=lambda eigenvalues, d: jnp.sqrt(jnp.mean(eigenvalues[d:])),
    cases=lambda: [(jnp.asarray([4.0, 2.5, 0.9, 0.4, 0.2, 0.06]), d) for d in (1, 2, 4)],
    mistakes={
        "This is the variance σ², and the standard deviation was asked for. "
        "Look at what is still to be done to the mean: a root.": lambda eigenvalues, d: jnp.mean(eigenvalues[d:]),
        "The sum where the mean was meant. "
        "Look at 1/(D − d) in front of the sum in the formula for σ².": lambda eigenvalues, d: jnp.sqrt(
            jnp.sum(eigenvalues[d:])
        ),
        "You divided by D, but the mean is over the D − d discarded eigenvalues alone. "
        "Count the numbers that you have added up.": lambda eigenvalues, d: jnp.sqrt(
            jnp.sum(eigenvalues[d:]) / len(eigenvalues)
        ),
        "You averaged the kept eigenvalues, and noise is what is left over. "
        "Look at the range of the sum, j > d.": lambda eigenvalues, d: jnp.sqrt(jnp.mean(eigenvalues[:d])),
        "You kept one eigenvalue too many. "
        "Look at eigenvalues[d]: Python counts from 0, so this is λ_(d+1), the first to be discarded.": (
            lambda eigenvalues, d: jnp.sqrt(jnp.mean(eigenvalues[d + 1 :]))
        ),
        "You discarded one eigenvalue too many: the first d stay. "
        "Look at where your slice begins: eigenvalues[d] is the first to be discarded.": lambda eigenvalues, d: (
            jnp.sqrt(jnp.mean(eigenvalues[d - 1 :]))
        ),
        "You took the mean of the roots, which is not the root of the mean. "
        "Look at the order of the two: the formula is for σ², so the root comes last.": lambda eigenvalues, d: jnp.mean(
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
        "σ where σ² was meant: a covariance holds variances. Look at the second term of C = WWᵀ + σ²I.": _marginal(
            lambda W, sigma: W @ W.T + sigma * jnp.eye(len(W))
        ),
        "The noise is missing: WWᵀ alone has rank d and no inverse. "
        "Look at the second term of C = WWᵀ + σ²I.": _marginal(lambda W, sigma: W @ W.T),
        "The constant with 2π is missing. "
        "Look at the normaliser of a Gaussian density: it has the factor (2π)^(D/2).": _marginal(
            _covariance, constant=lambda D: 0.0
        ),
        "The constant is there once, but each of the D coordinates brings one. "
        "Look at the power of 2π in the normaliser: it is D/2.": _marginal(
            _covariance, constant=lambda D: jnp.log(2 * jnp.pi)
        ),
        "The log determinant is missing. "
        "Look at the normaliser of a Gaussian density: it has the factor √det C.": _marginal(_covariance, log_det=0.0),
        "The log determinant is halved twice. Look at the bracket: the ½ in front of it is for all of it.": _marginal(
            _covariance, log_det=0.5
        ),
        "A sign inside the bracket: you subtracted log det C. "
        "Look at the bracket: its three terms are added, and −½ stands in front.": _marginal(_covariance, log_det=-1.0),
        "The inverse is missing: you have (x − b)ᵀ C (x − b). "
        "Look at jnp.linalg.solve(C, r), which is C⁻¹ r.": lambda W, b, sigma, x: (
            -0.5
            * (
                len(x) * jnp.log(2 * jnp.pi)
                + jnp.linalg.slogdet(_covariance(W, sigma))[1]
                + (x - b) @ _covariance(W, sigma) @ (x - b)
            )
        ),
        "x was not centred. Look at where this Gaussian has its middle: distances are measured from b.": _marginal(
            _covariance, centred=False
        ),
        "A sign: this is −log p(x). Look at the ½ in front: it has a minus.": _marginal(_covariance, sign=0.5),
        "The factor ½ is missing. Look at the exponent of a Gaussian, −½ (x − b)ᵀ C⁻¹ (x − b).": _marginal(
            _covariance, sign=-1.0
        ),
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
        "You took m_i for t_i everywhere: without C the noise is underestimated, and EM becomes plain PCA. "
        "Look at both expectations: C enters W and σ.": _m_step(
            lambda m, C: m.T @ m, lambda X, m, C, W: jnp.mean((X - m @ W.T) ** 2)
        ),
        "In W you took m_i for t_i. Look at E[t_i t_iᵀ], which is m_i m_iᵀ + C.": _m_step(
            lambda m, C: m.T @ m, _sigma_squared
        ),
        "You counted C once, but it is there for each datum. "
        "Count the terms of the sum over i of E[t_i t_iᵀ]: each brings a C.": _m_step(
            lambda m, C: m.T @ m + C, _sigma_squared
        ),
        "σ² lacks tr(W C Wᵀ): the latents are uncertain, and that is error too. "
        "Look at E‖x − W t‖², in which t varies around m with covariance C.": _m_step(
            _moment, lambda X, m, C, W: jnp.mean((X - m @ W.T) ** 2)
        ),
        "You returned σ² where the standard deviation σ was meant. "
        "Look at the last thing that your function returns.": _m_step(
            _moment, _sigma_squared, finish=lambda value: value
        ),
        "You summed over the coordinates where their mean was meant. "
        "Look at 1/(N D) in front of σ²: it has a D.": _m_step(
            _moment, lambda X, m, C, W: X.shape[1] * _sigma_squared(X, m, C, W)
        ),
        "You did not divide tr(W C Wᵀ) by D, and it is a sum over D coordinates. "
        "Look at 1/(N D) in front of σ²: it divides both terms.": _m_step(
            _moment, lambda X, m, C, W: jnp.mean((X - m @ W.T) ** 2) + jnp.trace(W @ C @ W.T)
        ),
        "You counted tr(W C Wᵀ) once, but it is there for each datum. "
        "Count the terms of the sum over i: the trace is in it N times.": _m_step(
            _moment,
            lambda X, m, C, W: jnp.mean((X - m @ W.T) ** 2) + jnp.trace(W @ C @ W.T) / X.size,
        ),
        "You divided by N − 1 where the maximum of the likelihood has N. Look at 1/(N D) in front of σ².": _m_step(
            _moment, lambda X, m, C, W: _sigma_squared(X, m, C, W) * len(X) / (len(X) - 1)
        ),
    },
    praise="Right: ppca.em_step does this, and moves b along.",
)
