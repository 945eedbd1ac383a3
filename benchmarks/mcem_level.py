"""Monte Carlo EM by the schedule of `mcem`: the time from the same w to the peer's final log p(X|w).

The peer does the STEPS iterations of `mcem`. Ours does as many as it takes to the peer's level. Their number is fixed
before the clock starts: `prepare` runs the peer with seeds that are not timed, for the level at which it ends depends
on the seed, and takes the first of our decoders whose log p(X|w) exceeds the highest of these levels by MARGIN. The
time of ours includes the search for the modes at which its chains start, and their warm-up.

Accuracy: as in `mcem`; a ratio is given where ours is no worse than the peer's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import mcem
from benchmarks.mcem import OURS, Ended, Problem

TITLE, UNIT = "Monte Carlo EM: to the peer's log p(x)", "runs"
UNTIMED = 1000, 1001, 1002  # seeds that no turn has
MARGIN = 2.0  # nats per datum, for what the seeds of ours differ by
PEER = "BlackJAX and optax"


def prepare(folder: Path) -> None:
    """Keeps the images, and how many of our iterations it takes to the peer's level."""
    mcem.prepare(folder)
    problem = mcem.load(folder)

    def level(w: Any) -> float:
        return mcem.judged(Ended(w, problem.X))["log_p_x"]

    run = mcem.peer(problem)
    wanted = max(level(run(seed).w) for seed in UNTIMED) + MARGIN
    path = mcem.path(problem, UNTIMED[0], mcem.STEPS)
    low, high = 1, len(path) - 1  # log p(X|w) rises along the path
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if level(path[middle]) >= wanted else (middle + 1, high)
    np.savez(folder / "iterations.npz", iterations=high)


def load(folder: Path) -> tuple[Problem, int]:
    """The problem of `mcem`, and the number of our iterations."""
    return mcem.load(folder), int(np.load(folder / "iterations.npz")["iterations"])


def ours(given: tuple[Problem, int]) -> Callable[[int], Ended]:
    """As in `mcem`, with fewer iterations."""
    problem, iterations = given
    return lambda seed: Ended(mcem.path(problem, seed, iterations)[-1], problem.X)


def peer(given: tuple[Problem, int]) -> Callable[[int], Ended]:
    """As in `mcem`."""
    return mcem.peer(given[0])


CONTENDERS = {OURS: ours, PEER: peer}


def judged(ended: Ended) -> dict[str, Any]:
    """One run, and 1/N log p(X|w) where it ended, in nats."""
    return mcem.judged(ended) | {"value": 1}


def accuracy(answers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """1/N log p(X|w), and whether ours is as good."""
    ours = answers[OURS]["log_p_x"]
    return {name: (f"{a['log_p_x']:.1f} nats", ours >= a["log_p_x"]) for name, a in answers.items()}
