"""`python -m benchmarks [--write] [row …]`: all rows or some; --write puts the tables into the README as well."""

from __future__ import annotations

import argparse
import re

from benchmarks.harness import ROOT, rows, run


def main() -> None:
    """Runs the rows, prints their tables."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("row", nargs="*", help=f"of {', '.join(rows())}; none: all of them")
    parser.add_argument("--write", action="store_true", help="put the tables into the README")
    asked = parser.parse_args()
    if unknown := set(asked.row) - set(rows()):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(rows())}")
    for name in asked.row or rows():
        table = run(name)
        print(f"\n{table}\n")
        if asked.write:
            path = ROOT / "README.md"
            path.write_text(placed(path.read_text(encoding="utf-8"), name, table), encoding="utf-8")


def placed(text: str, name: str, table: str) -> str:
    """`text` with the table between the two comments that bear its name."""
    begin, end = f"<!-- bench {name} -->", f"<!-- end {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"the README has no place for {name}: it needs {begin} and {end}")
    # A function, since in a plain replacement a backslash of the table would mean something.
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL)


if __name__ == "__main__":
    main()
