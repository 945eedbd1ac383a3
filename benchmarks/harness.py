"""Contenders side by side: a process for each, turn by turn, A B A B; medians, ranges and ratios as a table.

A row is a module of this folder with
    TITLE, UNIT     what is done, and what there should be much of in a second
    OURS            which contender is the library
    DTYPE           where it is not float32
    PYTHON          whose interpreter, where it is not this one
    CONTENDERS      name → function(problem) that returns answer(seed), which is timed
    prepare(folder) makes the problem, once; load(folder) reads it, in each process
    FLOOR, floor    in words, and as function(problem) that returns answer(seed): operations that no method can do
                    without, done by NumPy in its own turns; the answer is for how many UNITs they suffice. Left out
                    where there are no such operations, as in a loop whose number of steps depends on the method
    judged(answer)  the clock has stopped: a dict with "value", so many UNITs, and what `accuracy` asks for, all JSON;
                    "seconds" and "memory" too, where the row has a clock of its own, or the work is another process's
    accuracy(answers) name → what stands in the table, and whether it will do; from everyone's last answer, judged
Compilation is what JAX itself reports of the first turn, whose other seconds count only where there is no second turn.
Every process has the cores that this one has, and as many threads; `taskset -c 0,1 make bench` gives two to all.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "benchmarks"
ROUNDS = 8  # the first compiles, seven are measured
PATIENCE = 45.0  # seconds after which a contender gets no further turn
FLOOR = "floor"  # the name of its process
PEERS = ("blackjax", "numpyro", "optax", "scikit-learn", "torch")  # whose versions the table names


def run(row_name: str, rounds: int = ROUNDS, patience: float = PATIENCE, only: list[str] | None = None) -> str:
    """Every contender of a row by turns. Returns the table, in Markdown."""
    from tqdm import tqdm

    row = row_of(row_name)
    folder = FOLDER / row_name
    folder.mkdir(parents=True, exist_ok=True)
    row.prepare(folder)
    names = [name for name in row.CONTENDERS if only is None or name in (*only, row.OURS)]
    names += [FLOOR] if hasattr(row, "floor") else []
    workers = {name: Worker(row_name, name) for name in names}
    try:
        with tqdm(total=rounds * len(names), unit="turn") as bar:
            for turn in range(rounds):
                for name, worker in workers.items():
                    bar.set_postfix_str(name)
                    if sum(answer["wall"] for answer in worker.answers) < patience:
                        worker.ask(turn)
                    bar.update()
    finally:
        for worker in workers.values():
            worker.close()
    return table(row, {name: worker.answers for name, worker in workers.items()})


def row_of(name: str) -> Any:
    """The row's module."""
    return importlib.import_module(f"benchmarks.{name}")


