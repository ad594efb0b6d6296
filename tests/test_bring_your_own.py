"""The page "Bring your own network", with the blocks that the book cannot run; `make torch` runs this."""

import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: `make torch` runs this")
pytest.importorskip("equinox", reason="Equinox is not installed: `make torch` runs this")

PAGE = Path(__file__).resolve().parent.parent / "book" / "bring_your_own_network.md"


def test_the_page_runs_from_top_to_bottom():
    blocks = re.findall(
        r"^```(?:python|\{code-cell\} ipython3)\n(.*?)^```$", PAGE.read_text("utf8"), re.M | re.S
    )
    names = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert list(names["functions"])[-2:] == ["Equinox", "PyTorch"]
    assert set(names["table"]) == set(names["functions"])
    # AutoAttack leaves no more of the PyTorch module than PGD does, by an image at most.
    left = names["table"]["PyTorch"]["PyTorch"].value
    assert list(names["found"].accuracy)[1:] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert names["found"].robust_accuracy.value <= left + 0.01
