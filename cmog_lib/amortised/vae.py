"""The variational autoencoder: the same p(x,t|w), the same L(w,q), and q from an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.amortised import encoders
from cmog_lib.amortised.encoders import Encoder, encode
from cmog_lib.bound import kl_to_prior
from cmog_lib.decoders import Decoder, as_module
from cmog_lib.engine.door import described, door
from cmog_lib.engine.optimise.batches import batch_of, batch_size_for, shares_of
from cmog_lib.engine.optimise.faults import given_back, parameters_of, with_facts
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.model import log_p_x_given_t
from cmog_lib.optimise import Ascent, NotFinite, ascend, pieces

SEEN = 1024  # number of data to inspect if a bound is not finite
FAR, WIDE = 1e3, 10.0  # m(x) or s(x) too large for any posterior under p(t) = N(0, I); standard deviation of raw data


class Trained(eqx.Module):
    """Result of `fit`. Pass w and encoder to `fit` again to continue.

    Attributes:
        w: the decoder.
        encoder: the encoder.
        trace: the mean bound at every step, in nats per datum.
        interrupted: whether Ctrl-C stopped the training.
    """

    w: Any
    encoder: Any
    trace: Float[np.ndarray, "steps"]
    interrupted: bool = False


@door("w:decoder x M key", encoder=encoders.fitting)
def lower_bound(
    w: Decoder, encoder: Encoder, x: Float[Array, "D"], *, M: int = 1, key: Key[Array, ""]
) -> Float[Array, ""]:
    """L(w,q) ≈ 1/M Σ_s log p(x|t_s,w) − KL(q‖p(t)), t_s = m(x) + s(x) ε_s, ε_s ~ N(0, I): the bound by draws, in nats.

    Its expectation is that of `bound.lower_bound`, with less noise, because KL(q‖p(t)) is in closed form. The
    distribution of ε depends on no parameter, so the gradient in both networks has the gradient of L as its
    expectation.

    Args:
        w: decoder.
        encoder: x ↦ q = N(m(x), diag s²(x)).
        x: [D], one datum.
        M: number of draws.
        key: random key.

    Returns:
        The estimate of L, in nats.

    Raises:
        ValueError: if the encoder does not fit, M < 1, or the key is untyped.

    Source: Kingma and Welling 2014, equation 7.
    """
    q = encoder(x)
    T = q.sample(M=M, key=key)
    return jnp.mean(jax.vmap(lambda t: log_p_x_given_t(w, x, t))(T)) - kl_to_prior(q).sum()


@door("w X M key learning_rate:number", encoder=encoders.fitting)
def vae_step(
    w: Decoder, encoder: Encoder, X: Float[Array, "N D"], *, learning_rate: Any, key: Key[Array, ""], M: int = 1
) -> tuple[Any, Any, Float[Array, ""]]:
    """(w, φ) ← (w, φ) + η ∇ 1/N Σ_i L(w, q_φ(t|x_i)): one step of gradient ascent, on decoder and encoder at once.

    This is the formula to read. `fit` takes the same gradient with Adam, on a new batch at every step, with many steps
    in one compiled loop.

    Args:
        w: decoder.
        encoder: with parameters φ.
        X: [N, D], the data of this step.
        learning_rate: η, a number or an array; a new value does not cause a new compilation.
        key: random key.
        M: number of draws for each datum.

    Returns:
        The new decoder, the new encoder, and the mean bound before the step, in nats per datum.

    Raises:
        ValueError: as `fit` does.
    """
    parameters, rest = parameters_of((w, encoder))
    value, gradient = _value_and_gradient(parameters, rest, X, M, key)
    moved = jax.tree.map(lambda parameter, slope: parameter + learning_rate * slope, parameters, gradient)
    return *given_back(eqx.combine(rest, moved)), value


@door("w:decoder X:X-mapped M chunk batch_size key", encoder=encoders.fitting)
@interruptible
def fit(
    w: Decoder,
    encoder: Encoder,
    X: Float[Array | np.ndarray, "N D"],
    *,
    steps: int,
    key: Key[Array, ""],
    hold_w: bool = False,
    batch_size: int = 128,
    M: int = 1,
    learning_rate: float = 2e-3,
    optimiser: Any = None,
    chunk: int = 100,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> Trained:
    """max_{w,φ} 1/N Σ_i L(w, q_φ(t|x_i)), by stochastic gradients: decoder and encoder learn together.

    After Ctrl-C it returns the result so far. To continue, call it again with the decoder and encoder that it returned,
    and another key.

    Args:
        w: decoder, any latent dimension; see `decoders.start_at`.
        encoder: q_φ.
        X: [N, D], data. Of a memory-mapped array (`np.load(path, mmap_mode="r")`), only as many rows are in memory as
            the batches of one chunk of steps need. If the data are distributed over k devices, each device draws its
            part of the batch from its own rows.
        steps: number of gradient steps.
        key: random key.
        hold_w: train the encoder alone, for a given w.
        batch_size: number of data in a step, drawn at random; rounded up to a multiple of the number of devices.
        M: number of draws of t for each datum in a step.
        learning_rate: of the default optimiser.
        optimiser: from optax, built for minimising; None is Adam with `learning_rate`.
        chunk: number of steps in one compiled call; between calls the progress bar is updated and Ctrl-C is checked.
        progress: show the progress bar.
        checkpoint: a file that is written after every chunk. If it exists, the same call continues from it; see
            `optimise.ascend`.

    Returns:
        `Trained`: both networks and the trace.

    Raises:
        ValueError: if the encoder does not fit the decoder, the data do not fit the decoder, M < 1, or the key is
            untyped; and if the checkpoint is damaged or belongs to another run.
        NotFinite: if the bound or a parameter is not finite, with the step and the values there; its `ascent.w` is the
            last good (w, encoder).
    """
    given, w = w, as_module(w)
    batch_size, shares = batch_size_for(X, batch_size), shares_of(X)

    def problem(X: Any) -> Problem:
        return Problem(jnp.asarray(X, float), w if hold_w else None, batch_size, shares, M)

    data: Any
    if isinstance(X, np.memmap):
        key, key_pieces = jax.random.split(key)
        data = map(problem, pieces(X, min(chunk * batch_size, len(X)), key=key_pieces))
    else:
        data = problem(X)
    options: Any = {"optimiser": optimiser, "learning_rate": learning_rate, "chunk": chunk, "progress": progress}
    options["checkpoint"] = checkpoint
    both: Any = encoder if hold_w else (w, encoder)
    try:
        found = ascend(_mean_bound_of_batch, both, data, steps=steps, key=key, **options)
    except NotFinite as error:
        good = Ascent((given, error.ascent.w), error.ascent.trace) if hold_w else error.ascent
        w, encoder = good.w
        raise with_facts(NotFinite(str(error), error.step, good), seen(w, encoder, X, key)) from error
    w, encoder = (given, found.w) if hold_w else found.w
    return Trained(w, encoder, found.trace, found.interrupted)


def seen(w: Any, encoder: Any, X: Any, key: Key[Array, ""]) -> str:
    """What encoder and decoder return for the first data, in words: for the message when a bound is not finite."""
    X = jnp.asarray(X[:SEEN])
    q = encode(encoder, X)
    for name, part in (("m", q.m), ("log s", q.log_s)):
        if not bool(jnp.isfinite(part).all()):
            i = int(jnp.argmin(jnp.isfinite(part).all(axis=1)))
            return f"the encoder's {name}(x) is {part[i].tolist()} for X[{i}]"
    spread = float(jnp.std(X))
    said = f"the encoder's log s(x) reaches {float(q.log_s.max()):.3g} and |m(x)| {float(jnp.abs(q.m).max()):.3g}"
    if not bool((jnp.maximum(jnp.abs(q.m), q.s) < FAR).all()):
        said += f", where p(t) has a standard deviation of 1; the data have one of {spread:.3g}"
        return f"{said}: scale them, X / {spread:.3g}" if spread > WIDE else said
    return f"{said}; {described(w, q.sample(M=1, key=key)[0], X)}"


@eqx.filter_jit
def _value_and_gradient(parameters: Any, rest: Any, X: Array, M: int, key: Array) -> tuple[Array, Any]:
    return jax.value_and_grad(lambda parameters: _mean_bound(eqx.combine(parameters, rest), X, M, key))(parameters)


class Problem(eqx.Module):
    """What a step needs besides the parameters it moves.

    Attributes:
        X: [N, D], data.
        w: the decoder if it is held, else None.
        batch_size: number of data in a step.
        shares: number of devices over which the data are distributed.
        M: number of draws for each datum.
    """

    X: Float[Array, "N D"]
    w: Any
    batch_size: int
    shares: int
    M: int


def _mean_bound_of_batch(moved: Any, problem: Problem, key: Key[Array, ""]) -> Float[Array, ""]:
    both = moved if problem.w is None else (problem.w, moved)
    return batch_bound(both, problem, key)


def batch_bound(both: tuple[Any, Any], problem: Problem, key: Key[Array, ""]) -> Float[Array, ""]:
    """The mean bound of data drawn at random, an estimate of the mean over all data."""
    key_batch, key_draws = jax.random.split(key)
    X = batch_of(problem.X, problem.batch_size, problem.shares, key_batch)
    return _mean_bound(both, X, problem.M, key_draws)


def _mean_bound(both: tuple[Any, Any], X: Array, M: int, key: Key[Array, ""]) -> Float[Array, ""]:
    # `lower_bound` of every datum, with the same draws, written out so that both networks get plain matrices: a row for
    # each pair of a datum and a draw. A separate axis of draws for each datum would cost a fifth of a step's time.
    w, encoder = both
    q = jax.vmap(lambda x: encoder(x))(X)
    T = jax.vmap(lambda q, key: q.sample(M=M, key=key))(q, jax.random.split(key, len(X))).reshape(-1, w.latent_dim)
    log_p = jax.vmap(lambda x, t: log_p_x_given_t(w, x, t))(jnp.repeat(X, M, axis=0), T)
    return jnp.mean(log_p) - jnp.mean(kl_to_prior(q).sum(axis=1))
