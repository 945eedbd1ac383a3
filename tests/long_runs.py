"""Runs that another process begins and the tests kill. They are small, and are the same in every process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

if "jax" not in sys.modules:  # where XLA reads its own cache it complains of processor features that are none
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from compiled import kept_in

from cmog_lib import _mnist, amortised, datasets, decoders, em, likelihood, mcmc, optimise

STEPS = {"ascend": 400, "amortised.fit": 200, "likelihood.fit": 200, "mcmc.fit": 30}


def bowl(w: jax.Array, target: jax.Array, key: jax.Array) -> jax.Array:
    return -jnp.sum((w - target + 0.1 * jax.random.normal(key, w.shape)) ** 2)


def prepared(name: str) -> Callable[..., Any]:
    """The run of that name: to be called with steps and, if it shall keep one, with a checkpoint."""
    key = jax.random.key(0)
    options: dict[str, Any] = {"key": key, "progress": False, "chunk": 5}
    if name == "ascend":
        return partial(optimise.ascend, bowl, jnp.zeros(5), jnp.arange(5.0), **options)
    X = datasets.curve(40, key=key).X
    if name == "mcmc.fit":
        w = decoders.Linear(jnp.ones((2, 1)), jnp.zeros(2), jnp.zeros(()))
        return partial(mcmc.fit, w, X, M=5, warm_up=3, key=key, progress=False)
    w = decoders.start_at(decoders.MLP(1, 2, width=4, depth=1, key=key), X)
    if name == "likelihood.fit":
        return partial(likelihood.fit, w, X, n=16, **options)
    return partial(amortised.fit, w, amortised.encoders.MLP(2, 1, width=4, depth=1, key=key), X, **options)


def numbers(found: Any) -> list[np.ndarray]:
    """All that a run found: its trace, one entry for each step or decoder, and the arrays of what it ended with."""
    trace = found.log_p_x if isinstance(found, em.Run) else found.trace
    ended = (found.w, getattr(found, "encoder", None), getattr(found, "q", None))
    return [np.asarray(trace), *(np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(ended, eqx.is_array)))]


def begin(cache: Path) -> None:
    """What every process does first: no Ctrl-C before it is wanted, and nothing compiled twice."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name, value in kept_in(cache).items():
        jax.config.update(name.lower(), {"0": 0, "-1": -1}.get(value, value))


def to_its_end(name: str, checkpoint: Path, cache: Path) -> None:
    """A run that goes on from its checkpoint, and is killed by nobody or by anybody."""
    begin(cache)
    prepared(name)(steps=STEPS[name], checkpoint=checkpoint)


def again_and_again(name: str, cache: Path, line: Connection) -> None:
    """Runs on demand: takes (steps, checkpoint), says that it begins, and answers with numbers, or None if stopped."""
    begin(cache)
    run = prepared(name)
    while (asked := line.recv()) is not None:
        line.send("begins")
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            found = run(steps=asked[0], checkpoint=asked[1])
        except KeyboardInterrupt:
            found = None
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        line.send(None if found is None else numbers(found))


def download(name: str, mirror: str, cache: Path, sha256: str) -> None:
    """One file of MNIST from a mirror into `cache`."""
    import pooch

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job that a shell began with & has none
    os.environ.pop("CMOG_DATA_DIR", None)  # the real files would be taken from there
    pooch.os_cache = lambda project: cache  # type: ignore[assignment]
    _mnist.MIRRORS, _mnist.SECURE, _mnist.SHA256[name] = (mirror,), (mirror,), sha256
    try:
        _mnist.content(name, download=True)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # there is nothing left to be stopped but the process's own end
    except KeyboardInterrupt:
        sys.exit(2)
