"""The Makefile's words: what they say where something is missing, and a JupyterLab that is closed to strangers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from needs import free_port, missing

ROOT = Path(__file__).parents[1]
SYSTEM = "/usr/bin:/bin"


@pytest.fixture(autouse=True)
def needs_make() -> None:
    """Every test here calls it."""
    if shutil.which("make") is None:
        missing("make is missing: these tests need it")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose path has a space, with what `make setup` reads and nothing else."""
    folder = tmp_path / "a space" / "checkout"
    folder.mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def fake_pythons(folder: Path, script: str) -> str:
    """A PATH on which every name of Python that the Makefile tries is this shell script."""
    folder.mkdir()
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{SYSTEM}"


def make(folder: Path, *words: str, path: str = SYSTEM) -> subprocess.CompletedProcess[str]:
    """`make` as from a fresh shell: an empty home, nothing inherited."""
    environment = {"PATH": path, "HOME": str(folder / "home")}
    return subprocess.run(["make", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of stderr that is not make's own."""
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if not re.match(r"make(\[\d+\])?: ", line)]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_python_that_is_too_old_gets_one_line_that_says_what_to_install(checkout, tmp_path):
    line = complaint(make(checkout, "setup", path=fake_pythons(tmp_path / "old", "echo 3.9; exit 1")))
    assert "needs Python 3.11 or newer, but python3 is 3.9" in line and "apt install python3" in line
    assert not (checkout / ".venv").exists()


def test_python_without_venv_gets_one_line_that_says_what_to_install(checkout, tmp_path):
    script = 'case "$2" in *ensurepip*) exit 1;; esac; echo 3.12'
    line = complaint(make(checkout, "setup", path=fake_pythons(tmp_path / "bare", script)))
    assert "python3 is 3.12 but lacks venv" in line and "apt install python3.12-venv" in line
    assert not (checkout / ".venv").exists()


def test_python_that_is_not_there_gets_one_line(checkout):
    line = complaint(make(checkout, "setup", "PYTHON=/no such/python"))
    assert "no /no such/python was found" in line


def test_newer_python_is_found_behind_an_old_one(checkout, tmp_path):
    path = fake_pythons(tmp_path / "old", "echo 3.9; exit 1")
    # Stands for a good one up to the point where it would build .venv.
    (tmp_path / "old" / "python3.12").write_text('#!/bin/sh\ncase "$1" in -m) exit 7;; esac; echo 3.12\n')
    result = make(checkout, "setup", path=path)
    assert "building .venv with python3.12 (3.12)" in result.stdout and result.returncode != 0


def test_setup_that_broke_off_does_not_count_as_done(checkout, tmp_path):
    script = 'case "$2" in venv) mkdir -p .venv/bin; echo "exit 7" > .venv/bin/python; chmod +x .venv/bin/python;; esac'
    path = fake_pythons(tmp_path / "good", script + "; echo 3.12")
    for _ in range(2):
        result = make(checkout, "setup", path=path)
        assert result.returncode != 0 and "building .venv" in result.stdout
        assert not (checkout / ".venv" / ".complete").exists()


def test_make_alone_lists_the_words(checkout):
    listed = make(checkout).stdout
    words = ("setup", "lab", "book", "book-serve", "slides", "test", "bench", "lint", "format", "pins", "publish")
    for word in (*words, "clean"):
        assert f"make {word} " in listed


def test_the_book_is_served_to_this_machine_only(checkout):
    assert (
        "http.server --bind 127.0.0.1 --directory build/book 9999"
        in make(checkout, "-n", "book-serve", "ARGS=9999").stdout
    )


@pytest.mark.parametrize("failing", ["", "test_notebooks", "--numprocesses=auto", "tests/browser$"])
def test_all_parts_of_the_tests_run_and_those_that_failed_are_named_at_the_end(checkout, failing):
    bin = checkout / ".venv" / "bin"
    bin.mkdir(parents=True)
    refuse = f"if echo \"$*\" | grep -q -e '{failing}'; then exit 1; fi" if failing else ""
    (bin / "python").write_text(f'#!/bin/sh\necho "ran $*"\n{refuse}\n')
    (bin / "python").chmod(0o755)
    (checkout / ".venv" / ".complete").touch()
    result = make(checkout, "test")
    parts = [line for line in result.stdout.splitlines() if line.startswith("ran -m pytest")]
    assert len(parts) == 3
    assert [part.endswith("tests/browser") for part in parts] == [False, False, True]
    if failing:
        names = {"test_notebooks": "library lectures", "--numprocesses=auto": "library", "tests/browser$": "browser"}
        assert complaint(result) == f"test: these parts failed: {names[failing]}"
    else:
        assert result.returncode == 0 and not result.stderr


def test_ctrl_c_stops_all_parts_of_the_tests(checkout):
    bin = checkout / ".venv" / "bin"
    bin.mkdir(parents=True)
    (bin / "python").write_text('#!/bin/sh\necho "ran $*"\nkill -INT $PPID\nsleep 0.1\nexit 2\n')
    (bin / "python").chmod(0o755)
    (checkout / ".venv" / ".complete").touch()
    result = make(checkout, "test")
    assert result.returncode != 0 and result.stdout.count("ran -m pytest") == 1
    assert "these parts failed" not in result.stderr


def status(address: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_lab_serves_the_lectures_on_loopback_and_asks_for_the_token(tmp_path):
    if subprocess.run(["make", "-q", "setup"], cwd=ROOT, capture_output=True).returncode:
        missing(".venv is not one that `make setup` has finished")
    port = free_port()
    # An empty home, and this Jupyter's folders in it: the reader's own settings play no part, nor is anything left.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    log = tmp_path / "log"
    with log.open("w") as output:
        command = ["make", "lab", f"ARGS=--no-browser --port={port} --ServerApp.port_retries=0"]
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 90
        while not (token := re.search(rf"http://127\.0\.0\.1:{port}/lab\?token=(\w+)", log.read_text())):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        contents = f"http://127.0.0.1:{port}/api/contents"
        assert status(contents) == 403
        assert status(f"{contents}?token=guess") == 403
        assert status(f"{contents}?token={token[1]}") == 200
        assert f"{ROOT}/notebooks" in log.read_text()
        with socket.socket() as stranger:
            # Another address of this same machine: what listens on every address would answer there.
            stranger.settimeout(5)
            assert stranger.connect_ex(("127.0.0.2", port)) != 0
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
