"""T_s ~ p(T|X,w) by Markov chains: Metropolis, Hamiltonian Monte Carlo, and Monte Carlo EM, which uses their draws."""

from cmog_lib.mcmc.chains import Chains, effective_sample_size, r_hat
from cmog_lib.mcmc.em import fit, mc_em_step
from cmog_lib.mcmc.nuts import numpyro_model, nuts
from cmog_lib.mcmc.samplers import hmc, metropolis
from cmog_lib.mcmc.scale import laplace
from cmog_lib.mcmc.steps import Move, State, hmc_step, leapfrog, metropolis_step, state_at

__all__ = [
    "Chains",
    "Move",
    "State",
    "effective_sample_size",
    "fit",
    "hmc",
    "hmc_step",
    "laplace",
    "leapfrog",
    "mc_em_step",
    "metropolis",
    "metropolis_step",
    "numpyro_model",
    "nuts",
    "r_hat",
    "state_at",
]
