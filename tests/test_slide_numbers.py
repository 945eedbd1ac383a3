"""Slide numbers in the README, the lectures and the docstrings are those of the lecture, which has nineteen slides."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from book.execute import LECTURES

ROOT = Path(__file__).parent.parent
# What each slide adds to the one before it; slides 6 and 8 add only a picture. A row of a table names the first slide
# on which its formula stands.
ADDED = {
    1: "p(x) = ∫ p(x|t) p(t) dt",
    2: "p(t) = N(0, I)",
    3: "p(x|t) = N(μ(t), Σ(t))",
    4: "μ(t) = Wt + b, Σ(t) = Σ₀: PPCA",
    5: "μ(t) = CNN₁(t), Σ(t) = CNN₂(t)",
    6: "",
    7: "p(x|w) = ∫ p(x|t, w) p(t) dt",
    8: "",
    9: "diag(σ²(t, w))",
    10: "max_w p(X|w)",
    11: "use EM!",
    12: "log p(X|w) ≥ L(w, q), maximize L(w, q) over w and q",
    13: "the E-step is intractable: p(T|X, w)",
    14: "MCMC?",
    15: "E_q log p(X, T|w) ≈ 1/M Σ log p(X, T_s|w), T_s ~ q(T)",
    16: "MCMC is an option, but we can do better",
    17: "then variational EM: maximize L(w, q)",
    18: "q_i(t_i) = q̃(t_i1) … q̃(t_im)",
    19: "but again intractable",
}
LAST = max(ADDED)
# A pattern for a formula, as the README and a recap write it, and the slides of which its row must name one.
STANDS_ON = {
    r"^p\(t\) = (N|\\mathcal N)\(0, I\)": {2},
    r"^p\(x\) = (∫|\\int)": {1},
    r"^p\(x(\\mid |\|)t\b.*\) = (N|\\mathcal N)\(": {3},
    r"Wt \+ b": {4},
    r"N\(b, WW": {4},
    r"NN(\}?)(_1|₁)": {5},
    r"^(\\?)mathrm\{diag\}\(\\?sigma\^2\(t, w\)\)": {9},
    r"L\(w, q\), by draws|(≥|\\ge) (\\mathcal )?L\(w, q\)$": {12},
    r"^KL\(q‖p\(t\|x": {12},
    r"^p\(T?t?(\\mid |\|)X?x?, w\)(, by Bayes)?$": {13},
    r"(1/M|\\frac1M).*log p\(X, T_s": {15},
    r"^T_s (~|\\sim)": {15},
    r"(log|\\log) ?\\?(tilde q_j|q̃_j)": {18},
    r"q̃\(t_i1\)": {18},
}


def named(text: str) -> set[int]:
    """The slides that a text such as "2, 3" or "10–13" names."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:(?:–| to )(\d+))?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def text_of(lecture: Path) -> str:
    cells = nbformat.read(lecture, 4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def rows_of_tables() -> list[tuple[str, str, str]]:
    """(where, slides, symbol) for each row of the README's table of functions and of the lectures' recaps."""
    texts = {"README": (ROOT / "README.md").read_text(encoding="utf-8")}
    texts |= {path.stem: text_of(path) for path in LECTURES}
    rows = []
    for where, text in texts.items():
        for slides, symbol in re.findall(r"(?m)^\| ([^|]*\d[^|]*) \| ((?:[^|]|(?<=\\)\|)+) \| `cmog_lib/", text):
            rows.append((where, slides, symbol.replace("\\|", "|").strip("$ ")))
    return rows


ROWS = rows_of_tables()


def test_every_formula_of_the_tables_stands_on_the_slide_that_its_row_names():
    matched = set()
    for where, slides, symbol in ROWS:
        if slides.startswith("after"):
            assert slides == f"after {LAST}", where
            continue
        assert named(slides) <= ADDED.keys(), (where, slides)
        for piece, stands_on in STANDS_ON.items():
            if re.search(piece, symbol):
                matched.add(piece)
                assert named(slides) & stands_on, f"{where}: {symbol!r} stands on {stands_on}, the row says {slides}"
    assert matched == STANDS_ON.keys(), f"in no table: {STANDS_ON.keys() - matched}"


def test_the_lectures_cover_every_slide_once_and_in_order():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    taken = [named(slides) for slides in re.findall(r"(?m)^\| \d \| \[[^|]*\| ([\d–]+) \|", readme)]
    assert [slide for slides in taken for slide in sorted(slides)] == [*ADDED]


@pytest.mark.parametrize("lecture", LECTURES, ids=[path.stem for path in LECTURES])
def test_a_lecture_s_headings_name_its_own_slides(lecture):
    text = text_of(lecture)
    own = re.search(r"^\*(Slides?|After slide) ([\d–]+)\.\*", text, re.M)
    headings = re.findall(r"(?m)^## .*\(slides? ([^)]*)\)$", text)
    slides = set() if own[1] == "After slide" else named(own[2])
    assert set().union(*map(named, headings)) <= slides
    assert slides or own[2] == str(LAST)


def test_docstrings_name_slides_that_exist():
    for path in (ROOT / "cmog_lib").rglob("*.py"):
        for slides in re.findall(r"[Ss]lides? (\d[\d–, ]*(?:(?:and|to) \d+)?)", path.read_text(encoding="utf-8")):
            assert named(slides) <= ADDED.keys(), f"{path.name}: {slides}"
