"""Runs and downloads that are killed at random moments: nothing is lost but the last few steps, and no file is half."""

from __future__ import annotations

import builtins
import contextlib
import gzip
import hashlib
import io
import json
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import re
import signal
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import long_runs
import numpy as np
import pytest
from compiled import QUICKLY_COMPILED
from test_datasets import serving

from cmog_lib import _mnist, amortised, datasets, decoders, mcmc, optimise
from cmog_lib.engine.optimise import stochastic
from cmog_lib.engine.optimise.checkpoint import VERSION, Checkpoint, fingerprint
from cmog_lib.engine.optimise.interrupts import interruptible, look
from cmog_lib.quadrature import grid

KEY = jax.random.key(0)
# Processes that begin where the library is imported already, and nothing else has happened.
PROCESSES = multiprocessing.get_context("forkserver") if sys.platform != "win32" else None
killed = pytest.mark.skipif(PROCESSES is None, reason="Windows has no signals of this kind")
KILLS = int(os.environ.get("CMOG_KILLS", 6))  # of each run that writes a checkpoint; weekly twenty


@pytest.fixture(scope="module", autouse=True)
def imported_already():
    """The library, in the process that the others are forked from: it saves each of them seconds."""
    if PROCESSES is not None:
        PROCESSES.set_forkserver_preload(["long_runs", "pooch"])
        with pytest.MonkeyPatch.context() as patch:
            # Python 3.11 looks for these only where this says, and goes on without them.
            patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
            patch.setenv("XLA_FLAGS", QUICKLY_COMPILED)
            multiprocessing.forkserver.ensure_running()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the processes keep what they compile."""
    return tmp_path_factory.mktemp("compiled")


class Runs:
    """A process that runs on demand, and what it found when nobody stopped it: once compiled, in so many seconds."""

    def __init__(self, name, cache):
        self.line, theirs = PROCESSES.Pipe()
        self.steps = long_runs.STEPS[name]
        self.process = PROCESSES.Process(target=long_runs.again_and_again, args=(name, cache, theirs), daemon=True)
        self.process.start()
        self.whole = self(self.steps)
        began = time.perf_counter()
        self(self.steps)
        self.seconds = time.perf_counter() - began

    def begin(self, steps, checkpoint=None):
        self.line.send((steps, checkpoint))
        assert self.line.recv() == "begins"

    def __call__(self, steps, checkpoint=None):
        self.begin(steps, checkpoint)
        return self.line.recv()


@pytest.fixture(scope="module")
def runs(cache):
    made = {}

    def of(name):
        if name not in made:
            made[name] = Runs(name, cache)
        return made[name]

    yield of
    for each in made.values():
        each.line.send(None)
        each.process.join(60)
        assert each.process.exitcode == 0


def same(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


@killed
@pytest.mark.parametrize("name", long_runs.STEPS)
def test_ctrl_c_returns_the_last_good_state_and_the_next_run_ends_where_it_would_have(name, runs, tmp_path):
    run, rng, partial = runs(name), np.random.default_rng(1), 0
    for k in range(KILLS):
        path = tmp_path / f"{k}.npz" if k % 4 == 0 else None
        run.begin(run.steps, path)
        time.sleep(rng.uniform(0, run.seconds))
        os.kill(run.process.pid, signal.SIGINT)
        found = run.line.recv()
        if found is None:
            continue  # before its loop begins there is nothing to return
        trace = found[0]
        assert np.array_equal(trace, run.whole[0][: len(trace)], equal_nan=True)
        taken = len(trace) - (name == "mcmc.fit")
        partial += 0 < taken < run.steps
        if path:
            assert same(run(run.steps, path), run.whole)
        elif k < 6 and taken and name != "mcmc.fit":  # whose keys depend on how many steps are wanted
            assert same(run(taken), found)
    assert partial >= KILLS // 4


@killed
@pytest.mark.parametrize("name", long_runs.STEPS)
def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_at_the_same_numbers(name, runs, cache, tmp_path):
    run, rng, path, reached = runs(name), np.random.default_rng(2), tmp_path / "run.npz", []
    for _ in range(KILLS):
        process = PROCESSES.Process(target=long_runs.to_its_end, args=(name, path, cache))
        before = path.stat().st_mtime_ns if path.exists() else 0
        process.start()
        while process.is_alive() and (path.stat().st_mtime_ns if path.exists() else 0) == before:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, run.seconds / 2))
        process.kill()
        process.join()
        with np.load(path, allow_pickle=False) as file:
            reached.append(json.loads(file["manifest"].tobytes())["step"])
        if reached[-1] == run.steps:
            path.unlink()
    assert {file.name for file in tmp_path.iterdir()} <= {"run.npz", "run.npz.part"}
    assert min(reached) < run.steps, "some were killed in time"
    assert same(run(run.steps, path), run.whole)


@killed
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_a_killed_download_leaves_whole_files_or_none(sent, tmp_path, monkeypatch):
    name, content = "t10k-images-idx3-ubyte", np.random.default_rng(0).integers(0, 256, 10**6, np.uint8).tobytes()
    sha256, rng = hashlib.sha256(content).hexdigest(), np.random.default_rng(3)
    monkeypatch.setitem(_mnist.SHA256, name, sha256)
    target = tmp_path / "mnist" / f"{name}.gz"
    with serving() as mirror:
        mirror.answer = {f"/{name}.gz": gzip.compress(content, 1)}
        mirror.slow = 0.1
        for k in range(KILLS):
            asked = len(mirror.asked)
            mirror.holds = k % 2 == 0  # so that on no machine all come in time
            process = PROCESSES.Process(target=long_runs.download, args=(name, mirror.address, tmp_path, sha256))
            process.start()
            while len(mirror.asked) == asked and process.is_alive():
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.15))
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                os.kill(process.pid, sent)
            process.join()
            mirror.holds, held = False, mirror.holds
            if sent == signal.SIGINT:
                assert process.exitcode in (0, 2)
                assert not target.parent.exists() or {path.name for path in target.parent.iterdir()} <= {target.name}
            if target.exists():
                assert not held and _mnist.checked(target, name) == content
                target.unlink()
        process = PROCESSES.Process(target=long_runs.download, args=(name, mirror.address, tmp_path, sha256))
        process.start()
        process.join()
    assert _mnist.checked(target, name) == content


# What hears Ctrl-C.


@pytest.fixture
def pythons_own_ear():
    """Ctrl-C as Python hears it, whoever listens while tests run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_first_ctrl_c_waits_until_it_is_looked_for_and_a_second_does_not(pythons_own_ear):
    reached = []

    @interruptible
    def run(times):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
            reached.append(times)
        look()
        reached.append("past the look")

    for times in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(times)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert reached == [1, 2]
    run(0)
    assert reached[-1] == "past the look"


