"""The benchmarks' pure parts: medians, ranges and ratios, a table that keeps silent where it must, its place."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import harness  # noqa: E402
from benchmarks.__main__ import placed  # noqa: E402


def turns(*seconds: float, value: float = 6.0, good: bool = True) -> list[dict]:
    return [{"seconds": s, "value": value, "compile": 0.5, "memory": 1.0, "good": good} for s in seconds]


def row() -> types.SimpleNamespace:
    def accuracy(answers: dict[str, dict]) -> dict[str, tuple[str, bool]]:
        return {name: ("as good" if answer["good"] else "worse", answer["good"]) for name, answer in answers.items()}

    return types.SimpleNamespace(TITLE="A row", UNIT="things", OURS="ours", accuracy=accuracy)


def test_the_first_turn_counts_only_where_there_is_no_other():
    assert harness.rates(turns(100.0, 2.0, 3.0)) == [3.0, 2.0]
    assert harness.rates(turns(100.0)) == [0.06]


def test_ratios_are_of_turns_that_stood_side_by_side():
    assert harness.ratios(turns(9.0, 1.0, 2.0), turns(9.0, 4.0, 4.0)) == [4.0, 2.0]
    assert harness.ratios(turns(9.0, 1.0, 2.0, 3.0), turns(9.0, 4.0)) == [4.0]


def test_a_median_comes_with_its_range_unless_it_is_alone():
    assert harness.spread([3.0, 1.0, 2.0]) == "2 (1–3)" and harness.spread([1234.5]) == "1234"


def test_a_row_whose_accuracy_fails_has_no_ratio(monkeypatch):
    monkeypatch.setattr(harness, "machine", lambda: "Here.")
    answers = {"ours": turns(9.0, 1.0), "theirs": turns(9.0, 4.0), "bad": turns(9.0, 8.0, good=False)}
    *_, ours, theirs, bad, _, foot = harness.table(row(), answers).splitlines()
    assert "×" not in ours and "| 4 × |" in theirs and "as good" in theirs
    assert "×" not in bad and "not compared" in bad and "worse" in bad
    assert foot.endswith("Here.")


def test_a_table_takes_the_place_of_the_last_one():
    text = "before\n<!-- bench a -->\nold\n<!-- end a -->\nafter"
    assert placed(text, "a", "new \\1") == "before\n<!-- bench a -->\nnew \\1\n<!-- end a -->\nafter"
    with pytest.raises(ValueError, match="no place for b"):
        placed(text, "b", "new")


def test_the_rows_are_the_modules_with_contenders():
    assert {"hmc", "mcem"} <= set(harness.rows()) and "harness" not in harness.rows()


def test_every_table_of_the_readme_was_made_by_a_row():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- bench (\w+) -->", text)) == set(harness.rows())


def test_the_peers_are_pinned_at_the_projects_versions():
    def pins(path: str) -> dict[str, str]:
        lines = [line for line in (ROOT / path).read_text().splitlines() if re.match(r"[\w-]+==", line)]
        return {(pin := Requirement(line)).name: str(pin.specifier) for line in lines}

    project, peers = pins("requirements.txt"), pins("benchmarks/requirements.txt")
    assert {"blackjax", "numpyro", "optax"} <= set(peers)
    assert {name: project[name] for name in peers.keys() & project} == {
        name: peers[name] for name in peers.keys() & project
    }
