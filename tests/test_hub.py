"""What the page for a hub says is so: its numbers follow from each other, and its image from the pins."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "hub.md").read_text(encoding="utf-8")
HUB = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
STUDENTS = 200


def gigabytes(text: str) -> int:
    return int(text.removesuffix("G"))


def test_what_is_asked_for_two_hundred_follows_from_what_one_is_given():
    one = HUB["singleuser"]
    memory, cores = STUDENTS * gigabytes(one["memory"]["guarantee"]), STUDENTS * one["cpu"]["guarantee"]
    assert f"{STUDENTS} pods ask for {memory} GB and {cores:g} cores" in " ".join(PAGE.split())
    nodes, of_cores, of_memory = re.search(r"(\w+) nodes of (\d+) cores and (\d+) GB", PAGE).groups()
    count = {"three": 3, "four": 4, "five": 5}[nodes]
    assert memory < count * int(of_memory) and cores < count * int(of_cores)


def test_students_wait_as_much_longer_as_the_page_says():
    cores, times = re.search(rf"{STUDENTS} students on (\d+) cores wait (\w+) times", PAGE).groups()
    # A lecture's time is that on two cores.
    assert 2 * STUDENTS / int(cores) == {"four": 4, "eight": 8}[times]


def test_a_limit_is_above_its_guarantee_and_the_image_has_one_name():
    one = HUB["singleuser"]
    assert gigabytes(one["memory"]["limit"]) > gigabytes(one["memory"]["guarantee"])
    assert one["cpu"]["limit"] > one["cpu"]["guarantee"]
    assert PAGE.count(f"{one['image']['name']}:{one['image']['tag']}") == 2
    assert one["defaultUrl"] == "/lab/tree/notebooks" and (ROOT / "environment.yml").is_file()


def test_what_lecture_8_writes_is_what_it_says_that_it_writes():
    lecture = ROOT / "notebooks" / "08_scaling_out.ipynb"
    said = re.search(r"Lecture 8 writes (\d+) MB", PAGE)[1]
    assert f"{said} MB of disk" in lecture.read_text(encoding="utf-8")


def test_every_link_of_the_page_is_whole():
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert urlsplit(link).scheme == "https" or (ROOT / "docs" / link).exists(), link
