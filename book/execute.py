"""The lectures, each run by a fresh kernel, kept in build/executed until what they were made of changes.

A lecture is made of the source of its code cells and of the modules of the library that its kernel had loaded. Its
texts and its slide tags are none of that, nor are the explorer's script and style: to mend a sentence costs no run.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
EXECUTED = ROOT / "build" / "executed"
LECTURES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
AT_A_TIME = 2
KERNELS: set[int] = set()  # that run now

MODULES = """
import json, sys
print(json.dumps(sorted({m.__file__ for n, m in list(sys.modules.items()) if n.split(".")[0] == "cmog_lib"})))
"""


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that a kernel runs."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@contextmanager
def running(notebook: NotebookNode, folder: Path, **environment: str) -> Iterator[NotebookClient]:
    """A fresh kernel that has run the notebook, with no road to a network; it lives until the block ends."""
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
                    client.execute_cell(cell, k)
                yield client
            finally:
                KERNELS.discard(client.km.provisioner.pid)


def without_ports(folder: Path) -> Config:
    """A kernel that is talked to through files of this folder, which nobody else on the machine can listen to."""
    config = Config()
    if sys.platform != "win32":
        config.KernelManager.transport, config.KernelManager.ip = "ipc", str(folder / "kernel")
    return config


def keep(notebook: NotebookNode, client: NotebookClient, lecture: Path) -> None:
    """Write down what the kernel has made of the lecture, and what the lecture was made of."""
    cells = list(notebook.cells)
    notebook.cells.append(nbformat.v4.new_code_cell(MODULES))
    files = json.loads(client.execute_cell(notebook.cells[-1], len(cells)).outputs[0].text)
    notebook.cells = cells
    made_of = fingerprints(notebook, (Path(file).resolve().relative_to(ROOT) for file in files))
    EXECUTED.mkdir(parents=True, exist_ok=True)
    done = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata | {"made_of": made_of})
    unfinished = EXECUTED / f"{lecture.stem}.{os.getpid()}"
    nbformat.write(done, unfinished)
    unfinished.replace(EXECUTED / lecture.name)


def fingerprints(notebook: NotebookNode, files: Iterable[Path]) -> dict[str, str]:
    """What tells one state of the lecture's code, and of each file, from another."""
    texts = {"code": json.dumps([cell.source for cell in code_cells(notebook)]).encode()}
    texts |= {file.as_posix(): (ROOT / file).read_bytes() if (ROOT / file).exists() else b"" for file in files}
    return {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}


def read(lecture: Path) -> NotebookNode | None:
    """The lecture as it is now with the outputs of its last run, or None where these are out of date."""
    notebook, kept = nbformat.read(lecture, 4), EXECUTED / lecture.name
    if not kept.exists():
        return None
    done = nbformat.read(kept, 4)
    made_of = done.metadata.made_of
    if fingerprints(notebook, (Path(name) for name in made_of if name != "code")) != made_of:
        return None
    for cell, ran in zip(code_cells(notebook), code_cells(done), strict=True):
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    return notebook


def execute(lecture: Path) -> None:
    """Run one lecture and keep what came."""
    began = time.monotonic()
    notebook = nbformat.read(lecture, 4)
    with running(notebook, lecture.parent) as client:
        keep(notebook, client, lecture)
    print(f"book: {lecture.stem} has run, {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    """Run the lectures that need it, the longest first."""
    stale = [lecture for lecture in LECTURES if read(lecture) is None]
    if not stale:
        print("book: no lecture has changed since its last run")
        return 0
    print(f"book: running {len(stale)} of {len(LECTURES)} lectures, {AT_A_TIME} at a time, minutes each", flush=True)
    pool = ThreadPoolExecutor(AT_A_TIME)
    try:
        list(pool.map(execute, reversed(stale)))
    except KeyboardInterrupt:
        print("book: stopped; the lectures that have run are kept", flush=True)
        return 130
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # A kernel has a session of its own, which no Ctrl-C reaches, and its thread waits for it.
        for kernel in KERNELS.copy():
            with suppress(ProcessLookupError):
                os.kill(kernel, signal.SIGTERM)
    return 0


if __name__ == "__main__":
    sys.exit(main())
