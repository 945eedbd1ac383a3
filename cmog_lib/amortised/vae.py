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

SEEN = 1024  # data that are looked at where a bound is not finite
FAR, WIDE = 1e3, 10.0  # m(x) and s(x) that no posterior has under p(t) = N(0, I); a standard deviation of unscaled data


class Trained(eqx.Module):
    """What `fit` found: the decoder w, the encoder, and the trace of the mean bound, nats a datum, one a step.

    interrupted: whether the reader stopped it. Hand w and encoder to `fit` again to go on.
    """

    w: Any
    encoder: Any
    trace: Float[np.ndarray, "steps"]
    interrupted: bool = False


@door("w:decoder x M key", encoder=encoders.fitting)
def lower_bound(
    w: Decoder, encoder: Encoder, x: Float[Array, "D"], M: int = 1, *, key: Key[Array, ""]
) -> Float[Array, ""]:
    """L(w,q) ≈ 1/M Σ_s log p(x|t_s,w) − KL(q‖p(t)), t_s = m(x) + s(x) ε_s, ε_s ~ N(0, I): the bound by draws, in nats.

    w: decoder. encoder: x ↦ q = N(m(x), diag s²(x)). x: [D], one datum. M: how many draws. The same number in
    expectation as `bound.lower_bound`, with less noise, since the part with p(t) is done in closed form; and its
    gradient in both networks is that of L in expectation, because the noise ε is nobody's parameter.
    Raises ValueError for an encoder that does not fit, M < 1, an untyped key.
    Source: Kingma and Welling 2014, equation 7.
    """
    q = encoder(x)
    T = q.sample(M, key=key)
    return jnp.mean(jax.vmap(lambda t: log_p_x_given_t(w, x, t))(T)) - kl_to_prior(q).sum()


@door("w X M key learning_rate:number", encoder=encoders.fitting)
def vae_step(
    w: Decoder, encoder: Encoder, X: Float[Array, "N D"], *, learning_rate: Any, key: Key[Array, ""], M: int = 1
) -> tuple[Any, Any, Float[Array, ""]]:
    """(w, φ) ← (w, φ) + η ∇ 1/N Σ_i L(w, q_φ(t|x_i)): one step of gradient ascent, on decoder and encoder at once.

    w: decoder. encoder: with parameters φ. X: [N, D], the data of this step. learning_rate: η, an array so that another
    one compiles nothing anew. M: draws a datum. Returns both networks and the mean bound before the step, in nats.
    The formula to read; `fit` takes the same gradient with Adam, on data drawn anew, many steps in one compiled loop.
    Raises ValueError as `fit` does.
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

    w: decoder, any latent dimension; see `decoders.start_at`. encoder: q_φ. X: [N, D], data, of which every step takes
    batch_size at random, with M draws of t for each; of a memory-mapped array (`np.load(path, mmap_mode="r")`) only as
    many rows are in memory as the batches of one chunk of steps want. Of data dealt out over k devices, each device
    draws its part of the batch from its own rows; batch_size is rounded up to a multiple of k. hold_w: learn the
    encoder alone, for a given w.
    steps, learning_rate, optimiser, chunk, progress, checkpoint: as in `optimise.ascend`, whose default is Adam.
    Returns both and the trace; after Ctrl-C what there is. To go on, call it again with what it returned, and another
    key. Raises ValueError for an encoder that does not fit the decoder, data that are not the decoder's, M < 1, an
    untyped key; NotFinite with the step, what was seen there and the last good (w, encoder) in its `ascent.w`.
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
    """What encoder and decoder make of the first data, in words: for the message where a bound is not finite."""
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
    return f"{said}; {described(w, q.sample(1, key=key)[0], X)}"


@eqx.filter_jit
def _value_and_gradient(parameters: Any, rest: Any, X: Array, M: int, key: Array) -> tuple[Array, Any]:
    return jax.value_and_grad(lambda parameters: _mean_bound(eqx.combine(parameters, rest), X, M, key))(parameters)


class Problem(eqx.Module):
    """What a step needs beside what it moves: the data, the decoder where it is held, the batch, how many draws."""

    X: Float[Array, "N D"]
    w: Any
    batch_size: int
    shares: int
    M: int


def _mean_bound_of_batch(moved: Any, problem: Problem, key: Key[Array, ""]) -> Float[Array, ""]:
    both = moved if problem.w is None else (problem.w, moved)
    return batch_bound(both, problem, key)


def batch_bound(both: tuple[Any, Any], problem: Problem, key: Key[Array, ""]) -> Float[Array, ""]:
    """The mean bound of data drawn at random, which stands for that of all."""
    key_batch, key_draws = jax.random.split(key)
    X = batch_of(problem.X, problem.batch_size, problem.shares, key_batch)
    return _mean_bound(both, X, problem.M, key_draws)


def _mean_bound(both: tuple[Any, Any], X: Array, M: int, key: Key[Array, ""]) -> Float[Array, ""]:
    # `lower_bound` of every datum, with the same draws, written out so that both networks see plain matrices: a row for
    # each pair of a datum and a draw. An axis of draws inside each datum's costs a step a fifth of its time.
    w, encoder = both
    q = jax.vmap(lambda x: encoder(x))(X)
    T = jax.vmap(lambda q, key: q.sample(M, key=key))(q, jax.random.split(key, len(X))).reshape(-1, w.latent_dim)
    log_p = jax.vmap(lambda x, t: log_p_x_given_t(w, x, t))(jnp.repeat(X, M, axis=0), T)
    return jnp.mean(log_p) - jnp.mean(kl_to_prior(q).sum(axis=1))
