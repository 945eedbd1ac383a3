"""The project's public address stands in every place that needs one, or in none; nothing is installed from another."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from book import pages
from book.course import address, elsewhere, lectures
from book.publish import changed

ROOT = Path(__file__).parent.parent
URL = "https://github.com/someone/the.course-1"
NAMED = ["pyproject.toml", "README.md", *(f"notebooks/{lecture.name}.ipynb" for lecture in lectures())]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that name an address, in a folder of their own."""
    for name in NAMED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def write(folder: Path, url: str) -> dict[str, str]:
    """The files after `make publish URL=…`."""
    for path, text in changed(folder, url).items():
        path.write_text(text, encoding="utf-8")
    return {name: (folder / name).read_text(encoding="utf-8") for name in NAMED}


def test_the_project_names_its_address_in_all_of_these_places_or_in_none():
    assert changed(ROOT, address()) == {}


def test_an_address_is_written_everywhere_and_taken_out_again(copy):
    without = write(copy, "")
    assert not [name for name, text in without.items() if re.search(r"github\.com|colab|mybinder|git clone", text)]
    with_it = write(copy, URL)
    assert [name for name, text in with_it.items() if URL not in text] == []
    assert "git clone https://github.com/someone/the.course-1 && cd the.course-1\nmake lab\n" in with_it["README.md"]
    for site in (
        "colab.research.google.com/github/someone/the.course-1)",
        "mybinder.org/v2/gh/someone/the.course-1/HEAD",
    ):
        assert with_it["README.md"].count(site) == 1
    assert changed(copy, URL) == {}, "a second time changes nothing"
    assert write(copy, "") == without


def test_the_first_cell_installs_the_library_in_colab_and_only_there(copy):
    for name, text in write(copy, URL).items():
        if name.endswith(".ipynb"):
            first = json.loads(text)["cells"][0]
            code = re.sub(r"^(\s*)[%!].*$", r"\1pass", "".join(first["source"]), flags=re.M)
            assert first["metadata"]["tags"] == ["colab"]
            assert [type(line) for line in ast.parse(code).body] == [ast.Import, ast.If]


@pytest.mark.parametrize("url", ["", URL])
def test_a_lectures_page_leads_only_to_places_that_exist(monkeypatch, url):
    monkeypatch.setattr("book.course.address", lambda: url)
    monkeypatch.setattr("book.pages.address", lambda: url)
    lecture, page = lectures()[2], pages.run_it(lectures()[2])
    links = re.findall(r'href="(https[^"]+)"', page)
    assert links == [*elsewhere(lecture).values(), *([f"{URL}#start"] if url else [])]
    assert len(links) == (3 if url else 0) and "make lab" in page


@pytest.mark.parametrize(
    "url",
    [
        "http://github.com/a/b",
        "github.com/a/b",
        "https://github.com/a",
        f"{URL}/",
        f"{URL}\n",
        f'{URL}"',
        "https://a/b/c",
    ],
)
def test_another_address_is_refused_before_anything_is_written(copy, url):
    with pytest.raises(ValueError, match=r"URL must be https://github\.com/OWNER/NAME or empty, got"):
        changed(copy, url)


def test_nothing_is_installed_from_another_address():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    texts = {
        name: (ROOT / name).read_text(encoding="utf-8", errors="ignore") for name in listed if (ROOT / name).is_file()
    }
    assert len(texts) > 200, "in a checkout"
    source = re.compile(
        r"(?:git\+|git clone (?:-\S+ )*|pip install [^\n]*?|curl [^\n]*?|wget [^\n]*?)(\w+://[^\s\"'`)]+)"
    )
    found = {(name, where) for name, text in texts.items() for where in source.findall(text)}
    assert [(name, where) for name, where in found if where != address() and name != "tests/test_publish.py"] == []
