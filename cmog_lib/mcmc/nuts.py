"""An independent reference: NumPyro's No-U-Turn sampler on the same posterior, and the same model in NumPyro."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cmog_lib.decoders import Decoder
from cmog_lib.engine.door import count, door
from cmog_lib.mcmc.chains import Chains, report
from cmog_lib.mcmc.start import acceptance, begin, place
from cmog_lib.mcmc.steps import State
from cmog_lib.model import log_p_xt
from cmog_lib.posteriors import FullGaussian


@door("w:decoder x")
def numpyro_model(w: Decoder, x: Float[Array, "D"]) -> None:
    """t ~ N(0, I), x ~ N(μ(t,w), diag σ²(t,w)), x observed, for NumPyro.

    Its log density is `model.log_p_xt`.

    Args:
        w: decoder.
        x: [D], one datum.

    Raises:
        ValueError: if the shape of x does not fit the decoder.
    """
    import numpyro
    from numpyro import distributions as dist

    t = numpyro.sample("t", dist.Normal(jnp.zeros(w.latent_dim), 1).to_event(1))
    mu, sigma = w(t)
    numpyro.sample("x", dist.Normal(mu, sigma).to_event(1), obs=x)


def _depth(name: str, value: Any, given: dict[str, Any]) -> int:
    return count(name, value, 1, 10)


@door("w X key M warm_up:from-zero chains:count", start=place, target=acceptance, max_depth=_depth)
def nuts(
    w: Decoder,
    X: Float[Array, "N D"],
    start: FullGaussian | Chains | Float[Array, "C N d"],
    *,
    M: int,
    key: Key[Array, ""],
    chains: int = 4,
    warm_up: int = 100,
    target: float = 0.8,
    max_depth: int = 6,
) -> Chains:
    """T_s ~ p(T|X,w) by NumPyro's NUTS: Hamiltonian trajectories that go on until they turn back.

    The posterior factorises, so each datum has its own chains. All take as long as the longest trajectory among them.

    Args:
        w: decoder, any latent dimension.
        X: [N, D], data.
        start: as in `hmc`: a Gaussian for each datum, Chains, or points [C, N, d]. Its scale is the inverse mass, and
            is not adapted.
        M: number of draws to keep, of each chain and datum.
        key: random key.
        chains: number of chains for each datum, if start is a Gaussian.
        warm_up: number of earlier draws, which adapt the step size and are discarded.
        target: the acceptance to which the step size is adapted, between 0 and 1.
        max_depth: a trajectory has at most 2^max_depth − 1 leapfrog steps; from 1 to 10.

    Returns:
        `Chains`.

    Raises:
        ValueError: for an invalid argument, as `hmc` does, and if log p(x,t|w) or its gradient is not finite at a
            start.

    Warns:
        RuntimeWarning: as `hmc` does.

    Source: Slide 15; Hoffman and Gelman 2014; the code is NumPyro's.
    """
    at = begin(w, X, start, target, chains, key, slopes=True)
    made, leapfrogs = _nuts(at.w, at.X, at.states, at.scale, at.step, at.key, M, warm_up, at.target, max_depth)
    return report(Chains(*made, at.scale, evaluations=int(leapfrogs) + at.states.log_p.size))


@eqx.filter_jit
def _nuts(
    w: Any,
    X: Array,
    states: State,
    scale: Array,
    step: Array,
    key: Array,
    M: int,
    warm_up: int,
    target: Array,
    max_depth: int,
) -> tuple[tuple[Array, Array, Array, Array], Array]:
    from numpyro.infer.hmc import hmc

    # The potential is made from w and x at every step, so that they stay arguments of the compiled function.
    init, sample = hmc(potential_fn_gen=lambda w, x: lambda t: -log_p_xt(w, x, t), algo="NUTS")

    def one(x: Array, t: Array, scale: Array, step: Array, key: Array) -> Any:
        first = init(
            t,
            warm_up,
            step,
            scale @ scale.T,
            adapt_step_size=warm_up > 0,
            adapt_mass_matrix=False,
            dense_mass=True,
            target_accept_prob=target,
            max_tree_depth=max_depth,
            model_args=(w, x),
            rng_key=key,
        )

        def move(state: Any, _: None) -> tuple[Any, tuple[Array, ...]]:
            state = sample(state, (w, x), {})
            return state, (state.z, state.accept_prob, state.diverging, state.num_steps)

        warm, (*_, spent) = jax.lax.scan(move, first, length=warm_up)
        last, (t, acceptance, diverging, taken) = jax.lax.scan(move, warm, length=M)
        return t, acceptance.mean(), diverging.sum(), last.adapt_state.step_size, spent.sum() + taken.sum()

    C, N = states.log_p.shape
    over_chains = jax.vmap(jax.vmap(one), in_axes=(None, 0, None, 0, 0))
    t, *how, leapfrogs = over_chains(X, states.t, scale, step, jax.random.split(key, (C, N)))
    return (jnp.moveaxis(t, 1, 2), *how), leapfrogs.sum()
