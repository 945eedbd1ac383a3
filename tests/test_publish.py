"""The project's public address stands in every place that needs one, or in none; nothing is installed from another."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from needs import missing
from test_repository import tracked

from book import pages
from book.course import address, lectures
from book.publish import changed, main

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
            code = "".join(first["source"])
            [line] = re.findall(r"^ +(%.*)$", code, re.M)
            assert line == f'%pip install -q "cmog_lib[lectures] @ git+{URL}"'
            imported, guard = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.M)).body
            assert isinstance(imported, ast.Import) and isinstance(guard, ast.If)
            assert ast.unparse(guard.test) == "'google.colab' in sys.modules"
            assert first["metadata"]["tags"] == ["colab"]


@pytest.mark.parametrize("url", ["", URL])
def test_the_book_leads_to_the_address_if_there_is_one(monkeypatch, url):
    monkeypatch.setattr("book.course.address", lambda: url)
    monkeypatch.setattr("book.pages.address", lambda: url)
    page, front, file = pages.run_it(lectures()[2]), pages.start("make lab"), "notebooks/03_decoders.ipynb"
    links = [
        f"https://colab.research.google.com/github/someone/the.course-1/blob/main/{file}",
        f"https://mybinder.org/v2/gh/someone/the.course-1/HEAD?urlpath=lab/tree/{file}",
        f"{URL}#start",
        f"{URL}#start",
    ]
    assert re.findall(r'href="(https[^"]+)"', page + front) == (links if url else [])
    assert "make lab" in page and "make lab" in front and (ROOT / file).is_file()


REFUSED = ["http://github.com/a/b", "github.com/a/b", "https://github.com/a", "https://github.com/a/b.git"]
REFUSED += ["https://github.com/-/b", "https://github.com/a/..", f"{URL}/", f"{URL}\n", f'{URL}"', "https://a/b/c", " "]


@pytest.mark.parametrize("url", REFUSED)
def test_another_address_is_refused_before_anything_is_written(copy, capsys, url):
    before = {name: (copy / name).read_bytes() for name in NAMED}
    assert main(url, copy) == 1
    assert f"URL must be https://github.com/OWNER/NAME or empty, got {url!r}" in capsys.readouterr().err
    assert {name: (copy / name).read_bytes() for name in NAMED} == before


def test_make_publish_needs_an_address_or_an_empty_one_in_its_own_command():
    if shutil.which("make") is None:
        missing("make is missing: this test needs it")
    named = {**os.environ, "URL": URL}
    asked = subprocess.run(["make", "-n", "publish"], cwd=ROOT, capture_output=True, text=True, env=named)
    assert asked.returncode != 0 and "publish: give URL=https://github.com/OWNER/NAME, or URL=" in asked.stderr


FETCHED = re.compile(r"(?:git\+|git clone |pip install |curl |wget )[^\n]*?(\w+://[^\s\"'`)\\]+)")
SITES = re.compile(
    r"(?:github\.com|mybinder\.org/v2/gh|colab\.research\.google\.com/github)/([\w.{}-]+(?:/[\w.{}-]+)?)"
)


def others(texts: dict[str, str], own: str) -> list[tuple[str, str]]:
    """What a file installs from, or links to on these sites, and is not the project's own."""
    slug = own.removeprefix("https://github.com/")
    fetched = [(name, what) for name, text in texts.items() for what in FETCHED.findall(text)]
    linked = [(name, what) for name, text in texts.items() for what in SITES.findall(text)]
    return [(name, what) for name, what in fetched if what != own] + [
        (name, what)
        for name, what in linked
        if what not in (slug, "OWNER/NAME", "{slug}", "{slug}/HEAD", "{slug}/blob")
    ]


def test_nothing_is_installed_from_another_address_and_none_is_linked(copy):
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8", errors="ignore") for path in tracked()}
    del texts["tests/test_publish.py"]  # has addresses that are to be refused
    assert others(texts, address()) == []
    published = write(copy, URL)
    assert others(published, URL) == []
    assert {name for name, _ in others(published, "https://github.com/another/course")} == {*NAMED}
