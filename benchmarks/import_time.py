"""What `import cmog_lib` costs beside `import jax, equinox`, in seconds.

Run as `.venv/bin/python benchmarks/import_time.py`. Each number is a median over fresh processes, the two imports by
turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 15
ALLOWED = 1.1
IMPORTS = ("jax, equinox", "cmog_lib")


def seconds(modules: str) -> float:
    """How long a fresh interpreter takes to import `modules`, its own start not counted."""
    code = f"import time; start = time.perf_counter(); import {modules}; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Prints the table."""
    for modules in IMPORTS:
        seconds(modules)  # fills the file cache and writes the bytecode
    times = {modules: [] for modules in IMPORTS}
    for _ in range(ROUNDS):
        for modules in IMPORTS:
            times[modules].append(seconds(modules))
    print(f"{'import':14} {'median':>8} {'fastest':>8}   (seconds, {ROUNDS} fresh processes each)")
    for modules, taken in times.items():
        print(f"{modules:14} {statistics.median(taken):8.3f} {min(taken):8.3f}")
    base, own = (times[modules] for modules in IMPORTS)
    ratio = statistics.median(b / a for a, b in zip(base, own, strict=True))
    fastest = min(own) / min(base)
    print(f"ratio {ratio:.3f} (median of the pairs), {fastest:.3f} (fastest); at most {ALLOWED} is allowed")


if __name__ == "__main__":
    main()
