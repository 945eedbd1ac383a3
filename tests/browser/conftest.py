"""One browser and two JupyterLabs for all browser tests, and what they measured, written down at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from lab_server import REPOSITORY, Lab, running_lab
from needs import missing
from playwright.sync_api import Browser, sync_playwright

ARTIFACTS = REPOSITORY / "test-artifacts"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine, headless."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        missing(f"no Chromium found (looked for {', '.join(names)}); on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def labs(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Lab]]:
    """The running JupyterLab of a theme, Light or Dark, started when it is first asked for.

    It takes the browser only so that nothing starts where there is none.
    """
    with ExitStack() as stack:
        yield cache(
            lambda theme: stack.enter_context(running_lab(tmp_path_factory.mktemp("lab"), f"JupyterLab {theme}"))
        )


@pytest.fixture(scope="session")
def lab(labs: Callable[[str], Lab]) -> Lab:
    """A running JupyterLab."""
    return labs("Light")


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """The folder for screenshots and figures, not under version control."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS


@pytest.fixture(scope="session")
def latencies(artifacts: Path) -> Iterator[dict[str, dict]]:
    """What the tests measured, by notebook and explorer; added to latency.json."""
    measured: dict[str, dict] = {}
    yield measured
    path = artifacts / "latency.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | measured, indent=2, ensure_ascii=False) + "\n")
