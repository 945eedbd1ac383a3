"""Tells what to run first when a lecture is run from the middle, below the bare NameError.

`style.begin` calls `watch`. A restarted kernel has not run that cell yet, so `make lab` names this file as its kernels'
start-up file as well. There it runs before the first cell, so it imports nothing of the library.
"""

from __future__ import annotations

from typing import Any

from IPython import get_ipython

ABOVE = "choose Run › Run All Above Selected Cell, and run this cell again"
MISSING = (
    "`{}` is made by a cell further up that has not run since this kernel started: " + ABOVE + " (or is it misspelt?)."
)
CHECK = (
    "This is a check of the lecture's own; if a cell above was stopped or changed, that is why it fails: " + ABOVE + "."
)


def watch() -> None:
    """From now on, a missing name or a failed check in a cell is reported with advice on what to run."""
    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((NameError, AssertionError), _explained)


def _explained(shell: Any, kind: type, error: Exception, traceback: Any, tb_offset: int | None = None) -> None:
    where = traceback
    while where.tb_next is not None:
        where = where.tb_next
    if where.tb_frame.f_globals is shell.user_ns:  # not in the library, where it would be another matter
        error.add_note(CHECK if isinstance(error, AssertionError) else MISSING.format(getattr(error, "name", None)))
    shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)


if __name__ == "__main__":  # as a start-up file
    watch()
