"""The benchmarks' pure parts: medians, ranges and ratios, a table that keeps silent where it must, its place."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import data, floors, growth, harness, report  # noqa: E402
from benchmarks.report import placed  # noqa: E402


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
    assert harness.spread([123.4], 2) == "123"


def test_a_row_whose_accuracy_fails_has_no_ratio(monkeypatch):
    monkeypatch.setattr(harness, "machine", lambda: "Here")
    answers = {"ours": turns(9.0, 1.0), "theirs": turns(9.0, 4.0), "bad": turns(9.0, 8.0, good=False)}
    *_, ours, theirs, bad, _, foot = harness.table(row(), answers).splitlines()
    assert "×" not in ours and "| 4 × |" in theirs and "as good" in theirs
    assert "×" not in bad and "not compared" in bad and "worse" in bad
    assert foot.endswith("Here; computed in float32.")


def test_everyone_is_measured_by_the_floor_and_the_floor_is_compared_with_nobody(monkeypatch):
    monkeypatch.setattr(harness, "machine", lambda: "Here")
    answers = {"ours": turns(9.0, 1.0), "theirs": turns(9.0, 4.0), harness.FLOOR: turns(9.0, 0.5)}
    least = types.SimpleNamespace(FLOOR="one product", **vars(row()))
    head, _, ours, theirs, floor, *_ = map(report.cells, harness.table(least, answers).splitlines())
    at = head.index("times the floor")
    assert (ours[at], theirs[at], floor[at]) == ("2", "8", "1") and floor[:2] == ["floor: one product", "0.5"]
    assert not floor[head.index("cmog_lib / peer")]


def test_a_table_takes_the_place_of_the_last_one():
    text = "before\n<!-- bench a -->\nold\n<!-- end a -->\nafter"
    assert placed(text, "a", "new \\1") == "before\n<!-- bench a -->\nnew \\1\n<!-- end a -->\nafter"
    with pytest.raises(ValueError, match="no place for b"):
        placed(text, "b", "new")


def test_the_rows_are_the_modules_with_contenders():
    assert {"hmc", "importance", "mcem", "vae"} <= set(harness.rows()) and "harness" not in harness.rows()


def test_every_row_has_its_place_and_the_readme_says_what_the_results_say():
    results, readme = (path.read_text(encoding="utf-8") for path in (report.RESULTS, report.README))
    assert set(re.findall(r"<!-- bench (\w+) -->", results)) == {*harness.rows(), "growth"}
    for name in (*harness.rows(), "growth"):
        assert report.held(results, name).startswith("| "), f"{name} was not measured"
    assert report.held(readme, "summary") == report.summary(results)
    assert report.held(readme, "growth") == report.held(results, "growth")


def test_the_summary_names_the_fastest_peer_that_is_accurate():
    def said(*lines: str) -> list[str]:
        return report.summary(placed("<!-- bench a -->\n<!-- end a -->", "a", "\n".join(lines))).splitlines()[2:]

    head = ["| A row | cmog_lib / peer | times the floor | memory |", "|---|---|---|---|"]
    ours, slow = "| ours |  | 1.3 (1.2–1.4) | 3 GB |", "| slow | 200 (1–3) × | 9 (8–9) | 1 GB |"
    fast, wrong = "| fast | 0.85 (0.7–0.9) × | 2 | 1 GB |", "| wrong | not compared | 1 | 3 GB |"
    least = "| floor: one product |  | 1 |  |"
    assert said(*head, ours, slow, fast, wrong, least) == ["| A row | fast | 0.85 times as fast | 1.3 | 3 GB; 1 GB |"]
    assert said(*head, ours, wrong) == ["| A row | wrong | not compared | 1.3 |  |"]
    without = ["| A row | cmog_lib / peer | memory |", "|---|---|---|", "| ours |  |  |", "| theirs | 538 (3–9) × |  |"]
    assert said(*without) == ["| A row | theirs | 538 times as fast |  |  |"]


def test_a_slope_is_that_of_the_power():
    sizes = growth.doubled(8, 6)
    assert growth.slope(sizes, [3e-6 * size**1.5 for size in sizes]) == pytest.approx(1.5)


@pytest.mark.parametrize("each", growth.GROWTH, ids=lambda each: each.name)
def test_what_grows_is_called_at_its_smallest_size(each):
    each.prepared(each.sizes[0])()


@pytest.mark.parametrize("name", sorted(harness.rows()))
def test_a_row_has_what_the_harness_asks_for(name):
    row = harness.row_of(name)
    assert row.OURS in row.CONTENDERS and len(row.CONTENDERS) > 1
    assert all(callable(part) for part in (row.prepare, row.load, row.judged, row.accuracy, *row.CONTENDERS.values()))
    assert isinstance(row.TITLE, str) and isinstance(row.UNIT, str)
    assert hasattr(row, "floor") == hasattr(row, "FLOOR") and harness.FLOOR not in row.CONTENDERS


def test_floors_say_how_much_they_did():
    X = np.random.default_rng(0).normal(size=(50, 4))
    assert floors.Products((3, 4, 5), (5, 4, 3))(7) == 7 and floors.decomposed(np.stack([X.T @ X] * 5)) == 5
    assert harness.row_of("ppca").floor((np.zeros((5, 12)), None, np.diag(np.arange(12.0))))(0) == 1
    assert harness.row_of("spectrum").floor(X)(0) == 3 and harness.row_of("bootstrap").floor(X[:, :3])(0) == 2000


def test_data_are_looked_for_where_the_library_looks(tmp_path, monkeypatch):
    (tmp_path / "oil.txt").write_text("1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("CMOG_DATA_DIR", "~")
    assert data.file("oil.txt") == tmp_path / "oil.txt"
    with pytest.raises(data.NotHere, match=r"it needs wine\.txt in the folder that CMOG_DATA_DIR names"):
        data.file("wine.txt")


def test_a_contender_has_the_threads_that_we_have(monkeypatch):
    given = {}
    monkeypatch.setattr(harness.subprocess, "Popen", lambda command, **options: given.update(options))
    harness.Worker("vae", "PyTorch, eager")
    assert given["env"]["OMP_NUM_THREADS"] == str(harness.cores())


def test_the_most_memory_that_was_held_is_counted_in_gigabytes():
    held = bytearray(300_000_000)
    held[::4096] = b"1" * len(held[::4096])  # memory that nobody has written to is none
    assert 0.3 < harness.peak_memory() < 30


def test_a_contender_whose_process_has_died_is_named_and_keeps_nobody_from_being_closed(monkeypatch):
    monkeypatch.setattr(harness, "row_of", lambda _: types.SimpleNamespace())
    worker = harness.Worker("no_such_row", "PyTorch, eager")
    assert worker.process.wait() != 0
    for seed in (0, 1):
        with pytest.raises(RuntimeError, match="PyTorch, eager gave no answer: its process ended with status 1"):
            worker.ask(seed)
    worker.close()
    assert worker.process.stdin.closed and worker.process.stdout.closed


def test_a_vae_that_ends_elsewhere_is_not_compared():
    vae = harness.row_of("vae")
    bounds = {vae.OURS: 475.0, "near": 470.0, "below": 460.0, "above": 490.0}
    found = vae.accuracy({name: {"bound": bound} for name, bound in bounds.items()})
    assert [good for _, good in found.values()] == [True, True, False, False] and found["near"][0] == "470.0 nats"


def test_importance_bounds_agree_where_they_differ_by_their_own_noise():
    importance = harness.row_of("importance")
    bounds = {importance.OURS: [1.0, 2.0, 3.0, 4.0], "near": [1.5, 1.5, 3.5, 3.5], "off": [0.0, 1.1, 2.0, 3.1]}
    found = importance.accuracy({name: {"bounds": bound} for name, bound in bounds.items()})
    assert [good for _, good in found.values()] == [True, True, False]


def test_a_sum_that_we_get_wrong_is_compared_with_nobody():
    marginal = harness.row_of("marginal")
    found = marginal.accuracy({marginal.OURS: {"error": 2e-4}, "right": {"error": 1e-12}})
    assert not any(good for _, good in found.values())


def test_the_likelihood_of_a_fit_is_the_closed_form_one():
    W, b, X = np.ones((3, 1)), np.zeros(3), np.diag([1.0, 2.0, 3.0])
    C = W @ W.T + 0.5 * np.eye(3)
    truth = scipy.stats.multivariate_normal(b, C).logpdf(X).mean()
    factor, ppca = (harness.row_of(name) for name in ("factor", "ppca"))
    by_data = factor.judged(factor.Fitted(W, b, np.full(3, 0.5), X))["log_p_x"]
    mean = X.mean(axis=0)
    by_moments = ppca.judged(ppca.Fitted(W, b, 0.5, mean, (X - mean).T @ (X - mean) / 3))["log_p_x"]
    assert by_data == pytest.approx(truth, abs=1e-12) and by_moments == pytest.approx(truth, abs=1e-12)


def test_the_peers_are_pinned_at_the_projects_versions():
    def pins(path: str) -> dict[str, str]:
        lines = [line for line in (ROOT / path).read_text().splitlines() if re.match(r"[\w-]+==", line)]
        return {(pin := Requirement(line)).name: str(pin.specifier) for line in lines}

    project, peers = pins("requirements.txt"), pins("benchmarks/requirements.txt")
    assert set(harness.PEERS) - {"scikit-learn"} <= set(peers)
    assert {name: project[name] for name in peers.keys() & project} == {
        name: peers[name] for name in peers.keys() & project
    }