def test_who_listens_already_and_who_runs_in_another_thread_is_left_alone(pythons_own_ear):
    heard = interruptible(lambda: signal.getsignal(signal.SIGINT))
    assert heard() is not signal.default_int_handler
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(heard).result() is signal.default_int_handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert heard() == signal.SIG_IGN == signal.getsignal(signal.SIGINT)


# The file itself.


def climb(path, steps=20, target=3.0, **options):
    options = {"key": KEY, "chunk": 5, "progress": False} | options
    return optimise.ascend(long_runs.bowl, jnp.zeros(2), jnp.full(2, target), steps=steps, checkpoint=path, **options)


def test_a_run_may_be_made_longer_and_one_that_is_done_is_not_run_again(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    whole, half = climb(None, 20), climb(path, 10)
    assert np.array_equal(half.trace, whole.trace[:10])
    longer = climb(path, 20)
    assert np.array_equal(longer.trace, whole.trace) and np.array_equal(longer.w, whole.w)
    monkeypatch.setattr(stochastic, "_chunk", None)
    assert np.array_equal(climb(path, 20).w, whole.w)
    with pytest.raises(
        ValueError, match=r"steps must be an integer of at least 20 \(the checkpoint .* holds so many\)"
    ):
        climb(path, 15)


def test_a_run_on_pieces_goes_on_at_the_piece_where_it_stopped(tmp_path):
    def run(steps, path=None):
        pieces = iter([jnp.full(2, value) for value in (1.0, 2.0, 4.0, 8.0)])
        options = {"key": KEY, "chunk": 5, "progress": False, "checkpoint": path}
        return optimise.ascend(long_runs.bowl, jnp.zeros(2), pieces, steps=steps, **options)

    whole = run(20)
    run(10, tmp_path / "run.npz")
    longer = run(20, tmp_path / "run.npz")
    assert np.array_equal(longer.trace, whole.trace) and np.array_equal(longer.w, whole.w)


@pytest.mark.parametrize(
    "change", [{"target": 2.0}, {"key": jax.random.key(1)}, {"learning_rate": 0.1}], ids=["data", "key", "rate"]
)
def test_the_checkpoint_of_another_run_is_refused_by_name(tmp_path, change):
    path = tmp_path / "run.npz"
    climb(path, 5)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"^checkpoint must be .*{re.escape(str(path))}.*, one of another run"):
        climb(path, **change)
    assert path.read_bytes() == before


