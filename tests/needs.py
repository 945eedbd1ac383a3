"""What a test needs beside the repository, and what becomes of it where that is missing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest


def missing(reason: str) -> None:
    """The test is skipped and says why; under CI, which installs all that tests need, it fails."""
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def free_port() -> int:
    """A port of the loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def mnist_folder() -> Path:
    """The folder that CMOG_DATA_DIR names. The one thing that even CI may lack: the project ships no data."""
    named = os.environ.get("CMOG_DATA_DIR")
    if not named:
        pytest.skip("needs the files of MNIST, which the project does not ship: CMOG_DATA_DIR names no folder of data")
    folder = Path(named).resolve()
    if not (folder / "mnist").is_dir():
        missing(f"CMOG_DATA_DIR names a folder without mnist/ in it: {folder}")
    return folder
