"""Where the tables go: each whole into RESULTS.md, and one line of each into the README's table."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.harness import FLOOR

ROOT = Path(__file__).parents[1]
RESULTS, README = ROOT / "benchmarks" / "RESULTS.md", ROOT / "README.md"
HEAD = ["task", "fastest peer", "cmog_lib is", "time / floor", "memory, if more than the peer's"]
MORE = 1.1  # the table states memory above this multiple of the peer's


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
    """All of RESULTS.md's tables as one: a line for each, beside the fastest of the peers that are accurate enough."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for name in re.findall("<!-- bench ([a-z_]+) -->", text):
        rows = [cells(line) for line in held(text, name).splitlines() if line.startswith("|")]
        if name == "growth" or len(rows) < 4:
            continue
        head, _, *rows = rows
        ours, *peers = [dict(zip(head, row, strict=True)) for row in rows if not row[0].startswith(f"{FLOOR}:")]
        peer = min(peers, key=lambda peer: number(peer["cmog_lib / peer"]) or float("inf"))
        ratio, times = number(peer["cmog_lib / peer"]), number(ours.get("times the floor", ""))
        speed = f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.2g}"
        more = number(ours["memory"]) > MORE * number(peer["memory"]) > 0
        line = [
            head[0],
            peer[head[0]],
            f"{speed} times as fast" if ratio else "not compared",
            f"{times:.2g}" if times else "",
            f"{ours['memory']}; {peer['memory']}" if more else "",
        ]
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def number(cell: str) -> float:
    """The number that a cell begins with; 0 if there is none."""
    found = re.match(r"\d+(\.\d+)?", cell)
    return float(found.group()) if found else 0.0


def cells(line: str) -> list[str]:
    """Of a line of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]