@pytest.fixture
def mapped(tmp_path):
    """A VAE's run on a file of rows, as (path of the file, the run): 60 steps with a piece of 40 rows for each 5."""
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(200, 2)).astype("float32"))
    w = decoders.MLP(1, 2, width=4, depth=1, key=KEY)
    encoder = amortised.encoders.MLP(2, 1, width=4, depth=1, key=KEY)

    def run(steps, **options):
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
        options = {"key": KEY, "batch_size": 8, "chunk": 5, "progress": False} | options
        return amortised.fit(w, encoder, X, steps=steps, **options)

    return tmp_path / "X.npy", run


def test_a_run_on_a_mapped_file_goes_on_with_the_pieces_that_it_would_have_had(mapped, tmp_path):
    _, run = mapped
    path, whole = tmp_path / "run.npz", run(60)
    run(25, checkpoint=path)
    assert same(long_runs.numbers(run(60, checkpoint=path)), long_runs.numbers(whole))


CHANGED = {
    "other rows": lambda X: X[::-1],
    "one row more": lambda X: np.concatenate([X, X[:1]]),
    "another precision": lambda X: X.astype("float16"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_the_checkpoint_of_a_run_on_another_mapped_file_is_refused_by_name(mapped, tmp_path, name):
    (file, run), path = mapped, tmp_path / "run.npz"
    run(5, checkpoint=path)
    np.save(file, CHANGED[name](np.load(file)))
    with pytest.raises(ValueError, match=f"^checkpoint must be .*{re.escape(str(path))}.*, one of another run"):
        run(10, checkpoint=path)


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"M": 2}, {"chunk": 10}], ids=lambda change: next(iter(change)))
def test_the_checkpoint_of_a_run_with_other_batches_is_refused_by_name(mapped, tmp_path, change):
    (_, run), path = mapped, tmp_path / "run.npz"
    run(5, checkpoint=path)
    with pytest.raises(ValueError, match="one of another run: other data, another key, batch, start or optimiser"):
        run(10, checkpoint=path, **change)


class Malicious:
    """What unpickling runs."""

    def __reduce__(self):
        return (exec, ("import builtins; builtins.was_here = True",))


