"""The page "Bring your own network", with the blocks that the book cannot run; `make torch` runs this."""

import re
from pathlib import Path

import numpy as np
import pytest

from companion import attacks, data, regression
from companion.architectures import fc

torch = pytest.importorskip("torch", reason="PyTorch is not installed: `make torch` runs this")
pytest.importorskip("equinox", reason="Equinox is not installed: `make torch` runs this")

PAGE = Path(__file__).resolve().parent.parent / "book" / "bring_your_own_network.md"


def test_chapter_2s_target_of_pytorch_runs(capsys):
    text = (PAGE.parent / "02_attacks_without_training.md").read_text("utf8").split("## Your own network")[1]
    code = re.search(r"^```\{code-block\} python\n(.*?)^```$", text, re.M | re.S)[1]
    pair = data.load("mnist5k", classes=(4, 9), n_train=20, n_test=20)
    f = regression.fit(fc(1), pair.x_train, data.targets(pair.y_train))
    names = {
        "np": np,
        "attacks": attacks,
        "f": f,
        "pair": pair,
        "y": pair.y_test,
        "small": attacks.Threat("linf", 0.1),
    }
    torch.manual_seed(0)
    exec(compile(code, "chapter 2", "exec"), names)
    # What it prints is the share of images that its network has right and loses.
    before, after = (names["predict"](x).argmax(1) == pair.y_test for x in (pair.x_test, names["fooling"]))
    share = (before & ~after).sum() / before.sum()
    assert capsys.readouterr().out.startswith(f"{share:.3f} [")


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
