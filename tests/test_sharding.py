"""On eight devices, and in two processes, the same numbers as on one; and data that memory does not hold."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import QUICKLY_COMPILED
from needs import free_port
from sharded import NODES, D, watched

from cmog_lib import amortised, decoders, optimise, ppca, quadrature, sharding

HERE = Path(__file__).parent
# Sums over eight shares are added up in another order: rounding in double precision, of numbers that are hundreds.
SAME = 1e-10


def started(*arguments: str, devices: int) -> subprocess.Popen:
    """sharded.py in a process that has so many virtual devices."""
    flags = f"--xla_force_host_platform_device_count={devices} {QUICKLY_COMPILED}"
    # A proxy that the machine has for the world would be asked for the way to the process beside.
    direct = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment = {**direct, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(HERE / "sharded.py"), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen, seconds: float = 300) -> str:
    """What the process said, once it is at an end; it does not outlive the test."""
    try:
        return process.communicate(timeout=seconds)[0]
    finally:
        process.kill()


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    """What came out "in one process" and "in two"."""
    folder, random = tmp_path_factory.mktemp("sharded"), np.random.default_rng(0)
    X = random.normal(size=(64, 2)) @ random.normal(size=(2, 5)) + 0.3 * random.normal(size=(64, 5))
    np.save(folder / "X.npy", X)
    one, two, port = str(folder / "one.npz"), str(folder / "two.npz"), str(free_port())
    for arguments, devices in (([(one,)], 8), ([(two, port, me) for me in "01"], 4)):
        for process in [started(*each, devices=devices) for each in arguments]:
            said = ended(process)
            assert process.returncode == 0, said[-3000:]
    yield {"in one process": dict(np.load(one)), "in two": dict(np.load(two))}


# The parameters are names of sharded.functions(), which starts JAX and is therefore not asked here.
ALL = re.findall(r'^        "(.+)": lambda X', (HERE / "sharded.py").read_text(encoding="utf-8"), re.M)
TRAININGS = ["amortised.fit", "amortised.fit_every_dimension", "likelihood.fit"]
NAMES = [name for name in ALL if name not in TRAININGS]
COLLECTIVE = re.compile(r"= (.+?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")


@pytest.mark.parametrize("processes", ["in one process", "in two"])
@pytest.mark.parametrize("name", NAMES)
def test_eight_devices_get_the_numbers_of_one(found, name, processes):
    same(found, name, processes)


@pytest.mark.parametrize("name", TRAININGS)
def test_training_on_eight_devices_equals_training_on_one_with_the_same_batches(found, name):
    same(found, name, "in one process")


def same(found, name: str, processes: str) -> None:
    want, got = found["in one process"][f"one device: {name}"], found[processes][f"sharded: {name}"]
    assert want.shape == got.shape and np.ptp(want) > 1e-3
    np.testing.assert_allclose(got, want, rtol=SAME, atol=SAME)


@pytest.mark.parametrize("name", TRAININGS)
def test_each_device_computes_its_share_of_a_batch_and_only_gradients_travel(found, name):
    step, parameters = (
        str(found["in one process"][f"step: {name}"]),
        int(found["in one process"][f"parameters: {name}"]),
    )
    sent = COLLECTIVE.findall(step)
    assert {kind for _, kind in sent} == {"all-reduce"}
    shapes = re.findall(r"f64\[([\d,]*)\]", " ".join(shape for shape, _ in sent))
    numbers = sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)
    # What is reduced is the gradient in the parameters, with a few sums; for every dimension, of one model at a time.
    # In `likelihood.fit` it is the gradient in μ and σ at the nodes, since all devices decode the same nodes.
    at_nodes = 2 * NODES**2 * D if name == "likelihood.fit" else 0
    models = 2 if name == "amortised.fit_every_dimension" else 1
    assert max(parameters // models, at_nodes) <= numbers <= max(parameters, at_nodes) + 100
    # 7 rows of a batch of 56 on each of eight devices, and 56 rows nowhere.
    assert re.search(r"f64\[7,", step) and not re.search(r"f64\[56[,\]]", step)


@pytest.mark.parametrize("processes", ["in one process", "in two"])
def test_data_stay_where_they_are_dealt(found, processes):
    assert found[processes]["devices"] == 8 and found[processes]["rows on a device"] == 64 / 8


@pytest.mark.parametrize(("processes", "share"), [("in one process", 64), ("in two", 32)])
def test_of_a_mapped_file_each_process_reads_what_its_devices_hold(found, processes, share):
    assert found[processes]["rows read"] == share


@pytest.mark.parametrize("processes", ["in one process", "in two"])
def test_a_nan_on_one_device_is_named_by_every_process(found, processes):
    assert str(found[processes]["refusal"]).startswith("X must be finite, got nan at X[41, 3] (1 of 320 values")


def test_the_death_of_a_process_ends_the_other_soon_and_says_whose_it_was():
    port, began = str(free_port()), time.perf_counter()
    processes = [started("dies", port, me, devices=2) for me in "01"]
    said = [ended(process, 120) for process in processes]
    # Ten seconds without a heartbeat, and what starting takes on a busy machine.
    assert time.perf_counter() - began < 60
    assert all(process.returncode != 0 for process in processes)
    assert "process 0 has joined" in said[0] and "process 1 has joined" in said[1]
    assert re.search(r"unhealthy \(stopped sending heartbeats\):\s+1\s", said[0]) or "closed by peer" in said[0], said[
        0
    ]


@pytest.mark.weekly
def test_after_the_death_of_a_process_training_goes_on_from_its_checkpoint_and_ends_at_the_same_numbers(tmp_path):
    def trained(name: str, checkpoint: str, *killed: str) -> list[int]:
        shared = ["learns", str(free_port())]
        files = [str(tmp_path / name), str(tmp_path / checkpoint)]
        processes = [started(*shared, me, *files, *killed, devices=2) for me in "01"]
        said = [ended(process) for process in processes]
        codes = [process.returncode for process in processes]
        assert killed or codes == [0, 0], said
        return codes

    trained("whole.npz", "whole")
    assert all(code != 0 for code in trained("none.npz", "run", "killed"))
    assert not (tmp_path / "none.npz").exists()
    with np.load(tmp_path / "run") as file:
        assert 0 < json.loads(file["manifest"].tobytes())["step"] < 200
    trained("again.npz", "run")
    whole, again = (np.load(tmp_path / name) for name in ("whole.npz", "again.npz"))
    assert whole["trace"].shape == again["trace"].shape == (200,)
    for part in ("trace", "w"):
        np.testing.assert_allclose(again[part], whole[part], rtol=SAME, atol=SAME)


@pytest.mark.parametrize(
    ("X", "over", "message"),
    [
        (np.ones((3, 2), int), None, r"X must be a floating-point array of shape \[N, \.\.\.\], got int64\[3, 2\]"),
        (np.ones((0, 2)), None, r"X must be a floating-point array of shape \[N, \.\.\.\], got float64\[0, 2\]"),
        (np.ones((4, 2)), "data", r"over must be a mesh with one axis, as mesh\(\) makes it, got 'data'"),
    ],
)
def test_what_cannot_be_dealt_out_is_refused(entry_errors, X, over, message):
    with pytest.raises(ValueError, match=message):
        sharding.shard(X, over)


@pytest.mark.parametrize("processes", ["in one process", "in two"])
def test_rows_that_the_devices_cannot_share_are_refused(found, processes):
    said = str(found[processes]["uneven"])
    assert said == "X must have a number of rows that 8 devices can share evenly, got 61: take X[:56]"


def test_what_a_process_works_out_by_itself_needs_whole_rows(found):
    assert found["in one process"]["not by rows"] == "(64, 8)"
    said = str(found["in two"]["not by rows"])
    assert said.startswith("X must be dealt out by rows, as shard does it, got NamedSharding(")


def test_one_device_is_a_mesh_too(dtype):
    X = np.arange(12.0).reshape(6, 2)
    dealt = sharding.shard(X)
    assert dealt.dtype == dtype and np.array_equal(sharding.gathered(dealt), X)


# Data that memory does not hold.

MEASURE = """
import json, sys, threading, time
from pathlib import Path
import numpy as np
from cmog_lib import ppca

