"""The exercises of lecture 5, each with its answer and the mistakes that it knows by name."""

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
        "The mean over the images where the sum was meant: log p(X, T) is a sum over all data.": (
            lambda table: jnp.mean(table)
        ),
        "The sum over the draws where the mean was meant: the slide has 1/M.": lambda table: jnp.sum(table),
        "The wrong axis: s is the first, i the second. The mean is over s, the sum over i.": (
            lambda table: jnp.sum(jnp.mean(table, axis=1))
        ),
        "This is the log of a mean of densities. The slide averages the logarithms.": lambda table: jnp.sum(
            jax.nn.logsumexp(table, axis=0) - jnp.log(table.shape[0])
        ),
        "A sign: this is minus the expectation.": lambda table: -jnp.mean(jnp.sum(table, axis=1)),
        "One number for each image is left: log p(X, T) is their sum.": lambda table: jnp.mean(table, axis=0),
        "Divided by √M where M was meant: the noise falls with √M, the average has M.": lambda table: (
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
        "Only uphill: that finds a mode and stays there. Downhill is taken too, with probability p(t')/p(t).": (
            lambda log_p, log_p_new, u: log_p_new > log_p
        ),
        "A sign: the ratio is new over old, log p(x,t') − log p(x,t).": (
            lambda log_p, log_p_new, u: jnp.log(u) < log_p - log_p_new
        ),
        "exp underflows: near −900 both densities are 0, and 0/0 is not a number. Compare logarithms.": _by_densities,
        "The wrong way round: a small u accepts.": lambda log_p, log_p_new, u: jnp.log(u) > log_p_new - log_p,
        "u is compared with a difference of logarithms: take log u.": lambda log_p, log_p_new, u: u < log_p_new - log_p,
        "u is compared with the new density, not with the ratio.": lambda log_p, log_p_new, u: u < jnp.exp(log_p_new),
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
        "Whole steps of the momentum where half ones were meant: ½ before and ½ after.": _leap(1.0, 1.0),
        "This is Euler's step, t with the old momentum and p with the old gradient: it gains energy without end.": (
            _leap(0.0, 1.0, at_new=False)
        ),
        "The last half step uses the gradient at the old place: ask for it at the new one.": _leap(at_new=False),
        "A sign: the momentum is pulled uphill, by + ∇ log p. A potential energy is −log p.": _leap(sign=-1.0),
        "t moves with the momentum from before the half step.": _leap(moved_by=lambda p, p_half: p),
        "The last half step of the momentum is missing.": _forgotten,
        "One whole step before and none after: such steps do not run backwards, and acceptance relies on that.": (
            _leap(1.0, 0.0)
        ),
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
        "ρ₀ = 1 is in the sum: a draw's correlation with itself is the 1 in front. Begin at ρ₁.": (
            lambda M, rho: M / (1 + 2 * jnp.sum(rho))
        ),
        "The factor 2 is missing: every pair of draws correlates both ways.": lambda M, rho: M / jnp.sum(rho),
        "Multiplied where it was to be divided: correlated draws tell less.": (
            lambda M, rho: M * (1 + 2 * jnp.sum(rho[1:]))
        ),
        "Only the neighbour ρ₁ is counted: correlation dies out slowly, and all of it counts.": (
            lambda M, rho: M / (1 + 2 * rho[1])
        ),
        "|ρ| where ρ was meant: negative correlation helps.": lambda M, rho: M / (1 + 2 * jnp.sum(jnp.abs(rho[1:]))),
        "This is the standard error's shrinkage, √: the effective number of draws is its square.": (
            lambda M, rho: jnp.sqrt(M / (1 + 2 * jnp.sum(rho[1:])))
        ),
        "The 1 is missing.": lambda M, rho: M / (2 * jnp.sum(rho[1:])),
        "M (1 − ρ₁)/(1 + ρ₁) holds where ρ_k = ρ₁ᵏ only: add up the correlations that are given.": (
            lambda M, rho: M * (1 - rho[1]) / (1 + rho[1])
        ),
        "ρ² where ρ was meant.": lambda M, rho: M / (1 + 2 * jnp.sum(rho[1:] ** 2)),
    },
    praise="Right: for ρ_k = ρᵏ this is M (1 − ρ)/(1 + ρ). With ρ < 0 it exceeds M.",
)
