"""Runs each lecture in a fresh kernel and keeps the result in build/executed until its code changes.

A lecture's code is the source of its code cells and the modules of the library that its kernel loaded. A change of its
texts, of its slide tags, or of the explorer's script and style does not make it run again.

A lecture that fails does not stop the others. Its cells up to the failed one are kept in build/executed/failed, where
its page finds them, and it runs again next time.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
EXECUTED = ROOT / "build" / "executed"
LECTURES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
AT_A_TIME = 2
KERNELS: set[int] = set()  # the process ids of the running kernels
STOPPED = threading.Event()  # set by Ctrl-C: kernels are ended, and the lectures that break off have not failed

MODULES = """
import json, sys
print(json.dumps(sorted({m.__file__ for n, m in list(sys.modules.items()) if n.split(".")[0] == "cmog_lib"})))
"""


@dataclass(frozen=True)
class Failure:
    """Where a lecture failed: the number that Jupyter shows beside the cell (0 for none), its first line, the error."""

    number: int
    line: str
    error: str

    def __str__(self) -> str:
        place = f"cell [{self.number}], {self.line!r}" if self.number else "outside of its cells"
        return f"{place}: {self.error}"


class CellFailed(Exception):
    """A cell of a notebook did not run to its end."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def cause(error: Exception) -> str:
    """The one line that says what went wrong."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, CellExecutionError):
        name, text = error.ename, error.evalue
    return f"{name}: {' '.join(text.split())[:300]}"


def failed_cell(cell: NotebookNode) -> bool:
    """Whether a cell has run and failed."""
    return any(output.output_type == "error" for output in cell.get("outputs", []))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that a kernel runs."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@contextmanager
def running(notebook: NotebookNode, folder: Path, **environment: str) -> Iterator[NotebookClient]:
    """Runs the notebook in a fresh kernel without a network, and yields its client; the kernel ends with the block.

    Raises:
        CellFailed: at the first cell that fails. Its outputs hold the error.
    """
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    here = {"metadata": {"path": str(folder)}}
    with TemporaryDirectory() as sockets:
        client = NotebookClient(notebook, timeout=900, resources=here, config=without_ports(Path(sockets)))
        with client.setup_kernel(
            env={**os.environ, "CMOG_STRICT": "1", "JAX_PLATFORMS": "cpu", **nowhere, **environment}
        ):
            KERNELS.add(client.km.provisioner.pid)
            try:
                for k, cell in enumerate(notebook.cells):
                    if STOPPED.is_set():
                        raise KeyboardInterrupt
                    try:
                        client.execute_cell(cell, k)
                    except Exception as error:
                        raise failed(notebook, k, error) from error
                yield client
            finally:
                KERNELS.discard(client.km.provisioner.pid)


def failed(notebook: NotebookNode, k: int, error: Exception) -> CellFailed:
    """Returns the exception for a failed cell, and adds the error to its outputs if the kernel could not."""
    cell, text = notebook.cells[k], cause(error)
    if not failed_cell(cell):
        name, _, value = text.partition(": ")
        cell.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=value, traceback=[text]))
    number = len(code_cells(nbformat.v4.new_notebook(cells=notebook.cells[: k + 1])))
    return CellFailed(Failure(number, cell.source.strip().splitlines()[0], text))


def without_ports(folder: Path) -> Config:
    """Configures a kernel to use sockets in this folder, which no other user of the machine can reach."""
    config = Config()
    if sys.platform != "win32":
        config.KernelManager.transport, config.KernelManager.ip = "ipc", str(folder / "kernel")
    return config


def keep(notebook: NotebookNode, client: NotebookClient, lecture: Path) -> None:
    """Writes the lecture with its outputs and the fingerprints of its code."""
    cells = list(notebook.cells)
    notebook.cells.append(nbformat.v4.new_code_cell(MODULES))
    files = json.loads(client.execute_cell(notebook.cells[-1], len(cells)).outputs[0].text)
    notebook.cells = cells
    made_of = fingerprints(notebook, (Path(file).resolve().relative_to(ROOT) for file in files))
    write(EXECUTED / lecture.name, nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata), made_of=made_of)
    (EXECUTED / "failed" / lecture.name).unlink(missing_ok=True)


def keep_failure(notebook: NotebookNode, failure: Failure, lecture: Path) -> None:
    """Writes the lecture up to the cell that failed."""
    ran = failure.number or sum(cell.execution_count is not None for cell in code_cells(notebook))
    as_far = nbformat.v4.new_notebook(cells=up_to(notebook.cells, ran), metadata=notebook.metadata)
    code = fingerprints(notebook, [])
    write(EXECUTED / "failed" / lecture.name, as_far, made_of=code, failure=asdict(failure))


def up_to(cells: list[NotebookNode], count: int) -> list[NotebookNode]:
    """The cells up to the code cell of this number, and at least the title."""
    places = {kind: [k for k, cell in enumerate(cells) if cell.cell_type == kind] for kind in ("code", "markdown")}
    last = max([*places["code"][:count][-1:], *places["markdown"][:1]], default=-1)
    return cells[: last + 1]


def write(path: Path, notebook: NotebookNode, **metadata: dict[str, Any]) -> None:
    """Writes a notebook in one step, so that an interruption leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook.metadata |= metadata
    unfinished = path.with_suffix(f".{os.getpid()}")
    nbformat.write(notebook, unfinished)
    unfinished.replace(path)


