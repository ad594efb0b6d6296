"""Commands that pages, README and docstrings name: they exist, and take the options that are said."""

import re
import shlex
from pathlib import Path

import pytest

from companion.experiments.__main__ import find, names, parser

ROOT = Path(__file__).parent.parent
TEXTS = [
    *ROOT.glob("book/*.md"),
    *ROOT.glob("book/api/*.md"),
    *ROOT.glob("*.md"),
    *(ROOT / "companion").rglob("*.py"),
    *ROOT.glob("benchmarks/*.py"),
]
END = re.compile(r"""[`"'();|#\n]|\.\s|\.$|, """)  # of a command in a text


def said(start):
    """The commands that begin so, each with where it stands and what follows."""
    found = []
    for path in TEXTS:
        for part in path.read_text("utf8").split(start)[1:]:
            # A place to fill in, `--merge <folder>`, is a word; what stands beside it is a command's.
            found.append((path.name, re.sub(r"<([^<>]*)>", r"\1", END.split(part)[0].strip())))
    return found


def complete(words):
    """Whether a command is one to type: not made by code, no `[NAME ...]`."""
    return not re.search(r"[{}\[\]…]|\.\.\.", words)


def test_experiments_and_their_options_exist():
    commands = [one for one in said("python -m companion.experiments") if complete(one[1])]
    assert len(commands) > 20
    for where, words in commands:
        try:
            options = parser().parse_args(shlex.split(words))
        except SystemExit:
            pytest.fail(f"{where}: python -m companion.experiments {words}")
        for name in options.names:
            assert name in names(), where
            assert options.profile in find(name).profiles, (where, words)


def test_benchmarks_and_their_options_exist():
    commands = [one for one in said("python benchmarks/") if complete(one[1])]
    assert len(commands) > 10
    for where, words in commands:
        file, *options = words.split()
        source = (ROOT / "benchmarks" / file).read_text("utf8")
        for option in options:
            assert not option.startswith("--") or f'"{option}"' in source, (where, words)


def test_targets_of_make_exist():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf8"), re.M)[1].split()
    commands = [one for one in said("`make ") if complete(one[1])]
    assert len(commands) > 15
    for where, words in commands:
        # `make PYTHON=python3.13 book` sets a variable before it names the target.
        named = [word for word in words.split() if "=" not in word]
        assert named, (where, words)
        assert named[0] in targets, (where, words)
