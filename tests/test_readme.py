"""The examples that a reader copies first: they run as printed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = [
    ("README.md", r"```python\n(.*?)```"),
    ("book/index.md", r"```\{code-block\} python\n(.*?)```"),
]


@pytest.mark.parametrize(("page", "pattern"), EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_example_runs_and_classifies(page, pattern):
    code = re.search(pattern, (ROOT / page).read_text("utf8"), re.S)[1]
    names = {}
    exec(compile(code, page, "exec"), names)
    assert ((names["outputs"][:, 0] > 0) == names["digits"].y_test).mean() > 0.9
