"""`make bench ARGS="[--write] [row …]"`: all rows, or some; --write puts the tables into RESULTS.md and README.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import growth, report
from benchmarks.data import NotHere
from benchmarks.harness import rows, run


def main() -> None:
    """Runs the rows, prints their tables."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("row", nargs="*", help=f"of growth, {', '.join(rows())}; none: all of them")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/RESULTS.md and the README")
    asked = parser.parse_args()
    runs: dict[str, Callable[[], str]] = {name: lambda name=name: run(name) for name in rows()} | {"growth": growth.run}
    if unknown := set(asked.row) - set(runs):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(runs)}")
    for name in asked.row or runs:
        try:
            table = runs[name]()
        except NotHere as reason:
            print(f"\n{name} was left out: {reason}\n")
            continue
        print(f"\n{table}\n", flush=True)
        if asked.write:
            report.write(name, table)


if __name__ == "__main__":
    main()
