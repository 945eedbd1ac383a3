"""How the book is made, without a browser: what runs again, how docstrings are read, what is linked with what."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from book import build, course, execute, library, pages, slides
from book.docstrings import restructured, typeset

# nbclient leaves the event loop of a thread open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CODE = "import json\nfrom cmog_lib import _validate\nprint(6 * 7)"


@pytest.fixture
def lectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Two short lectures, and a place of their own for what comes of them."""
    monkeypatch.setattr(execute, "EXECUTED", tmp_path / "executed")
    paths = [tmp_path / f"0{k}_short.ipynb" for k in (1, 2)]
    monkeypatch.setattr(execute, "LECTURES", paths)
    for path in paths:
        cells = [nbformat.v4.new_markdown_cell("A text."), nbformat.v4.new_code_cell(CODE)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    yield paths
    gc.collect()


def change(path: Path, cell: int, source: str) -> None:
    notebook = nbformat.read(path, 4)
    notebook.cells[cell].source = source
    nbformat.write(notebook, path)


def test_only_the_lecture_whose_code_has_changed_runs_again(lectures, capsys):
    execute.main()
    assert capsys.readouterr().out.count("has run") == 2
    execute.main()
    assert "no lecture has changed" in capsys.readouterr().out
    change(lectures[1], 1, CODE + "\nprint(43)")
    execute.main()
    said = capsys.readouterr().out
    assert "02_short has run" in said and "01_short" not in said
    assert execute.read(lectures[1]).cells[1].outputs[0].text == "42\n43\n"


def test_a_changed_sentence_costs_no_run_and_a_changed_module_does(lectures, monkeypatch):
    execute.execute(lectures[0])
    change(lectures[0], 0, "Another text.")
    cells = execute.read(lectures[0]).cells
    assert cells[0].source == "Another text." and cells[1].outputs[0].text == "42\n"
    # The library as it would be with another arrays.py, and with another room that this lecture has not loaded.
    kept = nbformat.read(execute.EXECUTED / lectures[0].name, 4)
    assert "cmog_lib/_validate/arrays.py" in kept.metadata.made_of
    assert not any("classroom" in name for name in kept.metadata.made_of)
    kept.metadata.made_of["cmog_lib/_validate/arrays.py"] = "another"
    nbformat.write(kept, execute.EXECUTED / lectures[0].name)
    assert execute.read(lectures[0]) is None


def test_a_cell_that_is_split_at_an_empty_line_is_another_lecture(lectures):
    notebook = nbformat.read(lectures[0], 4)
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in ("a = 1\n\nprint(a)", "b = 2")]
    together = execute.fingerprints(notebook, [])
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in ("a = 1", "print(a)\n\nb = 2")]
    assert execute.fingerprints(notebook, []) != together


def test_a_lecture_that_fails_is_not_kept(lectures):
    change(lectures[0], 1, "1 / 0")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        execute.execute(lectures[0])
    assert execute.read(lectures[0]) is None


@pytest.mark.parametrize(
    ("formula", "set_as"),
    [
        ("Σ_s q_s", r"Σ\ :sub:`s`\  q\ :sub:`s`\ "),
        ("m_j² + n^d", r"m\ :sub:`j`\ ² + n\ :sup:`d`\ "),
        ("max_{w,q} L", r"max\ :sub:`w,q`\  L"),
        ("p(x|w), half_width, log_weight_s", r"p(x\|w), half\_width, log\_weight\_s"),
        ("see `log_p_x`", "see ``log_p_x``"),
    ],
)
def test_indices_of_a_docstring_are_lowered_and_names_left_alone(formula, set_as):
    assert typeset(formula) == set_as


def test_a_docstring_becomes_its_formula_a_list_of_arguments_and_the_rest():
    lines = restructured("p(t) = N(0, I)\n\nt: [d], one point. M, N: counts. Raises ValueError. Slide 2.", formula=True)
    assert lines[:3] == [".. container:: formula", "", "   p(t) = N(0, I)"]
    assert "- ``t``: [d], one point." in lines and "- ``M, N``: counts." in lines
    assert "Raises ValueError. Slide 2." in lines


def test_every_function_of_the_readme_has_its_place_in_the_reference():
    assert len(course.symbols()) > 30 and all(symbol.entries for symbol in course.symbols())
    offered = [entry for room in library.rooms().values() for entry in room]
    assert len({entry.name for entry in offered}) == len({(e.file, e.own_name) for e in offered}) == len(offered)


def test_the_lectures_say_what_they_need_and_the_map_shows_it():
    needs = {lecture.number: lecture.needs for lecture in course.lectures()}
    assert needs[1] == () and all(needs[k] and max(needs[k]) < k for k in needs if k > 1)
    shown = pages.lecture_map()
    for lecture in course.lectures():
        assert lecture.title.replace("'", "&#x27;") in shown and f"runs in {lecture.runs_in}" in shown


@pytest.mark.parametrize(
    ("said", "needs"),
    [
        ("Gaussians, and to read some Python.", []),
        ("lecture 3, and patience.", [3]),
        ("lectures 2 and 3.", [2, 3]),
        ("lectures 1 to 6. From the fourth: the bound.", [4]),
        ("lectures 1, 2 and 7. From the second: a mean. From the seventh: a bound.", [2, 7]),
    ],
)
def test_what_a_lecture_goes_on_from_is_what_it_names_or_all_that_it_asks_for(said, needs):
    assert list(course._needed(said)) == needs


def test_a_lecture_s_code_is_searched_for_what_it_calls():
    cell = nbformat.v4.new_code_cell("from cmog_lib import ppca as p, em\n%pip x\np.fit(X, 2)\nem = 3\nfit(1)")
    assert [entry.name for entry in library.used(nbformat.v4.new_notebook(cells=[cell]))] == ["cmog_lib.ppca.fit"]


def test_a_long_formula_is_broken_at_its_outermost_signs_only():
    assert pages.broken("a = b") == "$a = b$"
    long = r"L = \sum_{k=1}^{K} f(a = b)" + " " * 80 + r"\ge g"
    assert pages.broken(long).count(r"\\") == 1 and "f(a = b)" in pages.broken(long)


def test_names_of_files_in_a_lecture_s_text_become_links():
    row = "| 1 | $p(x)$ | `cmog_lib/quadrature.py`: `log_p_x`, `nothing` |"
    linked = build.linked(f"Next: `02_ppca.ipynb`.\n{row}")
    assert "[lecture 2](02_ppca.ipynb)" in linked and "<cmog_lib.quadrature.log_p_x>`, `nothing`" in linked


def test_the_code_of_an_exercise_stands_on_the_slide_of_its_text():
    text = nbformat.v4.new_markdown_cell("What came of it.\n\n### Exercise 1\n\nReturn x.")
    code = nbformat.v4.new_code_cell("def f(x):\n    return ...", metadata={"tags": ["exercise:f"]})
    shown = slides.on_slides(nbformat.v4.new_notebook(cells=[text, code])).cells
    assert [cell.metadata.slideshow.slide_type for cell in shown] == ["subslide", "subslide", "-"]
