"""The variational autoencoder: the same p(x,t|w), the same L(w,q), and q from an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cmog_lib.amortised.encoders import E, Encoder
from cmog_lib.bound import kl_to_prior
from cmog_lib.decoders import Decoder, as_module
from cmog_lib.decoders.contract import W
from cmog_lib.engine import draws
from cmog_lib.engine.door import door
from cmog_lib.engine.encoders import described
from cmog_lib.engine.modules import Held
from cmog_lib.engine.optimise.batches import ascend_on_batches
from cmog_lib.engine.optimise.gradient import moved, value_and_gradient
from cmog_lib.engine.optimise.interrupts import interruptible
from cmog_lib.model import log_p_x_given_t
from cmog_lib.optimise import pieces


class Trained(eqx.Module, Generic[W, E]):
    """Result of `fit`. Pass w and encoder to `fit` again to continue.

    Attributes:
        w: the decoder.
        encoder: the encoder.
        trace: the mean bound at every step, in nats per datum.
        interrupted: whether Ctrl-C stopped the training.
    """

    w: W
    encoder: E
    trace: Float[np.ndarray, "steps"]
    interrupted: bool = False


@door("w:decoder encoder x M key")
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
    log_p = draws.mean(lambda t: log_p_x_given_t(w, x, t), q.sample(M=M, key=key))
    return log_p - kl_to_prior(q).sum()


@door("w encoder X M key learning_rate:number")
def vae_step(
    w: W, encoder: E, X: Float[Array, "N D"], *, learning_rate: Any, key: Key[Array, ""], M: int = 1
) -> tuple[W, E, Float[Array, ""]]:
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
    value, gradient = value_and_gradient(mean_bound, (w, encoder), X, M, key)
    return *moved((w, encoder), learning_rate, gradient), value


@door("w:decoder encoder X:X-mapped M chunk batch_size key")
@interruptible
def fit(
    w: W,
    encoder: E,
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
) -> Trained[W, E]:
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
    both: tuple[Any, E] = Held(as_module(w)) if hold_w else as_module(w), encoder
    options: Any = {"steps": steps, "optimiser": optimiser, "learning_rate": learning_rate, "chunk": chunk}
    options |= {"batch_size": batch_size, "progress": progress, "checkpoint": checkpoint}
    data: Any = X
    if isinstance(X, np.memmap):
        key, key_pieces = jax.random.split(key)
        data = pieces(X, min(chunk * batch_size, len(X)), key=key_pieces)

    def facts(both: Any, _: Any, key: Array) -> str:
        return described(both[0], both[1], X, key)

    found = ascend_on_batches(mean_bound, both, data, M, key=key, facts=facts, **options)
    return Trained(w if hold_w else found.w[0], found.w[1], found.trace, found.interrupted)


def mean_bound(both: Any, X: Float[Array, "N D"], M: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """1/N Σ_i L(w, q_φ(t|x_i)), each by its own M draws: what `fit` maximises, on a batch.

    Args:
        both: decoder and encoder.
        X: [N, D], data.
        M: number of draws for each datum.
        key: random key.

    Returns:
        The mean of `lower_bound` over the data, nats per datum.
    """
    w, encoder = both
    keys = jax.random.split(key, len(X))
    return jnp.mean(jax.vmap(lambda x, key: lower_bound(w, encoder, x, M=M, key=key))(X, keys))
