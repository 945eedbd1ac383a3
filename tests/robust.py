"""`make robust`: runs every lecture under conditions other than those it was written in, and lists the failing claims.

A condition is a seed in place of the lecture's SEED, an instruction set to which XLA is limited, a number of cores, or
other models in place of those that `make models` wrote. A lecture is run past a failing cell. What has been run
is kept in build/robust.jsonl until the lecture or the library changes, so that all conditions can be run in parts.
What XLA compiled is kept too, since a lecture compiles the same with every seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from compiled import gathered, of_a_lecture, taken_from  # noqa: E402

from book.execute import LECTURES, code_cells, without_ports  # noqa: E402

KEPT = ROOT / "build" / "robust.jsonl"
COMPILED = ROOT / "build" / "compiled"
LONGEST = 1800  # seconds for one cell: what is looked for here are claims, not times
OWN = "own"


@dataclass(frozen=True)
class Condition:
    """seed: in place of SEED = 0. isa: the widest that XLA may use. cores: how many. models: a folder with others."""

    seed: int = 0
    isa: str = OWN
    cores: int = 0
    models: str = ""

    def __str__(self) -> str:
        named = {"seed": self.seed, "isa": self.isa, "cores": self.cores, "models": Path(self.models).name}
        said = [f"{name} {value}" for name, value in named.items() if value not in (0, OWN, "")]
        return ", ".join(said) or "as written"

    def environment(self) -> dict[str, str]:
        flags = os.environ.get("XLA_FLAGS", "")
        limited = {} if self.isa == OWN else {"XLA_FLAGS": f"{flags} --xla_cpu_max_isa={self.isa}".strip()}
        # With one core XLA may divide the work otherwise, so that is compiled anew.
        compiled = {} if self.cores else taken_from(COMPILED)
        return limited | compiled | ({"CMOG_MODELS": str(Path(self.models).resolve())} if self.models else {})


SEEDS = [Condition(seed=seed) for seed in range(8)]
PROCESSORS = [Condition(isa="SSE4_2"), Condition(isa="AVX2"), Condition(cores=1)]


@dataclass(frozen=True)
class Outcome:
    """What became of one lecture under one condition. failures: (cell, message)."""

    lecture: str
    condition: str
    code: str
    seconds: float
    failures: list[tuple[int, str]]


def fingerprint(lecture: Path) -> str:
    """A short name for the lecture's code and the library's."""
    library = sorted(path for path in (ROOT / "cmog_lib").rglob("*") if path.suffix in (".py", ".npz"))
    digest = hashlib.sha256("\0".join(cell.source for cell in code_cells(nbformat.read(lecture, 4))).encode())
    for path in library:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def ran(lecture: Path) -> str:
    """A name for what was run: the code, and the caller's flags for XLA."""
    return f"{fingerprint(lecture)} {os.environ.get('XLA_FLAGS', '')}".strip()


def of_this_push() -> tuple[list[Path], Condition]:
    """Two lectures and a condition that they were not written in; others when a lecture or the library changes.

    The two are four apart, so that of lectures 5 to 7, which take longest, at most one is among them.
    """
    digest = hashlib.sha256("".join(map(fingerprint, LECTURES)).encode()).digest()
    foreign = [*SEEDS[1:], *PROCESSORS]
    return LECTURES[digest[0] % 4 :: 4], foreign[digest[1] % len(foreign)]


def run(lecture: Path, condition: Condition) -> Outcome:
    """The lecture in a fresh kernel under the condition, past every failing cell."""
    notebook, began = nbformat.read(lecture, 4), time.monotonic()
    cells = code_cells(notebook)
    for cell in cells:
        cell.source = re.sub(r"^SEED = 0\b", f"SEED = {condition.seed}", cell.source, flags=re.M)
    here = {"metadata": {"path": str(lecture.parent)}}
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    failures = []
    with TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook, timeout=LONGEST, allow_errors=True, resources=here, config=without_ports(Path(sockets))
        )
        if condition.cores and before:
            os.sched_setaffinity(0, set(sorted(before)[: condition.cores]))
        try:
            client.execute(env={**os.environ, "JAX_PLATFORMS": "cpu", **condition.environment()})
        except (CellTimeoutError, DeadKernelError) as error:
            failures.append((0, f"{type(error).__name__}: {error}".splitlines()[0]))
        finally:
            if condition.cores and before:
                os.sched_setaffinity(0, before)
    for k, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                failures.append((k, f"{output.ename}: {output.evalue}".splitlines()[0][:200]))
    seconds = round(time.monotonic() - began, 1)
    return Outcome(lecture.stem, str(condition), ran(lecture), seconds, failures)