def archive(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def changed(good, **words):
    """The same checkpoint, with other words in its manifest."""
    with np.load(io.BytesIO(good)) as file:
        arrays = {name: file[name] for name in file.files}
    manifest = json.loads(arrays["manifest"].tobytes()) | words
    return archive(**arrays | {"manifest": np.frombuffer(json.dumps(manifest).encode(), np.uint8)})


def other_bit(good):
    spoilt = bytearray(good)
    with zipfile.ZipFile(io.BytesIO(good)) as file:
        entry = file.getinfo("array0.npy")
    spoilt[entry.header_offset + 30 + len("array0.npy") + 20 + 128] ^= 1
    return bytes(spoilt)


def of_texts(**entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, text in entries.items():
            made.writestr(name, text)
    return file.getvalue()


def with_text(good):
    file = io.BytesIO(good)
    with zipfile.ZipFile(file, "a") as made:
        made.writestr("a word", "more")
    return file.getvalue()


def entries_moved(good):
    # The last record says at which byte the list of entries begins; from that follows where the entries do.
    begins = int.from_bytes(good[-6:-2], "little") + 10_000
    return good[:-6] + begins.to_bytes(4, "little") + good[-2:]


BAD = {
    "empty": (lambda good: b"", "damaged or foreign"),
    "half": (lambda good: good[: len(good) // 2], "damaged or foreign"),
    "one other bit": (other_bit, "damaged or foreign"),
    "text": (lambda good: b"steps: 20", "damaged or foreign"),
    "another archive": (lambda good: archive(a=np.ones(3)), "damaged or foreign"),
    "an archive of texts": (lambda good: of_texts(manifest="{}"), "one of another format"),
    "a text beside the arrays": (lambda good: with_text(good), "arrays are not those"),
    "an entry before the file's beginning": (lambda good: entries_moved(good), "damaged or foreign"),
    "a pickle": (lambda good: pickle.dumps(Malicious()), "damaged or foreign"),
    "a pickle inside": (lambda good: archive(array0=np.array([Malicious()], object)), "damaged or foreign"),
    "a pickled manifest": (lambda good: archive(manifest=np.array([Malicious()], object)), "damaged or foreign"),
    "another version": (lambda good: changed(good, version=VERSION + 1), "one of another version"),
    "another format": (lambda good: changed(good, format="?"), "one of another format"),
    "other shapes": (lambda good: changed(good, arrays={"array0": "float32[7]"}), "arrays are not those"),
    "no steps": (lambda good: changed(good, step="5"), "arrays are not those"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_foreign_or_malicious_checkpoint_is_refused_by_name_and_left_alone(tmp_path, name):
    spoil, said = BAD[name]
    path = tmp_path / "run.npz"
    climb(path, 5)
    bad = spoil(path.read_bytes())
    path.write_bytes(bad)
    with pytest.raises(ValueError, match=f"^checkpoint must be .*{re.escape(str(path))}.*{said}.*move it away"):
        climb(path)
    assert path.read_bytes() == bad and not hasattr(builtins, "was_here")


def test_arrays_of_other_shapes_than_the_runs_are_refused(tmp_path):
    file = Checkpoint(tmp_path / "run.npz", KEY)
    file.save(3, {"w": jnp.ones(2), "trace": np.ones(3)})
    step, state = file.load(lambda step: {"w": jnp.zeros(2), "trace": np.zeros(step)})
    assert step == 3 and np.array_equal(state["w"], np.ones(2)) and state["trace"].dtype == np.float64
    with pytest.raises(ValueError, match=r"with arrays .*float32\[2\].* where this run has .*float32\[4\]"):
        file.load(lambda step: {"w": jnp.zeros(4), "trace": np.zeros(step)})


@pytest.mark.parametrize(("of_w", "of_X"), [("float32", "float64"), ("float64", "float32")])
def test_monte_carlo_em_takes_back_what_it_made_of_a_decoder_and_data_of_two_precisions(
    tmp_path, monkeypatch, of_w, of_X
):
    with jax.enable_x64(True):
        w = decoders.Linear(jnp.ones((2, 1), of_w), jnp.zeros(2, of_w), jnp.zeros((), of_w))
        is_taken_back(w, datasets.curve(20, key=KEY).X.astype(of_X), None, tmp_path / "run.npz", monkeypatch)


def test_monte_carlo_em_takes_back_several_chains_and_a_decoder_of_numpy_arrays(tmp_path, monkeypatch):
    w, X = decoders.Linear(jnp.ones((2, 1)), jnp.zeros(2), jnp.zeros(())), datasets.curve(20, key=KEY).X
    w = jax.tree.map(np.asarray, w)
    chains = mcmc.hmc(w, X, mcmc.laplace(w, X, key=KEY), M=4, chains=3, key=KEY)
    is_taken_back(w, X, chains, tmp_path / "run.npz", monkeypatch)


@pytest.mark.parametrize("other", [{"steps": 3}, {"M": 5}, {"warm_up": 3}, {"keep": False}, {"audit": grid(1, 50)}])
def test_the_checkpoint_of_monte_carlo_em_of_another_kind_is_refused(tmp_path, other):
    w, X = decoders.Linear(jnp.ones((2, 1)), jnp.zeros(2), jnp.zeros(())), datasets.curve(20, key=KEY).X
    same = {"steps": 2, "M": 4, "warm_up": 2, "key": KEY, "progress": False, "checkpoint": tmp_path / "run.npz"}
    mcmc.fit(w, X, **same)
    with pytest.raises(ValueError, match="one of another run"):
        mcmc.fit(w, X, **same | other)


def is_taken_back(w, X, chains, path, monkeypatch):
    run = partial(mcmc.fit, w, X, chains, steps=2, M=4, warm_up=2, key=KEY, progress=False, checkpoint=path)
    done = long_runs.numbers(run())
    monkeypatch.setattr(mcmc.em, "mc_em_step", None)
    assert same(long_runs.numbers(run()), done)


def test_a_fingerprint_tells_numbers_shapes_and_precisions_apart(dtype):
    one = jnp.arange(6, dtype=dtype)
    names = [fingerprint(tree) for tree in (one, one.reshape(2, 3), one.at[0].set(9), one.astype(jnp.float16), KEY)]
    assert len(set(names)) == 5 and fingerprint({"a": one}) == names[0]


def test_what_cannot_be_written_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    climb(path, 5)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        climb(path, 20)
    assert path.read_bytes() == before
