"""A real JupyterLab on the loopback, alone with itself: its settings, runtime files and home lie in one folder."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compiled import gathered, of_a_lecture, taken_from
from needs import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 90


@dataclass(frozen=True)
class Lab:
    """Where the server listens, its token, and the folder it serves."""

    port: int
    token: str
    folder: Path

    def address(self, notebook: str) -> str:
        """Where `notebook` opens alone: `reset` forgets the notebooks that were open before, in the same workspace."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?reset&token={self.token}"


@contextmanager
def running_lab(folder: Path, theme: str = "JupyterLab Light") -> Iterator[Lab]:
    """JupyterLab serving `folder`/work, ready when this yields and gone when it ends."""
    served = folder / "work"
    served.mkdir(parents=True)
    environment = _environment(folder)
    _settings(Path(environment["JUPYTERLAB_SETTINGS_DIR"]), theme)
    port = free_port()
    # Only root is told that it may be root: JupyterLab refuses otherwise, and nobody else needs the permission.
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1", *root]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={served}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    log = folder / "server.log"
    with log.open("w") as stream:
        server = subprocess.Popen(command, env=environment, cwd=served, stdout=stream, stderr=subprocess.STDOUT)
        try:
            lab = Lab(port, environment["JUPYTER_TOKEN"], served)
            _wait_until_up(lab, server, log)
            yield lab
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _environment(folder: Path) -> dict[str, str]:
    own = {
        "HOME": "home",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
        "MPLCONFIGDIR": "matplotlib",
    }
    for name in own.values():
        (folder / name).mkdir()
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **of_a_lecture(),
        **taken_from(gathered(folder / "compiled")),
        **{variable: str(folder / name) for variable, name in own.items()},
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "JUPYTER_TOKEN": secrets.token_hex(16),
    }


def _settings(folder: Path, theme: str) -> None:
    for name, values in {
        "apputils-extension/themes": {"theme": theme},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        # Every cell is on the page, also below the fold: the tests look for what stands after an explorer.
        "notebook-extension/tracker": {"windowingMode": "none"},
    }.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def _wait_until_up(lab: Lab, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{lab.port}/api?token={lab.token}", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start within {START_SECONDS} s:\n{log.read_text()[-3000:]}")