class Worker:
    """A contender's process: a seed goes in, a line of JSON comes out."""

    def __init__(self, row: str, name: str) -> None:
        python = str(getattr(row_of(row), "PYTHON", sys.executable))
        command = [python, "-m", "benchmarks.harness", row, name]
        self.name, self.answers = name, list[dict[str, Any]]()
        # JAX counts the cores that it may use; what goes by OpenMP, PyTorch and scikit-learn, is told. There a thread
        # that waits for another sleeps: by running round in circles PyTorch loses up to ten times on a busy machine.
        env = os.environ | {"OMP_NUM_THREADS": str(cores()), "OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, seed: int) -> None:
        """One turn."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):  # it has ended, as the next line will tell
            print(seed, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} gave no answer: its process ended with status {self.process.wait()}")
        self.answers.append(json.loads(line))

    def close(self) -> None:
        """The end of its input is the end of it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):  # what it was still to be told, and nobody is there to hear
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def serve(row_name: str, name: str) -> None:
    """The other end of `Worker`."""
    import jax

    compiled: list[float] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    row = row_of(row_name)
    contender = row.floor if name == FLOOR else row.CONTENDERS[name]
    judged = (lambda count: {"value": count}) if name == FLOOR else row.judged
    answer_for = contender(row.load(FOLDER / row_name))
    answers, sys.stdout = sys.stdout, sys.stderr  # nobody else's words between the lines of JSON
    for line in sys.stdin:
        compiled.clear()
        start = time.perf_counter()
        answer = jax.block_until_ready(answer_for(int(line)))
        wall = time.perf_counter() - start
        took = {"wall": wall, "compile": sum(compiled), "seconds": wall - sum(compiled), "memory": peak_memory()}
        print(json.dumps(took | judged(answer)), file=answers, flush=True)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> float:
    """The most that this process ever held, in GB."""
    import resource

    # On Linux ru_maxrss begins with what the parent held when it forked.
    if (status := Path("/proc/self/status")).exists():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 1e6  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def measured(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns that count: all but the first, where there are others."""
    return answers[1:] or answers


def rates(answers: list[dict[str, Any]]) -> list[float]:
    """How much of `value` a second, turn by turn."""
    return [answer["value"] / answer["seconds"] for answer in measured(answers)]


def ratios(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[float]:
    """How many times as fast we were, for the turns that stood side by side."""
    return [a / b for a, b in zip(rates(ours), rates(theirs), strict=False)]


def spread(values: list[float], digits: int = 3) -> str:
    """`median (lowest–highest)`, without a range where there is one value."""

    def short(value: float) -> str:
        return f"{value:.{digits}g}" if value < 10**digits else f"{value:.0f}"

    middle = short(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({short(min(values))}–{short(max(values))})"


def table(row: Any, answers: dict[str, list[dict[str, Any]]]) -> str:
    """What was measured, in Markdown: medians and ranges, and a ratio only where the accuracy is there."""
    answers = dict(answers)
    least = answers.pop(FLOOR, [])
    found = row.accuracy({name: given[-1] for name, given in answers.items()})
    ours = answers[row.OURS]
    lines = [
        f"| {row.TITLE} | seconds | runs | {row.UNIT} per second | cmog_lib / peer | times the floor | accuracy"
        " | compilation | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, given in answers.items():
        said, good = found[name]
        ratio = "" if name == row.OURS else f"{spread(ratios(ours, given), 2)} ×" if good else "not compared"
        cells = [
            name,
            spread([answer["seconds"] for answer in measured(given)]),
            str(len(measured(given))),
            spread(rates(given)),
            ratio,
            spread(ratios(least, given), 2) if least else "",
            said,
            f"{given[0]['compile']:.1f} s",
            f"{given[-1]['memory']:.1f} GB" if given[-1]["memory"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if least:
        cells = [f"{FLOOR}: {row.FLOOR}", spread([answer["seconds"] for answer in measured(least)])]
        cells += [str(len(measured(least))), spread(rates(least)), "", "1", "", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [*lines, "", f"Medians, with ranges in brackets. {machine()}; computed in {getattr(row, 'DTYPE', 'float32')}."]
    )


def machine() -> str:
    """Where this was measured, and with what."""
    from importlib.metadata import version

    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    with_what = ", ".join(f"{name} {version(name)}" for name in ("jax", *PEERS))
    return f"{cpu}, {cores()} cores, {platform.system()}, Python {platform.python_version()}, {with_what}; {limits()}"


@cache
def limits() -> str:
    """What these cores can do at best: in matrix products, and in moving numbers to and from memory."""
    import jax
    import jax.numpy as jnp

    def fastest(f: Any, a: Any) -> float:
        times, a = [], f(a)
        for _ in range(10):
            start = time.perf_counter()
            a = jax.block_until_ready(f(a))
            times.append(time.perf_counter() - start)
        return min(times)

    side, length = 2048, 2**26
    product = fastest(jax.jit(lambda A: A @ A / side), jnp.ones((side, side)))
    moved = fastest(jax.jit(lambda x: x + 1, donate_argnums=0), jnp.zeros(length))
    gflops, bandwidth = 2 * side**3 / product / 1e9, 8 * length / moved / 1e9
    return f"{gflops:.0f} Gflop/s in float32 matrix products, {bandwidth:.0f} GB/s memory bandwidth"


def rows() -> Iterator[str]:
    """The names of all rows: the modules that have contenders."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        if "\nCONTENDERS =" in path.read_text(encoding="utf-8"):
            yield path.stem


if __name__ == "__main__":
    serve(*sys.argv[1:])
