"""How the book is made, without a browser: what runs again, how docstrings are read, what is linked with what."""

from __future__ import annotations

import functools
import gc
import importlib
import inspect
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import docutils.core
import docutils.nodes
import nbformat
import pytest
from sphinx.ext.napoleon import Config, GoogleDocstring

from book import build, course, execute, library, pages, slides
from book.__main__ import main as make_book
from book.docstrings import process, typeset

# nbclient leaves the event loop of a thread open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CODE = "import json\nfrom cmog_lib.engine import door\nprint(6 * 7)"


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
    assert "cmog_lib/engine/door/arrays.py" in kept.metadata.made_of
    assert not any("classroom" in name for name in kept.metadata.made_of)
    kept.metadata.made_of["cmog_lib/engine/door/arrays.py"] = "another"
    nbformat.write(kept, execute.EXECUTED / lectures[0].name)
    assert execute.read(lectures[0]) is None


def test_a_cell_that_is_split_at_an_empty_line_is_another_lecture(lectures):
    notebook = nbformat.read(lectures[0], 4)
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in ("a = 1\n\nprint(a)", "b = 2")]
    together = execute.fingerprints(notebook, [])
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in ("a = 1", "print(a)\n\nb = 2")]
    assert execute.fingerprints(notebook, []) != together


def failing(path: Path, source: str = "# Divide.\n1 / 0") -> None:
    """The lecture with a title, a cell that runs, one that fails, and a text and a cell that nobody will see."""
    text, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [text("# A lecture\n\nIts text."), code(CODE), code(source), text("Later."), code("print(8)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_a_lecture_that_fails_is_named_at_the_end_and_the_others_run(lectures, capsys):
    failing(lectures[1])
    assert execute.main() == 1
    said = capsys.readouterr().out
    assert "book: 01_short has run" in said
    assert said.endswith(
        "book: 1 of 2 lectures failed and will run again next time:\n"
        "  02_short, cell [2], '# Divide.': ZeroDivisionError: division by zero\n"
    )
    assert execute.read(lectures[0]) is not None and execute.read(lectures[1]) is None
    # Only that one runs again, and it is forgotten that it failed once it runs.
    assert execute.main() == 1
    assert "running 1 of 2 lectures" in capsys.readouterr().out
    failing(lectures[1], "1 / 1")
    assert execute.latest(lectures[1]) is None
    assert execute.main() == 0 and execute.failure(execute.latest(lectures[1])) is None
    assert execute.main() == 0 and "no lecture has changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('one\\n two `three`')", "ValueError: one two `three`"),
        ("x = (", "SyntaxError: "),
        ("import os\nos._exit(3)", "DeadKernelError: Kernel died"),
    ],
)
def test_a_cell_fails_by_an_exception_by_its_syntax_or_with_its_kernel(lectures, source, said):
    failing(lectures[0], source)
    where = execute.execute(lectures[0])
    assert (where.number, where.line) == (2, source.splitlines()[0]) and where.error.startswith(said)
    cells = execute.latest(lectures[0]).cells
    assert [cell.source for cell in cells[1:]] == [CODE, source] and cells[1].outputs[0].text == "42\n"
    (error,) = (output for output in cells[2].outputs if output.output_type == "error")
    assert f"{error.ename}: {error.evalue}".split()[0] == said.split()[0]


def test_a_lecture_whose_kernel_does_not_start_fails_outside_of_its_cells(lectures, monkeypatch):
    def none(*_: object) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(execute, "without_ports", none)
    assert str(execute.execute(lectures[0])) == "outside of its cells: RuntimeError: no kernel"
    assert [cell.source for cell in execute.latest(lectures[0]).cells] == ["A text."]


def test_the_page_of_a_lecture_that_failed_says_so_at_its_top_and_ends_with_the_error(lectures, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "BOOK", tmp_path / "book")
    failing(lectures[0])
    execute.execute(lectures[0])
    page = build.in_the_book(execute.latest(lectures[0]), course.lectures()[0])
    assert page.cells[0].source == (
        "# A lecture\n\n:::{error}\n**This lecture did not run to its end.** Cell [2], `# Divide.`, failed with "
        "`ZeroDivisionError: division by zero`. The page shows the lecture up to there.\n:::\n\n\nIts text."
    )
    assert [cell.source for cell in page.cells[2:-1]] == [CODE, "# Divide.\n1 / 0"]
    assert page.cells[-2].outputs[0].output_type == "error" and "Later." not in str(page)


def test_the_slides_of_a_lecture_that_failed_say_so_at_both_ends(lectures):
    failing(lectures[0], "x = `")
    execute.execute(lectures[0])
    cells = slides.on_slides(execute.latest(lectures[0])).cells
    sources = [cell.source for cell in cells]
    assert sources[0].startswith("# A lecture") and sources[1].startswith("## This lecture failed")
    assert sources[2] == CODE and sources[-1].startswith("## The lecture stopped here") and len(sources) == 4
    assert all("Cell [2], `` x = ` ``, failed with `SyntaxError:" in source for source in (sources[1], sources[3]))


def test_a_front_page_whose_lecture_failed_says_what_is_missing(lectures):
    failing(lectures[0])
    execute.execute(lectures[0])
    notebooks = {"03_decoders": execute.latest(lectures[0])}
    assert "The explorer is missing: 03_decoders did not run." in build.explorer(notebooks, build.FRONT)
    with pytest.raises(ValueError, match="no lecture shows an explorer named"):
        build.explorer({}, build.FRONT)


