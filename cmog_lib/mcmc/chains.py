"""The draws of Markov chains, how they were made, and diagnostics of how far they can be trusted."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cmog_lib.engine.devices import gathered
from cmog_lib.engine.door import array, count, door, full_precision, warn
from cmog_lib.posteriors import Weighted

FEW = 50  # draws below which R̂, or a chain that stands still, is not conclusive, as in an E-step of Monte Carlo EM
APART = 1.05  # R̂ above which chains are said to disagree


class Chains(eqx.Module):
    """T_s ~ p(T|X,w), s = 1 … M, from C chains for each of N data, and a record of how they were made.

    Attributes:
        t: [C, M, N, d], the draws.
        acceptance: [C, N], the mean acceptance probability of a step.
        divergent: [C, N], the number of steps with a divergent trajectory.
        step: [C, N], the step size of the draws, in units of `scale`; `hmc` jitters it.
        scale: [N, d, d], a lower triangular L for each datum.
        evaluations: the number of decoder evaluations in all.
    """

    t: Float[Array, "C M N d"]
    acceptance: Float[Array, "C N"]
    divergent: Int[Array, "C N"]
    step: Float[Array, "C N"]
    scale: Float[Array, "N d d"]
    evaluations: int = eqx.field(static=True)

    @property
    def last(self) -> Float[Array, "C N d"]:
        """[C, N, d], the last draws, from which the chains can be continued."""
        return self.t[:, -1]

    @property
    def mean(self) -> Float[Array, "N d"]:
        """E_q t ≈ 1/(CM) Σ t_s, [N, d], for each datum."""
        return self.t.mean(axis=(0, 1))

    @property
    @full_precision
    def effective_sample_size(self) -> Float[np.ndarray, "N d"]:
        """[N, d], the equivalent number of independent draws for the mean of t_j; see the function of this name."""
        return effective_sample_size(self.t)

    @property
    @full_precision
    def r_hat(self) -> Float[np.ndarray, "N d"]:
        """[N, d], split R̂ of t_j; see the function of this name."""
        return r_hat(self.t)

    def posterior(self, i: int) -> Weighted:
        """q_i: the draws of datum i, all with the same weight.

        Args:
            i: number of the datum, from 0 to N − 1.

        Returns:
            A `posteriors.Weighted` of C·M draws.

        Raises:
            ValueError: if there is no such datum.
        """
        t = self.t[:, :, count("i", i, 0, self.t.shape[2] - 1)].reshape(-1, self.t.shape[3])
        return Weighted(t, jnp.full(len(t), -jnp.log(len(t)), t.dtype))


def _draws(name: str, value: Any, given: dict[str, Any]) -> Array:
    t = array(name, value, ("C", "M", ...))
    if t.shape[1] < 4:
        raise ValueError(
            f"{name} must hold four draws or more of every chain, for both of its halves, got {t.shape[1]}"
        )
    return t


@door(t=_draws)
def effective_sample_size(t: Float[Array | np.ndarray, "C M *of"]) -> Float[np.ndarray, "*of"]:
    """CM / (1 + 2 Σ_k ρ_k), ρ_k the correlation of draws k steps apart: the equivalent number of independent draws.

    Negatively correlated draws estimate the mean better than independent ones, but an estimate from few draws cannot
    say how much better; so the result is at most CM max(1, log₁₀ CM).

    Args:
        t: [C, M, …], M draws of C chains, of any number of quantities.

    Returns:
        […], one for each quantity; 0 if no chain moved.

    Raises:
        ValueError: if a draw is not finite, or there are fewer than four draws of each chain.

    Source: NumPyro; the cap: Vehtari et al. 2021, §3.2.
    """
    from numpyro.diagnostics import effective_sample_size as estimated

    with np.errstate(invalid="ignore"):
        estimate = estimated(np.asarray(gathered(t), np.float64))
    draws = t.shape[0] * t.shape[1]
    most = draws * max(np.log10(draws), 1)
    # A negative estimate comes from negatively correlated draws, NaN from chains that stand still.
    return np.where(np.isnan(estimate), 0, np.where((estimate > 0) & (estimate < most), estimate, most))


@door(t=_draws)
def r_hat(t: Float[Array | np.ndarray, "C M *of"]) -> Float[np.ndarray, "*of"]:
    """R̂: how much wider all chains together are than each half of one; 1 if they agree, whether or not they are right.

    Args:
        t: [C, M, …], M draws of C chains, of any number of quantities.

    Returns:
        […], one for each quantity; NaN if the chains stand still.

    Raises:
        ValueError: if a draw is not finite, or there are fewer than four draws of each chain.

    Source: NumPyro; Gelman et al., "Bayesian Data Analysis" (2013), §11.4.
    """
    from numpyro.diagnostics import split_gelman_rubin

    with np.errstate(invalid="ignore"):
        return split_gelman_rubin(np.asarray(gathered(t), np.float64))


def report(found: Chains) -> Chains:
    """Returns the chains; a RuntimeWarning names the most serious problem found in them and what to do about it."""
    C, draws, *_ = found.t.shape
    flown = float(found.divergent.sum()) / (found.divergent.size * draws)
    acceptance = gathered(found.acceptance)
    stuck = np.argwhere(~(acceptance >= 1e-3))
    # One chain may reject all of a few draws by chance; most chains do not.
    often = len(stuck) > (0 if draws >= FEW else found.acceptance.size // 2)
    if flown > 0.1:
        warn(f"{flown:.0%} of the trajectories flew off (divergent): take a smaller step, or a higher target")
    elif often:
        c, i = stuck[0].tolist()
        warn(
            f"{len(stuck)} of {found.acceptance.size} chains hardly ever moved, the first is chain {c} of X[{i}]"
            f" (acceptance {acceptance[c, i]:.1g}, step {gathered(found.step)[c, i]:.2g}): start nearer"
            f" to the mass (laplace), take a smaller step or a longer warm_up"
        )
    elif draws >= FEW and (still := np.argwhere(_still(gathered(found.t)))).size:
        i, j = still[0].tolist()
        warn(
            f"no chain of X[{i}] moved in the coordinate t[{j}], and R̂ is NaN there ({len(still)} of"
            f" {found.t[0, 0].size} coordinates in all): if p(t|x,w) is narrower than the spacing of"
            f" {found.t.dtype} numbers around t, use double precision (jax_enable_x64); else start nearer to the mass"
            f" (laplace)"
        )
    elif draws >= FEW and C > 1:
        r_hat = found.r_hat.max(axis=1)
        apart, worst = np.sum(r_hat > APART), int(np.argmax(r_hat))
        if apart:
            warn(
                f"the chains of {apart} of {len(r_hat)} data disagree: R̂ above {APART}, at most {r_hat[worst]:.3g}"
                f" for X[{worst}]. Go on from these chains with a larger M, or look whether the posterior has"
                f" several modes"
            )
    return found


def _still(t: Float[np.ndarray, "C M N d"]) -> Bool[np.ndarray, "N d"]:
    return (t == t[:, :1]).all(axis=(0, 1))
