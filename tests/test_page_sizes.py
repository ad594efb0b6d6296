"""What readers of the chapters see: open cells that fit a screen, figures with captions, tables as tables."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import myst  # noqa: E402
import page_sizes  # noqa: E402

PAGES = [ROOT / f"{name}.md" for name, number in myst.contents(ROOT).items() if number]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_cells_fit_a_screen_and_figures_have_captions(path):
    found = page_sizes.faults(path.read_text("utf8"))
    assert not found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_figures_are_drawn_by_the_package(path):
    found = page_sizes.drawn_here(path.read_text("utf8"))
    assert not found


def page(options, code):
    return f"```{{code-cell}} ipython3\n{options}{code}\n```\n"


FIGURE = """---
mystnb:
  image:
    alt: A line
  figure:
    name: fig-one
    caption: |
      One line. Of three.
---
"""
LONG = "\n".join(f"a{i} = {i}" for i in range(16))


@pytest.mark.parametrize(
    ("options", "code", "fault"),
    [
        ("", LONG, "16 visible lines: a0 = 0"),
        ("", "plots.use_style()\nplt.show()", "a figure without caption and name"),
        (FIGURE.replace("name: fig-one", "align: left"), "figures.x.y()", "without caption and name"),
        (FIGURE.replace("alt: A line", "width: 9"), "figures.x.y()", "a picture without text"),
        (FIGURE, "figures.x.y()\nglue(a=1)", "glue in the cell of a figure"),
        ("", "for i in x:\n    print(i)", "a table that is printed"),
    ],
    ids=["long", "no caption", "no name", "no alt", "glue", "printed"],
)
def test_faults_are_found(options, code, fault):
    assert any(fault in found for found in page_sizes.faults(page(options, code)))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("", LONG.replace("a15 = 15", "# a15\n\n")),
        (":tags: [toy]\n\n", LONG),
        (":tags: [hide-input]\n\n", LONG),
        (FIGURE, "figures.x.y()"),
        ("", "print(1)"),
    ],
    ids=["short", "toy", "hidden", "figure", "print"],
)
def test_what_is_right_is_no_fault(options, code):
    assert page_sizes.faults(page(options, code)) == []


def test_a_solution_is_folded_and_pyplot_is_found():
    solution = "```{solution-start} ex\n```\n" + page("", LONG) + "```{solution-end}\n```\n"
    assert page_sizes.faults(solution) == []
    assert page_sizes.faults(solution + page("", LONG)) == ["16 visible lines: a0 = 0"]
    assert page_sizes.drawn_here(page("", "fig, ax = plt.subplots()")) == ["fig, ax = plt.subplots()"]
    assert page_sizes.drawn_here(page(FIGURE, "figures.x.y()")) == []


def test_sizes_count_what_is_seen():
    text = (
        page("", "a = 1\n\n# why\nb = 2")
        + page(":tags: [hide-input]\n\n", "c = 3")
        + page(FIGURE, "figures.x.y()")
    )
    found = page_sizes.sizes(f"---\nk: 1\n---\nThree words here.\n\n{text}")
    assert found["words"] == 3 + 4
    assert (found["visible"], found["longest"], found["hidden"]) == (3, 2, 1)
    assert (found["figures"], found["captions"], found["tables"]) == (1, 1, 0)