def kept() -> dict[tuple[str, str, str], Outcome]:
    """What earlier calls have run."""
    if not KEPT.exists():
        return {}
    rows = [Outcome(**json.loads(line)) for line in KEPT.read_text(encoding="utf-8").splitlines()]
    return {(row.lecture, row.condition, row.code): row for row in rows}


def outcomes(lectures: list[Path], conditions: list[Condition], jobs: int) -> Iterator[Outcome]:
    """Of every lecture under every condition, in the order in which they come; new ones are kept."""
    known, lock = kept(), Lock()
    gathered(COMPILED)  # what the tests of the lectures have compiled

    def one(pair: tuple[Path, Condition]) -> Outcome:
        lecture, condition = pair
        if found := known.get((lecture.stem, str(condition), ran(lecture))):
            return found
        outcome = run(lecture, condition)
        with lock:
            KEPT.parent.mkdir(exist_ok=True)
            with KEPT.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            said = "; ".join(f"cell {cell}: {message}" for cell, message in outcome.failures) or "all claims hold"
            print(f"robust: {lecture.stem}, {condition}, {outcome.seconds:.0f} s: {said}", flush=True)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(one, [(lecture, condition) for condition in conditions for lecture in lectures])


def table(rows: list[Outcome]) -> str:
    """Lecture × condition: the number of failing claims, and below the table each of them."""
    conditions, lectures = list(dict.fromkeys(r.condition for r in rows)), list(dict.fromkeys(r.lecture for r in rows))
    at = {(row.lecture, row.condition): row for row in rows}
    lines = ["| lecture | " + " | ".join(conditions) + " |", "|---" * (len(conditions) + 1) + "|"]
    for lecture in lectures:
        counts = [str(len(at[lecture, c].failures)) if (lecture, c) in at else "" for c in conditions]
        lines.append(f"| {lecture} | " + " | ".join(counts) + " |")
    failing = [
        f"{row.lecture}, {row.condition}, cell {cell}: {message}" for row in rows for cell, message in row.failures
    ]
    return "\n".join([*lines, "", *failing])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make robust", description=__doc__)
    parser.add_argument("--lectures", type=int, nargs="*", help="their numbers (default: all)")
    parser.add_argument("--seeds", type=int, nargs="*", help="default: 0 to 7")
    parser.add_argument("--isa", nargs="*", default=[], help="such as SSE4_2, AVX2")
    parser.add_argument("--cores", type=int, nargs="*", default=[])
    parser.add_argument("--models", nargs="*", default=[], help="folders that `make models` has written")
    parser.add_argument("--push", action="store_true", help="two lectures under one condition, as .ci/run does")
    parser.add_argument("--jobs", type=int, default=1, help="lectures that run at the same time")
    chosen = parser.parse_args(arguments)
    some = [chosen.seeds, chosen.isa, chosen.cores, chosen.models]
    conditions = [Condition(seed=seed) for seed in chosen.seeds or []]
    conditions += [Condition(isa=isa) for isa in chosen.isa] + [Condition(cores=cores) for cores in chosen.cores]
    conditions += [Condition(models=models) for models in chosen.models]
    lectures = [path for path in LECTURES if not chosen.lectures or int(path.name[:2]) in chosen.lectures]
    if chosen.push:
        os.environ |= of_a_lecture()  # so that what the tests of the lectures compiled is found
        lectures, condition = of_this_push()
        conditions, some = [condition], [[condition]]
        print(f"robust: {' and '.join(lecture.stem for lecture in lectures)}, {condition}", flush=True)
    rows = list(outcomes(lectures, conditions if any(some) else [*SEEDS, *PROCESSORS], chosen.jobs))
    print(table(rows))
    return int(any(row.failures for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
