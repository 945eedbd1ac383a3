"""What the library has to offer, by the name under which a reader calls it, and which lecture calls what."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from nbformat import NotebookNode

import cmog_lib
from book.execute import code_cells, failed_cell

# Of the classroom, what a reader would use in a notebook of their own.
CLASSROOM = {
    "explore": ("explore", "Slider", "Pad"),
    "scoreboard": ("Scoreboard",),
    "style": ("figure", "show", "source"),
}


@dataclass(frozen=True)
class Entry:
    """A function or class: `name` is what one writes, `file` and `own_name` are where it stands."""

    name: str
    file: str
    own_name: str
    kind: str
    formula: str


@cache
def rooms() -> dict[str, list[Entry]]:
    """Every public function and class, room by room."""
    found = {room: _once(_entries(f"cmog_lib.{room}")) for room in cmog_lib.__all__}
    taught = [
        _entry(
            f"cmog_lib.classroom.{module}.{name}",
            getattr(importlib.import_module(f"cmog_lib.classroom.{module}"), name),
        )
        for module, names in CLASSROOM.items()
        for name in names
    ]
    return found | {"classroom": taught}


@cache
def by_place() -> dict[tuple[str, str], Entry]:
    """The same by file and name in it; where two rooms show one object, the room that it stands in has it."""
    entries = sorted((entry for room in rooms().values() for entry in room), key=_at_home)
    return {(entry.file, entry.own_name): entry for entry in entries}


def used(notebook: NotebookNode) -> list[Entry]:
    """What of it the notebook's code names, in the order of the rooms."""
    places, here = set(), {}
    for cell in code_cells(notebook):
        if failed_cell(cell):  # its code may not parse
            continue
        tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.M))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cmog_lib"):
                for alias in node.names:
                    here[alias.asname or alias.name] = _imported(node.module, alias.name)
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)]
        places |= {_place(thing) for node in names if (thing := _resolved(node, here)) is not None}
    return [entry for place, entry in by_place().items() if place in places]


def _at_home(entry: Entry) -> bool:
    return entry.file.removesuffix(".py").replace("/", ".").startswith(entry.name.rpartition(".")[0])


def _once(entries: Iterable[Entry]) -> list[Entry]:
    """A room may show what stands in one of its modules; where it shows the module too, that is its place."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        place = entry.file, entry.own_name
        found[place] = max(entry, found.get(place, entry), key=lambda each: len(each.name))
    return list(found.values())


def _entries(module_name: str) -> Iterator[Entry]:
    module = importlib.import_module(module_name)
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module_name]
    for name in getattr(module, "__all__", own):
        thing = getattr(module, name)
        if isinstance(thing, ModuleType):
            yield from _entries(thing.__name__)
        elif not name.startswith("_") and callable(thing) and inspect.getdoc(thing):
            yield _entry(f"{module_name}.{name}", thing)


def _entry(name: str, thing: Any) -> Entry:
    formula = (inspect.getdoc(inspect.unwrap(thing)) or "").splitlines()[0]
    return Entry(name, *_place(thing), "class" if inspect.isclass(thing) else "function", formula)


def _place(thing: Any) -> tuple[str, str]:
    own = inspect.unwrap(thing)
    module, name = getattr(own, "__module__", None) or "", getattr(own, "__qualname__", "")
    return module.replace(".", "/") + ".py", name.split(".")[0]


def _imported(module: str, name: str) -> Any:
    inside = importlib.import_module(module)
    return getattr(inside, name) if hasattr(inside, name) else importlib.import_module(f"{module}.{name}")


def _resolved(node: ast.expr, here: dict[str, Any]) -> Any:
    """What `ppca.fit` or `explore` means in the notebook, if it is the library's."""
    if isinstance(node, ast.Name):
        return here.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolved(node.value, here)
        return getattr(owner, node.attr, None) if isinstance(owner, ModuleType) else None
    return None
