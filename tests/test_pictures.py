import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

pytest.importorskip("docutils")

import pictures  # noqa: E402
from test_floors import FLOORS  # noqa: E402

TREE = [(1, []), (2, [1]), (3, [2]), (4, [2]), (5, [4]), (6, [2])]


def chapter(number, needs):
    return {"number": number, "name": f"book/{number}", "title": f"T{number}", "minutes": 7, "needs": needs}


def test_words_are_those_that_are_read():
    text = "---\nkernelspec: x\n---\n# Two words\n\n```{code-cell} python\n:tags: [a]\nnot = read\n```\n"
    assert pictures.words(text + "```{note}\n:class: tip\nFour more here, read.\n```\n") == 7  # with the #


def test_what_is_needed_anyhow_is_left_out():
    before = [chapter(1, []), chapter(2, [1]), chapter(4, [2])]
    assert pictures.direct([1, 2, 4], before) == [4]
    assert pictures.direct([1], before) == [1]


def test_every_chapter_stands_below_what_it_needs_and_no_line_passes_another():
    found = [chapter(*one) for one in TREE]
    order = [one["number"] for one in pictures.in_branches(found)]
    assert order == [1, 2, 3, 4, 5, 6]
    assert [one["number"] for one in pictures.in_branches([*found, chapter(7, [4])])] == [1, 2, 3, 4, 5, 7, 6]
    picture = ET.fromstring(pictures.chapter_map(found, lambda page: f"{page}.html"))
    dots = {(float(one.get("cx")), float(one.get("cy"))) for one in picture.iter("circle")}
    for path in picture.iter("path"):
        left, top, bottom, _ = map(float, re.findall(r"[\d.]+", path.get("d")))
        assert not [y for x, y in dots if x == left and top < y < bottom]
    assert [one.get("href") for one in picture.iter("a")] == [f"book/{n}.html" for n in order]


def test_the_map_has_every_chapter_with_its_needs():
    found = {Path(one["name"]).name[:2]: one for one in pictures.chapters()}
    assert found["01"]["needs"] == []
    assert all(one["needs"] for name, one in found.items() if name != "01")
    assert all(5 < one["minutes"] < 60 for one in found.values())


def test_the_house_has_every_room_on_its_floor():
    picture = ET.fromstring(pictures.house(pictures.floors(), lambda room: "" if room == "_core" else room))
    rooms = {one.text: float(one.get("y")) for one in picture.iter("text") if not one.text.isdigit()}
    heights = {one.text: float(one.get("y")) for one in picture.iter("text") if one.text.isdigit()}
    assert {room: heights[str(i)] for i, floor in enumerate(FLOORS) for room in floor} == rooms
    assert sorted(heights.values(), reverse=True) == [heights[str(i)] for i in range(len(FLOORS))]
    assert {one.get("href") for one in picture.iter("a")} == set(rooms) - {"_core"}
