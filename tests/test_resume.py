"""A lecture that was stopped, or whose kernel is new, says what to run first, beside the error and not in its place."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from cmog_lib.classroom import resume

ROOT = Path(__file__).parents[1]
LECTURES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def said(client: NotebookClient, source: str) -> str:
    """The error of one more cell, as a reader sees it."""
    client.nb.cells.append(nbformat.v4.new_code_cell(source))
    with pytest.raises(CellExecutionError):
        client.execute_cell(client.nb.cells[-1], len(client.nb.cells) - 1)
    errors = [output for output in client.nb.cells[-1].outputs if output.output_type == "error"]
    assert len(errors) == 1
    return "\n".join(errors[0].traceback)


def fresh(**environment: str):
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=120)
    return client, client.setup_kernel(env={**os.environ, "JAX_PLATFORMS": "cpu", **environment})


@pytest.mark.parametrize("lecture", LECTURES, ids=lambda path: path.stem)
def test_a_lecture_run_on_from_the_middle_of_a_new_kernel_says_what_to_run_first(lecture):
    explorers = [cell for cell in nbformat.read(lecture, 4).cells if "\nexplore(" in cell.source]
    assert len(explorers) >= 2
    # As `make lab` starts a kernel.
    client, kernel = fresh(PYTHONSTARTUP=str(ROOT / "cmog_lib" / "classroom" / "resume.py"))
    with kernel:
        for cell in explorers:
            text = said(client, cell.source)
            assert "NameError" in text and text.count(resume.ABOVE) == 1


def test_a_lecture_whose_cell_was_skipped_says_what_to_run_first():
    top = "from cmog_lib.classroom import style\nstyle.begin(x64=True)"
    client, kernel = fresh()
    with kernel:
        client.nb.cells.append(nbformat.v4.new_code_cell(top))
        client.execute_cell(client.nb.cells[0], 0)
        assert resume.MISSING.format("trained") in said(client, "trained.mu")
        assert resume.MISSING.format("held_out") in said(client, "def f():\n    return held_out\nf()")
        assert resume.CHECK in said(client, "assert 1 > 2, 'a check'")
        # What is no cell's business stays as it is.
        assert resume.ABOVE not in said(client, "exec('nothing', {'__builtins__': {}})")
        assert resume.ABOVE not in said(client, "1 / 0")


def test_make_lab_starts_its_kernels_with_it():
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert 'PYTHONSTARTUP="$(CURDIR)/cmog_lib/classroom/resume.py"' in recipe
