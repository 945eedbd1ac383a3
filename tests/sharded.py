"""What test_sharding.py runs in processes of its own, since a process chooses its devices before JAX starts.

    python sharded.py RESULTS             on all of this process's devices, and beside it on one
    python sharded.py RESULTS PORT ME     as process ME of two, with nothing beside it
    python sharded.py dies PORT ME        the same, but process 1 is killed before both add up
    python sharded.py learns PORT ME RESULTS CHECKPOINT [killed]    the same, and both train a VAE on their shares;
                                          process 1 is killed once there is a checkpoint

The functions are called in the same way everywhere: only the array that they are given differs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cmog_lib import amortised, decoders, em, likelihood, mcmc, model, ppca, quadrature, sharding, variational
from cmog_lib.engine.optimise import batches, stochastic

N, D = 64, 5
BATCH = 56  # of which eight devices draw 7 each
NODES = 6  # a dimension


class Watched(np.memmap):
    """A mapped array that notes how many rows were asked of it at a time."""

    read: list[int]

    def __getitem__(self, rows):
        found = np.asarray(self)[rows]
        self.read.append(len(found))
        return found


def watched(path: Path) -> Watched:
    """The file, mapped."""
    mapped = np.load(path, mmap_mode="r").view(Watched)
    mapped.read = []
    return mapped


def functions() -> dict:
    """Every function that meets many data, as one of the data alone."""
    key = jax.random.key(0)
    w = decoders.MLP(2, D, width=8, depth=1, key=key)
    straight = decoders.Linear(jax.random.normal(key, (D, 2)), jnp.zeros(D), jnp.asarray(-1.0))
    encoder = amortised.encoders.MLP(D, 2, width=8, depth=1, key=key)
    nodes = quadrature.grid(2, 10, 4.0)
    options = {"key": key, "warm_up": 20, "M": 3, "chains": 2}
    rate = jnp.asarray(1e-3)
    return {
        "model.log_p_x_given_t_table": lambda X: model.log_p_x_given_t_table(w, X, nodes.t),
        "quadrature.log_p_x": lambda X: quadrature.log_p_x(w, X, nodes),
        "quadrature.log_p_x, projected": lambda X: quadrature.log_p_x(straight, X, nodes),
        "quadrature.exact": lambda X: exactly(w, X),
        "quadrature.exact, of a model of the same data": lambda X: exactly(ppca.fit(X, 2), X),
        "quadrature.posterior": lambda X: quadrature.posterior(w, X, nodes),
        "ppca.fit": lambda X: ppca.fit(X, 2),
        "ppca.fit_all": lambda X: ppca.fit_all(X).log_likelihood,
        "ppca.fit_all, fewer data than dimensions": lambda X: ppca.fit_all(X.T).eigenvalues,
        "ppca.fit_all, units": lambda X: ppca.fit_all(X * jnp.asarray([1e4, 1, 1, 1, 1.0])).log_likelihood,
        "ppca.fit_all, two columns nearly the same": lambda X: nearly_the_same(X),
        "ppca.em_step": lambda X: ppca.em_step(straight, X),
        "mcmc.hmc": lambda X: mcmc.hmc(w, X, jnp.zeros((2, N, 2)), **options).t,
        "mcmc.metropolis": lambda X: mcmc.metropolis(straight, X, jnp.zeros((2, N, 2)), **options).t,
        "variational.fit_q": lambda X: variational.fit_q(w, X, key=key, steps=4, starts=1, progress=False).bound,
        "amortised.vae_step": lambda X: amortised.vae_step(w, encoder, X, learning_rate=rate, key=key),
        "em.em_step": lambda X: em.em_step(w, X, nodes, max_steps=3),
        "em.em_step, Linear": lambda X: em.em_step(straight, X, nodes),
    }


def trainings() -> dict:
    """Every function that draws batches, as one of the data alone."""
    key = jax.random.key(0)
    w = decoders.MLP(2, D, width=8, depth=1, key=key)
    encoder = amortised.encoders.MLP(D, 2, width=8, depth=1, key=key)
    options = {"key": key, "steps": 4, "batch_size": BATCH - 3, "chunk": 4, "progress": False}
    return {
        "amortised.fit": lambda X: amortised.fit(w, encoder, X, **options),
        "amortised.fit_every_dimension": lambda X: amortised.fit_every_dimension(w, encoder, X, (1, 2), **options),
        "likelihood.fit": lambda X: likelihood.fit(w, X, n=NODES, **options),
    }


def with_its_step(train, X) -> tuple:
    """train(X); the compiled steps that it ran, as XLA prints them; and how many parameters they move."""
    run, seen = stochastic._chunk, []

    def noted(*arguments):
        _, _, _, (parameters, *_), *_ = arguments
        compiled = run.lower(*arguments).compile()
        seen.append((compiled.compiled.as_text(), sum(leaf.size for leaf in jax.tree.leaves(parameters))))
        return compiled(*arguments)

    stochastic._chunk = noted
    try:
        return train(X), *seen[0]
    finally:
        stochastic._chunk = run


def in_shares(train, X, shares: int):
    """`train` on one device, with the batches that so many devices draw."""
    modules = [module for module in sys.modules.values() if getattr(module, "shares_of", None) is batches.shares_of]
    known = batches.shares_of
    for module in modules:
        module.shares_of = lambda _: shares
    try:
        return train(X)
    finally:
        for module in modules:
            module.shares_of = known


def exactly(w, X) -> tuple:
    """What `quadrature.exact` says, and the posterior of a datum that only one device holds."""
    found = quadrature.exact(w, X)
    q = found.posterior(41)
    return found.log_p_x, found.error, (jnp.exp(q.log_weight) @ q.t)


def nearly_the_same(X) -> jax.Array:
    """Logarithms of eigenvalues, of which the last is known to six digits: 1e-4 of it to ten places."""
    twice = jnp.concatenate([X[:, :4], X[:, 3:4] + 1e-6 * X[:, 4:]], axis=1)
    return 1e-4 * jnp.log(ppca.fit_all(twice).eigenvalues)


def numbers(result) -> np.ndarray:
    """All arrays of a result in one row, gathered from wherever their shares are."""
    return np.concatenate(
        [sharding.gathered(leaf).ravel() for leaf in jax.tree.leaves(result) if hasattr(leaf, "dtype")]
    )


def refusal(X: np.ndarray) -> str:
    """What is said of data that cannot be."""
    try:
        quadrature.log_p_x(decoders.MLP(2, D, key=jax.random.key(0)), sharding.shard(X), quadrature.grid(2, 4))
    except ValueError as error:
        return str(error)
    return "nothing was said"


def not_by_rows(mesh: jax.sharding.Mesh) -> str:
    """What is said of data of which each device holds some columns."""
    by_columns = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, mesh.axis_names[0]))
    X = jax.make_array_from_callback((N, 8), by_columns, lambda index: np.ones((N, 8))[index])
    try:
        return str(sharding.by_process(lambda rows: rows, X).shape)
    except ValueError as error:
        return str(error)


def learn(me: str, results: str, checkpoint: str, killed: str = "") -> None:
    """A VAE of data that each process holds a half of, with a checkpoint."""
    if killed and me == "1":
        threading.Thread(target=die_after, args=(Path(checkpoint),), daemon=True).start()
    X = sharding.shard(np.random.default_rng(0).normal(size=(N, D)))
    w = decoders.MLP(2, D, width=8, depth=1, key=jax.random.key(0))
    encoder = amortised.encoders.MLP(D, 2, width=8, depth=1, key=jax.random.key(1))
    options = {"steps": 200, "chunk": 5, "key": jax.random.key(2), "batch_size": 16, "progress": False}
    found = amortised.fit(w, encoder, X, checkpoint=checkpoint, **options)
    if me == "0":
        np.savez(results, trace=found.trace, w=numbers(found.w))


def die_after(checkpoint: Path) -> None:
    while not checkpoint.exists():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def main(results: str, port: str = "", me: str = "", *more: str) -> None:
    if port:
        jax.distributed.initialize(
            f"127.0.0.1:{port}", 2, int(me), initialization_timeout=60, heartbeat_timeout_seconds=10
        )
    mesh = sharding.mesh()
    if results == "dies":
        print(f"process {me} has joined", flush=True)
        sharding.gathered(sharding.shard(np.ones((N, D))).sum())
        if me == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        print(sharding.gathered(sharding.shard(np.ones((N, D))).sum()))
        return
    if results == "learns":
        learn(me, *more)
        return
    mapped = watched(Path(results).parent / "X.npy")
    X, read = sharding.shard(mapped), sum(mapped.read)
    plain, holed = jnp.asarray(mapped), np.array(mapped)
    holed[41, 3] = np.nan  # which only one device holds
    found: dict = {"devices": mesh.devices.size, "refusal": refusal(holed), "uneven": refusal(holed[:61])}
    found["rows read"] = read
    found["not by rows"] = not_by_rows(mesh)
    # Rows are dealt out still when a function has seen them: a table that was gathered would not scale.
    found["rows on a device"] = functions()["model.log_p_x_given_t_table"](X).addressable_shards[0].data.shape[0]
    for name, function in functions().items():
        found[f"sharded: {name}"] = numbers(function(X))
        if not port:
            found[f"one device: {name}"] = numbers(function(plain))
    for name, train in ({} if port else trainings()).items():
        trained, found[f"step: {name}"], found[f"parameters: {name}"] = with_its_step(train, X)
        found[f"sharded: {name}"] = numbers(trained)
        found[f"one device: {name}"] = numbers(in_shares(train, plain, mesh.devices.size))
    if me != "1":
        np.savez(results, **found)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(*sys.argv[1:])