def fingerprints(notebook: NotebookNode, files: Iterable[Path]) -> dict[str, str]:
    """A hash of the lecture's code and of each file."""
    texts = {"code": json.dumps([cell.source for cell in code_cells(notebook)]).encode()}
    texts |= {file.as_posix(): (ROOT / file).read_bytes() if (ROOT / file).exists() else b"" for file in files}
    return {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}


def read(lecture: Path) -> NotebookNode | None:
    """The lecture as it is now with the outputs of its last run, or None if they are out of date."""
    notebook, kept = nbformat.read(lecture, 4), EXECUTED / lecture.name
    if not kept.exists():
        return None
    done = nbformat.read(kept, 4)
    made_of = done.metadata.made_of
    if fingerprints(notebook, (Path(name) for name in made_of if name != "code")) != made_of:
        return None
    return with_outputs(notebook, done)


def latest(lecture: Path) -> NotebookNode | None:
    """The lecture for its page: what `read` returns, or else its cells up to the one that failed, or None.

    `failure` tells which of these it is.
    """
    kept = EXECUTED / "failed" / lecture.name
    if (good := read(lecture)) is not None or not kept.exists():
        return good
    notebook, done = nbformat.read(lecture, 4), nbformat.read(kept, 4)
    if fingerprints(notebook, []) != done.metadata.made_of:
        return None
    notebook.cells = up_to(notebook.cells, len(code_cells(done)))
    notebook.metadata["failure"] = done.metadata.failure
    return with_outputs(notebook, done)


def with_outputs(notebook: NotebookNode, done: NotebookNode) -> NotebookNode:
    """The notebook with the outputs of one that has run."""
    for cell, ran in zip(code_cells(notebook), code_cells(done), strict=True):
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    return notebook


def failure(notebook: NotebookNode) -> Failure | None:
    """Where a lecture from `latest` failed, or None if it did not."""
    found = notebook.metadata.get("failure")
    return Failure(**found) if found else None


def execute(lecture: Path) -> Failure | None:
    """Runs one lecture and keeps its outputs. Returns where it failed, or None."""
    began = time.monotonic()
    notebook = nbformat.read(lecture, 4)
    try:
        with running(notebook, lecture.parent) as client:
            keep(notebook, client, lecture)
    except Exception as error:
        if STOPPED.is_set():
            return None
        where = error.failure if isinstance(error, CellFailed) else Failure(0, "", cause(error))
        keep_failure(notebook, where, lecture)
        print(f"book: {lecture.stem} failed in {where}", flush=True)
        return where
    print(f"book: {lecture.stem} has run, {time.monotonic() - began:.0f} s", flush=True)
    return None


def run_all() -> int:
    """Runs the lectures whose code has changed, the longest first. Returns 130 after Ctrl-C, else 0."""
    stale = [lecture for lecture in LECTURES if read(lecture) is None]
    if not stale:
        print("book: no lecture has changed since its last run")
        return 0
    print(f"book: running {len(stale)} of {len(LECTURES)} lectures, {AT_A_TIME} at a time, minutes each", flush=True)
    STOPPED.clear()
    pool = ThreadPoolExecutor(AT_A_TIME)
    try:
        list(pool.map(execute, reversed(stale)))
    except KeyboardInterrupt:
        STOPPED.set()
        print("book: stopped; the lectures that have run are kept", flush=True)
        return 130
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # A kernel has a session of its own, which Ctrl-C does not reach, and its thread waits for it.
        for kernel in KERNELS.copy():
            with suppress(ProcessLookupError):
                os.kill(kernel, signal.SIGTERM)
    return 0


def report() -> int:
    """Prints which lectures failed and why. Returns 1 if one did, else 0."""
    notebooks = {lecture.stem: latest(lecture) for lecture in LECTURES}
    failures = {name: failure(notebook) for name, notebook in notebooks.items() if notebook is not None}
    lines = [f"  {name}, {where}" for name, where in failures.items() if where is not None]
    if lines:
        print(f"book: {len(lines)} of {len(LECTURES)} lectures failed and will run again next time:", *lines, sep="\n")
    return int(bool(lines))


def main() -> int:
    """Runs the lectures whose code has changed, and names those that failed."""
    return run_all() or report()


if __name__ == "__main__":
    sys.exit(main())
