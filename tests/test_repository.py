"""The repository's outside: pins, the conda alias, notebooks, and who may import whom in the library."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from needs import missing
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
RANGES = [Requirement(line) for lines in LISTS for line in lines]
PIN_LINES = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
PINS = [Requirement(line) for line in PIN_LINES]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SYSTEMS = {
    "Linux": {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux"},
    "macOS": {"sys_platform": "darwin", "os_name": "posix", "platform_system": "Darwin"},
    "Windows": {"sys_platform": "win32", "os_name": "nt", "platform_system": "Windows"},
}


def tracked() -> list[Path]:
    """The files that git tracks."""
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        missing("not a git checkout: which files are tracked cannot be asked")
    return [path for name in run.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# The pins.


def test_every_pin_is_exact_and_has_no_address():
    for line, pin in zip(PIN_LINES, PINS, strict=True):
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; .+)?", line), line
        assert pin.url is None, line
    assert len({pin.name for pin in PINS}) == len(PINS), "a package is pinned twice"


def test_every_dependency_is_pinned_inside_its_range():
    pins = {canonicalize_name(pin.name): pin for pin in PINS}
    for wanted in RANGES:
        pin = pins.get(canonicalize_name(wanted.name))
        assert pin is not None, f"{wanted.name} of pyproject.toml is not in requirements.txt: make pins"
        version = next(iter(pin.specifier)).version
        assert wanted.specifier.contains(version), f"{pin} is outside {wanted}: make pins"
        assert pin.marker is None, f"{wanted.name} is needed everywhere, its pin only where {pin.marker}"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_pins_have_a_meaning_on_every_system(system, python):
    place = SYSTEMS[system] | {"python_version": python, "python_full_version": f"{python}.0"}
    chosen = {pin.name for pin in PINS if pin.marker is None or pin.marker.evaluate(place)}
    assert ("pywinpty" in chosen) == (system == "Windows")
    assert ("appnope" in chosen) == (system == "macOS")


def test_what_is_installed_here_is_what_is_pinned():
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    here = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate()]
    assert {p.name: installed(p.name) for p in here} == {p.name: next(iter(p.specifier)).version for p in here}


def test_conda_environment_is_an_alias_of_the_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    python, pip, rest = environment["dependencies"]
    assert pip == "pip" and rest == {"pip": ["-r requirements.txt", "-e ."]}
    assert python.removeprefix("python=") in SpecifierSet(PROJECT["requires-python"])


# What must not be in any file.


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a path of one machine", r"(?<![\w.~:/}-])/(?:work|root|home|Users)/\w"),
        ("a package registry's host", r"(?:pypi|pythonhosted|anaconda|npmjs|unpkg|jsdelivr)\.(?:org|com|net)"),
    ],
)
def test_no_tracked_file_names(what, pattern):
    named = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        named += [f"{path.relative_to(ROOT)}: {found[0]}" for found in re.finditer(pattern, text)]
    assert named == [], what


def test_no_data_file_is_tracked():
    data = {".gz", ".npz", ".npy", ".csv", ".dat", ".pkl", ".zip", ".mat", ".parquet"}
    models = ROOT / "cmog_lib" / "classroom" / "models"  # weights that `make models` has made, and no data
    assert [path.name for path in tracked() if path.suffix in data and path.parent != models] == []


# Notebooks.


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    strip = [sys.executable, "-m", "nbstripout", "--keep-id", "--verify", str(path)]
    assert subprocess.run(strip, capture_output=True).returncode == 0, "make format strips it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_nothing_left_to_be_filled_in(path):
    assert re.findall(r"@[A-Z_0-9]+@|TODO|TBD|FIXME|XXX", path.read_text(encoding="utf-8")) == []


# The house. A row may import what stands above it; nothing beside it, nothing below.

ROWS = [
    {"decoders", "nodes"},
    {"model"},
    {"posteriors"},
    {"ppca", "quadrature", "bound"},
    {"em", "likelihood"},
    {"mcmc", "variational"},
    {"amortised"},  # its ladder holds the encoder against what the best q of a family reaches
]
ROW = {room: number for number, row in enumerate(ROWS) for room in row}
ENGINE_IMPORTS = {"decoders", "model", "nodes", "posteriors"}  # and every room may import the engine
BESIDE = {"optimise", "datasets", "sharding"}  # import no room at all, only the engine
HELPERS = {"_mnist": "datasets"}  # it stands beside the room and has its rights
LIGHT = {"jax", "jaxlib", "equinox", "jaxtyping", "numpy", "cmog_lib"}
CLASSROOM_ONLY = {"matplotlib", "PIL", "IPython", "ipywidgets", "anywidget"}
MODULES = sorted((ROOT / "cmog_lib").rglob("*.py"))
LIBRARY = [path for path in MODULES if "classroom" not in path.parts and path != ROOT / "cmog_lib" / "__init__.py"]


def room_of(path: Path) -> str:
    """`ppca` for cmog_lib/ppca.py and for cmog_lib/ppca/em.py."""
    return path.relative_to(ROOT / "cmog_lib").parts[0].removesuffix(".py")


def imports(path: Path, *, anywhere: bool = True) -> set[str]:
    """Full names of what a file imports; `from a import b` counts as a.b. Not `anywhere`: at its top level only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("cmog_lib.")}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT / "cmog_lib")))
def test_library_module_imports_only_rooms_above_it(path):
    me = HELPERS.get(room_of(path), room_of(path))
    used = {HELPERS.get(room, room) for room in rooms_imported(path)} - {"engine", me}
    if me in BESIDE | {"engine"}:
        allowed = ENGINE_IMPORTS if me == "engine" else set()
        assert used <= allowed, f"{me} may not import {used - allowed}"
        return
    assert me in ROW, f"{path.name} has no row: give it one here and in CONTRIBUTING.md, or name the room it helps"
    allowed = {room for room, row in ROW.items() if row < ROW[me]}
    if ROW[me] > ROW["posteriors"]:
        allowed |= {"optimise", "sharding"}
    assert used <= allowed, f"{me} may not import {used - allowed}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT / "cmog_lib")))
def test_library_module_imports_nothing_heavy_at_its_top(path):
    top = {name.split(".")[0] for name in imports(path, anywhere=False)}
    assert top <= LIGHT | sys.stdlib_module_names
    assert not {name.split(".")[0] for name in imports(path)} & CLASSROOM_ONLY, "plots and widgets are the classroom's"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT / "cmog_lib")))
def test_rooms_leave_to_the_engine_what_a_formula_has_no_use_for(path):
    if "engine" not in path.parts:
        assert not {name.split(".")[0] for name in imports(path)} & {"warnings", "signal", "threading", "contextvars"}


def test_every_package_that_the_library_imports_is_a_declared_dependency():
    distribution = {"sklearn": "scikit-learn", "PIL": "pillow", "IPython": "ipython", "mpl_toolkits": "matplotlib"}
    library = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    lectures = {canonicalize_name(Requirement(line).name) for line in PROJECT["optional-dependencies"]["lectures"]}
    for path in MODULES:
        names = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"cmog_lib"}
        declared = library | lectures if "classroom" in path.parts else library
        assert {distribution.get(name, name) for name in names} <= declared, path.name


def test_contributing_shows_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    there = {room_of(path) for path in LIBRARY if not room_of(path).startswith("_")}
    assert [room for room in sorted(there | {"classroom"}) if f"`{room}`" not in text] == []
