"""What the page for lecturers says is so: its times, its explorers, and every number in its answers."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "lecturers.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
LECTURES = {int(path.name[:2]): path for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
READING = {"an hour": 60, "an hour and a quarter": 75, "an hour and a half": 90}
NUMBER = re.compile(r"\d+\.\d+|\d+")
RESULT = re.compile(r"= *-?(\d[\d.]*)$")

# A question and its prose answer, the code below it, and what that prints.
ANSWER = re.compile(
    r"\*\*Question (\d\.\d)\.\*\*(.+?)\n\n\*\*Answer\.\*\*(.+?)\n\n```python\n(.+?)```\n\n```text\n(.+?)```", re.DOTALL
)
ANSWERS = {number: rest for number, *rest in ANSWER.findall(PAGE)}


def rows(heading: str) -> list[list[str]]:
    """The body of the first table under a heading, cell by cell."""
    table = [line for line in PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[2:]]


def text_of(lecture: int) -> str:
    return "\n".join(cell.source for cell in nbformat.read(LECTURES[lecture], 4).cells)


def test_times_are_those_of_the_readme_and_of_the_lectures():
    timing = rows("Timing")
    assert [int(row[0][0]) for row in timing] == sorted(LECTURES)
    for name, slides, runs_in, *parts, together in timing:
        known = next(line for line in README.splitlines() if line.startswith(f"| {name[0]} |"))
        assert f"| {slides} |" in known and f"| {runs_in} |" in known
        assert sum(map(int, parts)) == int(together)
        said = re.search(r"reading it, (an hour[\w ]*)\.", text_of(int(name[0])))
        assert said and READING[said[1]] == int(together), name


def test_every_explorer_that_is_named_is_in_its_lecture():
    cures = rows("Common misconceptions")
    for lecture, *_, cure in cures:
        label = re.match(r"\*(.+?)\*:", cure)[1]
        assert f'label="{label}"' in text_of(int(lecture)), label
    assert min(sum(int(row[0]) == lecture for row in cures) for lecture in LECTURES) >= 3
    kept = re.search(r"\*\*If you have half the time\*\*(.+?)\n\n", PAGE, re.DOTALL)[1].replace("\n", " ")
    for label, lecture in re.findall(r"\*([^*]+?)\* \((\d)\)", kept):
        assert f'label="{label}"' in text_of(int(lecture)), label


def test_every_lecture_has_two_questions_and_every_question_is_answered():
    assert len(re.findall(r"\*\*Question \d\.\d\.\*\*", PAGE)) == len(ANSWERS) == PAGE.count("**Answer.**")
    assert min(sum(number[0] == str(lecture) for number in ANSWERS) for lecture in LECTURES) >= 2


@pytest.mark.parametrize("number", ANSWERS)
def test_the_code_below_an_answer_prints_what_the_page_shows(number):
    _, _, code, shown = ANSWERS[number]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, f"answer {number}", "exec"), {"__name__": __name__})
    assert printed.getvalue() == shown


@pytest.mark.parametrize("number", ANSWERS)
def test_no_number_in_an_answer_is_typed_by_hand(number):
    question, answer, _, shown = ANSWERS[number]
    given = {*NUMBER.findall(question), *NUMBER.findall(shown)}
    # Of a formula, which is an argument, what it comes to; and every decimal, wherever it stands.
    in_words = re.sub(r"\$(.+?)\$", lambda formula: " ".join(RESULT.findall(formula[1])), answer, flags=re.DOTALL)
    for found in NUMBER.findall(in_words) + re.findall(r"\d+\.\d+", answer):
        assert found in given or found in set("0123"), f"{found} in answer {number}"