@pytest.mark.parametrize("only_slides", [False, True])
def test_pages_and_slides_are_built_although_a_lecture_failed(lectures, monkeypatch, capsys, only_slides):
    failing(lectures[0])
    monkeypatch.setattr(build, "main", lambda: print("pages") or 0)
    monkeypatch.setattr(slides, "main", lambda: print("slides"))
    assert make_book(only_slides) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-3] == "slides" and ("pages" in said) != only_slides
    assert said[-2].startswith("book: 1 of 2 lectures failed") and said[-1].startswith("  01_short, cell [2]")


def test_pages_that_sphinx_refuses_do_not_keep_the_slides_from_being_built(lectures, monkeypatch, capsys):
    monkeypatch.setattr(build, "main", lambda: 2)
    monkeypatch.setattr(slides, "main", lambda: print("slides"))
    assert make_book(only_slides=False) == 1 and "slides" in capsys.readouterr().out


STOP = """
import signal, sys
from pathlib import Path
from book import execute
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job that a shell began with & has none
execute.EXECUTED = Path(sys.argv[1]) / "executed"
execute.LECTURES = [Path(path) for path in sys.argv[2:]]
sys.exit(execute.main())
"""


def test_ctrl_c_ends_it_within_seconds_and_calls_no_lecture_failed(lectures, tmp_path):
    started = tmp_path / "started"
    change(lectures[1], 1, f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(600)")
    command = [sys.executable, "-c", STOP, str(tmp_path), *map(str, lectures)]
    run = subprocess.Popen(command, cwd=execute.ROOT, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (started.exists() and (tmp_path / "executed" / "01_short.ipynb").exists()):
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == 130 and "book: stopped; the lectures that have run are kept" in said
    assert "failed" not in said
    assert not (tmp_path / "executed" / "failed").exists()


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


@functools.cache
def napoleon():
    settings = runpy.run_path(str(execute.ROOT / "docs" / "conf.py"))
    return Config(**{name: value for name, value in settings.items() if name.startswith("napoleon_")})


def doctree(docstring, what="function"):
    """What docutils makes of a docstring after the house's reader and napoleon, set as docs/conf.py sets it."""
    lines = docstring.splitlines()
    process(None, what, "thing", None, None, lines)
    text = str(GoogleDocstring(lines, napoleon(), None, what, "thing"))
    return docutils.core.publish_doctree(text, settings_overrides={"report_level": 5})


DOCSTRING = """p(t|w)_s = N(0, I)

Draws p(x|w) and *all
others*, `a_b`, x_i_.

Args:
    t: [d], one point: any
        of them, |t| < 2.
    half_width: d.
    *args: more.

Returns:
    [N], a_i: the values.

Raises:
    ValueError: if x_ is not finite.

Source: Slide 2."""


def test_a_docstring_becomes_its_formula_its_fields_and_its_source():
    tree = doctree(DOCSTRING)
    assert not list(tree.findall(docutils.nodes.system_message)) and not list(tree.findall(docutils.nodes.emphasis))
    formula, text, fields, source = tree.children
    assert formula["classes"] == ["formula"] and formula.astext() == "p(t|w)s = N(0, I)"
    assert text.astext() == "Draws p(x|w) and *all others*, a_b, x_i_." and source.astext() == "Source: Slide 2."
    assert [tuple(part.astext() for part in field.children) for field in fields.children] == [
        ("param t", "[d], one point: any of them, |t| < 2."),
        ("param half_width", "d."),
        ("param *args", "more."),
        ("returns", "[N], a_i: the values."),
        ("raises ValueError", "if x_ is not finite."),
    ]


def test_the_attributes_of_a_docstring_are_one_list_and_a_property_has_its_formula_alone():
    (fields,) = doctree("x = t\n\nAttributes:\n    log_s: [d].\n    t: d.", "class").children[1:]
    assert fields.astext().split() == ["Attributes", "log_s", "--", "[d].", "t", "--", "d."]
    (formula,) = doctree("log q(t): Σ_j s_j, in nats.", "property").children[1:]
    assert formula["classes"] == ["formula"] and formula.astext() == "log q(t): Σj sj, in nats."


def test_every_docstring_of_the_reference_is_read_without_complaint():
    for entry in (entry for room in library.rooms().values() for entry in room):
        module, _, own = entry.name.rpartition(".")
        thing = getattr(importlib.import_module(module), own)
        tree = doctree(inspect.getdoc(thing), entry.kind)
        assert not list(tree.findall(docutils.nodes.system_message)), entry.name


def test_every_function_of_the_readme_has_its_place_in_the_reference():
    assert len(course.symbols()) > 30 and all(symbol.entries for symbol in course.symbols())
    offered = [entry for room in library.rooms().values() for entry in room]
    assert len({entry.name for entry in offered}) == len({(e.file, e.own_name) for e in offered}) == len(offered)


def test_what_stands_in_one_file_is_shown_under_one_name_to_which_its_source_leads_back():
    under: dict[str, set[str]] = {}
    for entry in library.by_place().values():
        under.setdefault(entry.file, set()).add(entry.name.rpartition(".")[0])
    assert {file: names for file, names in under.items() if len(names) > 1} == {}


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
