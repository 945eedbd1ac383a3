"""The exercises of lecture 5, each with its answer and the mistakes that the checker recognises."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib.classroom.checks import Exercise


def _table_cases():
    rng = np.random.default_rng(21)
    return [(jnp.asarray(rng.normal(size=shape) * 4 + level),) for shape, level in (((3, 5), 0.0), ((6, 2), -700.0))]


expected_log_joint = Exercise(
    answer=lambda table: jnp.mean(jnp.sum(table, axis=1)),
    cases=_table_cases,
    mistakes={
        "The mean over the images where the sum was meant. "
        "Look at log p(X, T|w): X is all the data, so the images are added up.": (lambda table: jnp.mean(table)),
        "The sum over the draws where the mean was meant. Look at 1/M on the slide.": lambda table: jnp.sum(table),
        "The wrong axis: you averaged over the images and added up over the draws. "
        "Look at table[s, i]: draws are axis 0, images axis 1.": (lambda table: jnp.sum(jnp.mean(table, axis=1))),
        "This is the log of a mean of densities. Look at the slide: it averages logarithms.": lambda table: jnp.sum(
            jax.nn.logsumexp(table, axis=0) - jnp.log(table.shape[0])
        ),
        "A sign: this is minus the expectation. Look for a minus that the slide does not have.": lambda table: (
            -jnp.mean(jnp.sum(table, axis=1))
        ),
        "You left one number for each image. "
        "Look at log p(X, T|w): X is all the data, so the images are added up.": lambda table: jnp.mean(table, axis=0),
        "You divided by √M where M was meant. "
        "Look at 1/M on the slide: it is the noise that falls with √M.": lambda table: (
            jnp.sum(table) / jnp.sqrt(table.shape[0])
        ),
    },
    praise="Right. Its gradient in w is what the M-step climbs; T_s is held still.",
)


def _accept_cases():
    log_p = jnp.array([-3.0, -3.0, -3.0, -900.0, -901.0, -3.0, -5.0])
    log_p_new = jnp.array([-2.0, -4.0, -4.0, -899.0, -903.0, -jnp.inf, -4.7])
    u = jnp.array([0.9, 0.2, 0.6, 0.9, 0.05, 0.3, 0.8])
    return [(log_p, log_p_new, u)]


def _by_densities(log_p, log_p_new, u):
    return u < jnp.exp(log_p_new) / jnp.exp(log_p)


accept = Exercise(
    answer=lambda log_p, log_p_new, u: jnp.log(u) < log_p_new - log_p,
    cases=_accept_cases,
    mistakes={
        "You only go uphill: that finds a mode and stays there. "
        "Look at u: downhill is taken too, with probability p(t')/p(t).": (
            lambda log_p, log_p_new, u: log_p_new > log_p
        ),
        "A sign: your ratio is old over new. "
        "Look at the ratio above: t', where the chain might go, is in the numerator.": (
            lambda log_p, log_p_new, u: jnp.log(u) < log_p - log_p_new
        ),
        "exp underflows: near −900 both densities are 0, and 0/0 is not a number. "
        "Look at the logarithms themselves: their difference is the logarithm of the ratio.": _by_densities,
        "The wrong way round: you accept where u is large. "
        "Look at the probability, min(1, ratio): u falls below it just so often.": lambda log_p, log_p_new, u: (
            jnp.log(u) > log_p_new - log_p
        ),
        "You compared u with a difference of logarithms. "
        "Look at the side of u: it needs a logarithm too.": lambda log_p, log_p_new, u: u < log_p_new - log_p,
        "You compared u with the new density, not with the ratio. "
        "Look at where the chain stands: log_p has to enter.": lambda log_p, log_p_new, u: u < jnp.exp(log_p_new),
    },
    praise="Right, and p(x|w) was in neither term: it has cancelled.",
)


def _gradient(t):
    return -jnp.array([4.0, 1.0]) * t - 0.3 * t**3


def _leap_cases():
    rng = np.random.default_rng(22)
    return [(*jnp.asarray(rng.normal(size=(2, 2))), _gradient, step) for step in (0.1, 0.7)]


def _leap(before=0.5, after=0.5, at_new=True, sign=1.0, moved_by=lambda p, p_half: p_half):
    def leapfrog(t, p, gradient, step):
        p_half = p + sign * before * step * gradient(t)
        t_new = t + step * moved_by(p, p_half)
        return t_new, p_half + sign * after * step * gradient(t_new if at_new else t)

    return leapfrog


def _forgotten(t, p, gradient, step):
    p_half = p + 0.5 * step * gradient(t)
    return t + step * p_half, p_half


leapfrog = Exercise(
    answer=_leap(),
    cases=_leap_cases,
    mistakes={
        "You took whole steps of the momentum where half ones were meant. "
        "Look at both updates of p: each has ½ step.": _leap(1.0, 1.0),
        "This is Euler's step, t with the old momentum and p with the old gradient: it gains energy without end. "
        "Look at the order: half a step of p, then t with that p, then half a step of p.": (
            _leap(0.0, 1.0, at_new=False)
        ),
        "Your last half step uses the gradient at the old place. "
        "Look at the argument of the second gradient: it is the new t.": _leap(at_new=False),
        "A sign: you pulled the momentum towards lower log p. "
        "Look at the force: the energy is −log p, so it is + ∇ log p.": _leap(sign=-1.0),
        "You moved t with the momentum from before the half step. Look at the p that multiplies the step of t.": _leap(
            moved_by=lambda p, p_half: p
        ),
        "The last half step of the momentum is missing. "
        "Look at the second thing that your function returns.": _forgotten,
        "You took one whole step before and none after: such steps do not run backwards, as acceptance needs. "
        "Look at both updates of p: ½ step before, ½ step after.": (_leap(1.0, 0.0)),
    },
    praise="Right. Turn p round at the end, and they lead you back, no volume stretched: hence the short ratio.",
)


def _rho_cases():
    uneven = jnp.array([1.0, 0.6, 0.5, 0.1, -0.05])
    return [(400, jnp.asarray(0.8 ** np.arange(60))), (1000, jnp.asarray((-0.3) ** np.arange(20))), (500, uneven)]


effective_draws = Exercise(
    answer=lambda M, rho: M / (1 + 2 * jnp.sum(rho[1:])),
    cases=_rho_cases,
    mistakes={
        "ρ₀ = 1 is in your sum, but a draw's correlation with itself is the 1 in front. "
        "Look at where your sum begins: at ρ₁.": (lambda M, rho: M / (1 + 2 * jnp.sum(rho))),
        "The factor 2 is missing: every pair of draws correlates both ways. "
        "Look at the denominator of the formula.": lambda M, rho: M / jnp.sum(rho),
        "You multiplied where it was to be divided: correlated draws tell less. "
        "Look at which side of the fraction the correlations are on.": (lambda M, rho: M * (1 + 2 * jnp.sum(rho[1:]))),
        "You counted the neighbour ρ₁ only, but correlation dies out slowly, and all of it counts. "
        "Look at the range of the sum, k ≥ 1.": (lambda M, rho: M / (1 + 2 * rho[1])),
        "|ρ| where ρ was meant. Look at negative correlations: they help, and lower the sum.": lambda M, rho: (
            M / (1 + 2 * jnp.sum(jnp.abs(rho[1:])))
        ),
        "You took a root: that is how the standard error shrinks. "
        "Look at the formula: the number of draws itself has no root.": (
            lambda M, rho: jnp.sqrt(M / (1 + 2 * jnp.sum(rho[1:])))
        ),
        "The 1 is missing. Look at the denominator of the formula.": lambda M, rho: M / (2 * jnp.sum(rho[1:])),
        "M (1 − ρ₁)/(1 + ρ₁) holds only where ρ_k = ρ₁ᵏ. Look at rho: its correlations are given, so add them up.": (
            lambda M, rho: M * (1 - rho[1]) / (1 + rho[1])
        ),
        "ρ² where ρ was meant. Look at the power in your sum: the formula has none.": lambda M, rho: (
            M / (1 + 2 * jnp.sum(rho[1:] ** 2))
        ),
    },
    praise="Right: for ρ_k = ρᵏ this is M (1 − ρ)/(1 + ρ). With ρ < 0 it exceeds M.",
)


def _chain_cases():
    rng = np.random.default_rng(23)
    together, apart = rng.normal(size=(8, 50)), rng.normal(size=(4, 20))
    return [(jnp.asarray(together),), (jnp.asarray(apart + 3.0 * np.arange(4)[:, None]),)]


def _r_hat(draws, within=1.0, between=1.0, ddof=1):
    M = draws.shape[1]
    W, V = jnp.mean(jnp.var(draws, axis=1, ddof=ddof)), jnp.var(jnp.mean(draws, axis=1), ddof=1)
    return jnp.sqrt(((M - 1) / M * within * W + between * V) / W)


def _transposed(draws):
    return _r_hat(draws.T)


def _over_between(draws):
    W, V = jnp.mean(jnp.var(draws, axis=1, ddof=1)), jnp.var(jnp.mean(draws, axis=1), ddof=1)
    return _r_hat(draws) * jnp.sqrt(W / V)


def _of_deviations(draws):
    M = draws.shape[1]
    W, V = jnp.mean(jnp.std(draws, axis=1, ddof=1)), jnp.std(jnp.mean(draws, axis=1), ddof=1)
    return ((M - 1) / M * W + V) / W


r_hat = Exercise(
    answer=_r_hat,
    cases=_chain_cases,
    mistakes={
        "The root is missing: this is the ratio of two variances. "
        "Look at the text: R̂ compares standard deviations.": lambda draws: _r_hat(draws) ** 2,
        "The wrong axis: you compared the steps with each other, not the chains. "
        "Look at draws[c, m]: chains are axis 0, draws axis 1.": _transposed,
        "V is missing, so R̂ cannot notice that the chains are in different places. "
        "Look at the second term of the numerator.": lambda draws: _r_hat(draws, between=0.0),
        "You multiplied V by M. Look at the formula: V is the variance of the means themselves.": lambda draws: _r_hat(
            draws, between=draws.shape[1]
        ),
        "Your W divides by M, so it is too small. "
        "Look at the variance of each chain: with M draws it divides by M − 1.": lambda draws: _r_hat(draws, ddof=0),
        "You divided by V where W was meant. Look at the denominator of the formula.": _over_between,
        "You used standard deviations for W and V. Look at the text: both are variances.": _of_deviations,
    },
    praise="Right. Chains that agree have V near W/M, which makes R̂ close to 1, wherever they are.",
)
