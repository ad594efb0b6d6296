"""The examples that a reader copies first: they run as printed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = [
    ("README.md", r"```python\n(.*?)```"),
    ("book/index.md", r"```\{code-block\} python\n(.*?)```"),
]


def test_your_own_data_reads_alike_where_it_stands():
    readme = (ROOT / "README.md").read_text("utf8")
    code = next(c for c in re.findall(EXAMPLES[0][1], readme, re.S) if "# yours" in c)
    told = code.removeprefix("import numpy as np\n\n").split("  # 0.")[0]
    assert told.count("\n") == 6
    assert told in (ROOT / "book/bring_your_own_network.md").read_text("utf8")


@pytest.mark.parametrize(("page", "pattern"), EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_examples_run_and_print_what_they_say(page, pattern, capsys, optimized):
    codes = re.findall(pattern, (ROOT / page).read_text("utf8"), re.S)
    names = {}
    for code in codes:
        exec(compile(code, page, "exec"), names)
    # What a comment says is printed is what is printed, but for an image or two that another machine rounds.
    said = re.findall(r"^print.*  # ([\d.]+)", "\n".join(codes), re.M)
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert list(map(float, printed)) == pytest.approx(list(map(float, said)), abs=0.011)
    assert ((names["outputs"][:, 0] > 0) == names["digits"].y_test).mean() > 0.9
