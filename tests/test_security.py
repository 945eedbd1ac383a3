"""What the library never does, whoever asks: run text as code, unpickle, call a shell, or let markup out of a label."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from cmog_lib.classroom.explore import Pad, Slider, explore

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "cmog_lib").rglob("*.py"))
HOSTILE = '</script><script>alert("1")</script>\'&<img src=x onerror=alert(1)>'

CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "import_module",
    "system",
    "popen",
    "Popen",
    "check_output",
    "check_call",
    "execv",
}
IMPORTS = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "subprocess",
    "ctypes",
}
OPTIONS = {"shell": True, "allow_pickle": True, "verify": False}


def faults(source: str) -> list[str]:
    """Every place where Python text calls, imports or allows what it must not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            of = getattr(getattr(node.func, "value", None), "id", "")
            if name in CALLS and of != "re":
                found.append(f"{name}() in line {node.lineno}")
            for option in node.keywords:
                if option.arg in OPTIONS and getattr(option.value, "value", None) is OPTIONS[option.arg]:
                    found.append(f"{option.arg}={OPTIONS[option.arg]} in line {node.lineno}")
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"import {name} in line {node.lineno}" for name in names if name.split(".")[0] in IMPORTS]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "cmog_lib")))
def test_no_module_runs_text_unpickles_or_calls_a_shell(path):
    assert faults(path.read_text(encoding="utf-8")) == []
    assert "pickle.load" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import os; os.system('ls')",
        "import pickle",
        "from joblib import load",
        "np.load(f, allow_pickle=True)",
        "run('ls', shell=True)",
        "requests.get(url, verify=False)",
        "import subprocess as s",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert faults(source)


def test_the_browsers_part_writes_text_and_never_markup():
    for path in (ROOT / "cmog_lib").rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        forbidden = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(\s*[\"'`]"
        )
        assert re.findall(forbidden, text) == [], path.name


def draw(**values):
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().set_title("x")
    if values.get("a") == 1:
        raise ValueError(HOSTILE)
    return figure, HOSTILE


@pytest.mark.parametrize("live", [False, True])
def test_labels_values_sentences_errors_and_pads_stay_text(live):
    explorer = explore(
        draw,
        label=HOSTILE,
        live=live,
        a=Slider(range(3), label=HOSTILE),
        b=Slider([HOSTILE, "b"], label=HOSTILE),
        p=Pad((0.0, 1.0, 2), (0.0, 1.0, 2), names=(HOSTILE, HOSTILE)),
    )
    page = explorer.html()
    assert page.count("<script") == page.count("</script>") == 1 and "<img src=x" not in page
    spec = json.loads(re.search(r"const spec = ({.*);\n", page).group(1))
    assert spec["label"] == HOSTILE and HOSTILE in spec["sentences"]
    assert any("ValueError" in text for text in spec["errors"].values())


# Outside the library.


def test_the_weekly_check_takes_the_newest_versions_asks_for_known_faults_and_runs_the_weekly_tests():
    workflow = yaml.safe_load((ROOT / ".github/workflows/weekly.yml").read_text(encoding="utf-8"))
    steps = {job: " ".join(step.get("run", "") for step in of["steps"]) for job, of in workflow["jobs"].items()}
    # YAML reads the word `on` as true.
    assert len(workflow[True]["schedule"]) == 1 and workflow["permissions"] == {"contents": "read"}
    assert "--upgrade-strategy eager" in steps["newest"] and "requirements.txt" not in steps["newest"]
    # All that the tests import: every extra.
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(re.search(r"\.\[([\w,]+)\]", steps["newest"])[1].split(",")) == set(extras)
    (deselected,) = re.findall(r"--deselect (\S+)::(\S+)", steps["newest"])
    assert f"def {deselected[1]}(" in (ROOT / deselected[0]).read_text(encoding="utf-8")
    assert {"requirements.txt", "--strict"} <= set(steps["known-faults"].split())
    # What a push does not wait for is not lost, nor the compiler's optimisation, without which a push tests.
    assert workflow["jobs"]["newest"]["env"]["CMOG_OPTIMISED"] == "1"
    assert "mnist(split, download=True)" in steps["mnist"]
    assert all('make test ARGS="-m weekly' in steps[job] for job in ("mnist", "rest"))