def anonymous():
    # What this process has for itself, in bytes: pages of a mapped file are the system's, which lets go of them.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])

path, mode = sys.argv[1], sys.argv[2] or None
ppca.fit_all(np.random.default_rng(0).normal(size=(1000, 32)).astype("float32"))
before, highest, over = anonymous(), 0, threading.Event()

def watch():
    global highest
    while not over.is_set():
        highest = max(highest, anonymous())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
spectrum = ppca.fit_all(np.load(path, mmap_mode=mode))
over.set()
watcher.join()
print(json.dumps({"grown": highest - before, "eigenvalues": np.asarray(spectrum.eigenvalues).tolist()}))
"""


@pytest.fixture(scope="module")
def million(tmp_path_factory) -> Path:
    """A million rows of 32 numbers, 128 MB, of which the eigenvalues are known: 32², 31², …, 1 but for sampling."""
    path = tmp_path_factory.mktemp("million") / "X.npy"
    mapped = np.lib.format.open_memmap(path, "w+", "float32", (1_000_000, 32))
    random = np.random.default_rng(1)
    for k in range(0, len(mapped), 50_000):
        mapped[k : k + 50_000] = random.normal(size=(50_000, 32)) * np.arange(32, 0, -1)
    mapped.flush()
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's own memory is read as Linux tells it")
def test_ppca_of_a_million_mapped_rows_needs_memory_for_a_block_of_them(million):
    def measured(mode: str) -> dict:
        command = [sys.executable, "-c", MEASURE, str(million), mode]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    mapped, loaded = measured("r"), measured("")
    assert mapped["grown"] < 32e6 < 128e6 < loaded["grown"]
    assert mapped["eigenvalues"] == loaded["eigenvalues"]
    # An eigenvalue's standard error is λ √(2/N), 0.0014 λ.
    np.testing.assert_allclose(mapped["eigenvalues"], np.arange(32, 0, -1) ** 2, rtol=6 * 0.0014)


def test_a_nan_in_a_mapped_file_is_named_with_its_row(tmp_path):
    X = np.ones((1_200_000, 4), "float32")
    X[1_100_000, 2], X[1_150_000, 3] = np.inf, np.nan
    np.save(tmp_path / "X.npy", X)
    with pytest.raises(ValueError, match=r"got inf at X\[1100000, 2\] \(2 of 4800000 values are not finite\)"):
        ppca.fit_all(np.load(tmp_path / "X.npy", mmap_mode="r"))


def test_what_comes_of_a_mapped_file_has_the_sessions_precision(dtype, tmp_path):
    np.save(tmp_path / "X.npy", np.random.default_rng(4).normal(size=(50, 3)))
    spectrum = ppca.fit_all(np.load(tmp_path / "X.npy", mmap_mode="r"))
    made = [leaf.dtype for leaf in jax.tree.leaves((spectrum, spectrum.model(1))) if leaf is not spectrum.rank]
    assert set(made) == {dtype}


def test_every_other_function_takes_a_mapped_array_as_the_array_that_it_is(entry_errors, tmp_path):
    X = np.random.default_rng(2).normal(size=(20, 3)).astype("float32")
    np.save(tmp_path / "X.npy", X)
    w, nodes = decoders.MLP(1, 3, width=4, key=jax.random.key(0)), quadrature.grid(1, 20)
    mapped = quadrature.log_p_x(w, np.load(tmp_path / "X.npy", mmap_mode="r"), nodes)
    assert np.array_equal(mapped, quadrature.log_p_x(w, jnp.asarray(X), nodes))


def test_pieces_have_rows_of_the_data_and_none_twice():
    X = np.arange(1000.0)[:, None]
    pieces = optimise.pieces(X, 300, key=jax.random.key(0))
    several = [next(pieces).ravel() for _ in range(40)]
    assert all(len(np.unique(piece)) == 300 and (np.diff(piece) > 0).all() for piece in several)
    # The mean of 40 pieces: its standard error is that of 12,000 draws without repetition in each 300, 2.2.
    assert abs(np.mean(several) - 499.5) < 4 * 2.2
    again = next(optimise.pieces(X, 300, key=jax.random.key(0))).ravel()
    assert np.array_equal(again, several[0]) and not np.array_equal(several[1], several[0])
    with pytest.raises(ValueError, match=r"rows must be an integer from 1 to 1000 \(the rows of X\), got 1001"):
        optimise.pieces(X, 1001, key=jax.random.key(0))


def towards(w: jax.Array, data: jax.Array, key: jax.Array) -> jax.Array:
    return -0.5 * jnp.mean((w - data) ** 2)


def test_ascend_takes_a_piece_for_each_chunk_and_ends_with_the_last():
    data = [jnp.full(3, value) for value in (1.0, 2.0, 4.0)]
    found = optimise.ascend(
        towards, jnp.zeros(()), iter(data), steps=50, chunk=5, key=jax.random.key(0), progress=False
    )
    assert found.trace.shape == (15,) and not found.interrupted
    w = jnp.zeros(())
    whole = optimise.ascend(towards, w, data[0], steps=5, chunk=5, key=jax.random.key(0), progress=False)
    np.testing.assert_array_equal(found.trace[:5], whole.trace)
    # Where the data jump from 1 to 2 and to 4 so does the value, by more than five steps of Adam could move it.
    assert (np.abs(np.diff(found.trace))[[4, 9]] > 0.4).all()


def test_a_vae_learns_from_a_mapped_array_what_it_learns_from_a_loaded_one(tmp_path):
    random = np.random.default_rng(3)
    X = (random.normal(size=(4000, 1)) @ random.normal(size=(1, 6)) + 0.1 * random.normal(size=(4000, 6))).astype("f4")
    np.save(tmp_path / "X.npy", X)
    w = decoders.start_at(decoders.MLP(1, 6, width=16, depth=1, key=jax.random.key(0)), jnp.asarray(X))
    encoder = amortised.encoders.MLP(6, 1, width=16, depth=1, key=jax.random.key(1))
    options = {"steps": 600, "batch_size": 16, "chunk": 50, "key": jax.random.key(2), "progress": False}
    file = watched(tmp_path / "X.npy")
    mapped = amortised.fit(w, encoder, file, **options)
    assert file.read == [16 * 50] * (600 // 50), "no more than the batches of one chunk at a time"
    loaded = amortised.fit(w, encoder, jnp.asarray(X), **options)
    ends = [run.trace[-100:].mean() for run in (mapped, loaded)]
    assert loaded.trace[:20].mean() + 2 < ends[1]
    # Other batches, the same expectation: 1600 data each, whose bounds spread by some 2 nats, in training still.
    assert abs(ends[0] - ends[1]) < 0.3
