"""What the README says is so: its example runs, its links lead somewhere, its table names functions that exist."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
FUNCTIONS = re.findall(r"`([\w/]+\.py):(\w+)`", README)


def test_example_prints_what_the_readme_shows():
    [code] = [text for language, text in BLOCKS if language == "python"]
    [shown] = [text for language, text in BLOCKS if not language]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == shown


@pytest.mark.parametrize(("file", "name"), FUNCTIONS, ids=[f"{file}:{name}" for file, name in FUNCTIONS])
def test_function_of_the_slide_table_exists_and_its_docstring_begins_with_the_formula(file, name):
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    found = [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name]
    assert len(found) == 1
    first = (ast.get_docstring(found[0]) or "").splitlines()[0]
    assert re.search(r"[=~∫≈≥←]|max", first), f"no formula in «{first}»"


def test_slide_table_has_the_whole_of_lectures_1_and_2():
    rows = [line for line in README.splitlines() if re.search(r"\.py:\w+`", line)]
    slides = {int(number) for row in rows for number in re.findall(r"\d+", row.split("|")[1])}
    assert slides >= {1, 2, 3, 4, 5}


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_local_link_leads_to_a_file(text):
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert [link for link in links if not urlsplit(link).scheme and not (ROOT / link.split("#")[0]).exists()] == []


def test_every_notebook_has_its_line():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in README


def test_every_word_of_make_that_is_named_exists():
    words = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", README + CONTRIBUTING)) <= words


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_nothing_is_left_to_be_filled_in(text):
    assert re.findall(r"@[A-Z_0-9]+@|TODO|TBD|FIXME|XXX", text) == []
