"""Where the tables go: each whole into RESULTS.md, and one line of each peer into the README's table."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS, README = ROOT / "benchmarks" / "RESULTS.md", ROOT / "README.md"
HEAD = ["task", "peer", "speed: cmog_lib / peer", "accuracy: cmog_lib; peer", "memory: cmog_lib; peer"]


def write(name: str, table: str) -> None:
    """The table into RESULTS.md, and the README's anew from there."""
    text = placed(RESULTS.read_text(encoding="utf-8"), name, table)
    RESULTS.write_text(text, encoding="utf-8")
    for part in ("summary", "growth"):
        found = summary(text) if part == "summary" else held(text, "growth")
        README.write_text(placed(README.read_text(encoding="utf-8"), part, found), encoding="utf-8")


def placed(text: str, name: str, table: str) -> str:
    """`text` with the table between the two comments that bear its name."""
    begin, end = f"<!-- bench {name} -->", f"<!-- end {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"there is no place for {name}: it needs {begin} and {end}")
    # A function, since in a plain replacement a backslash of the table would mean something.
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL)


def held(text: str, name: str) -> str:
    """What stands between the comments."""
    found = re.search(f"<!-- bench {name} -->\n(.*?)\n?<!-- end {name} -->", text, flags=re.DOTALL)
    return found.group(1) if found else ""


def summary(text: str) -> str:
    """All of RESULTS.md's tables as one: a line for each peer."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for name in re.findall("<!-- bench ([a-z_]+) -->", text):
        rows = [cells(line) for line in held(text, name).splitlines() if line.startswith("|")]
        if name == "growth" or len(rows) < 4:
            continue
        head, _, ours, *peers = rows
        ratio, accuracy, memory = (head.index(column) for column in ("cmog_lib / peer", "accuracy", "memory"))
        for peer in peers:
            said, held_at_most = ("; ".join(filter(None, (ours[k], peer[k]))) for k in (accuracy, memory))
            lines.append(f"| {head[0]} | {peer[0]} | {peer[ratio]} | {said} | {held_at_most} |")
    return "\n".join(lines)


def cells(line: str) -> list[str]:
    """Of a line of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]
