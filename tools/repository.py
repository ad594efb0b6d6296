"""The repository's address: one truth in pyproject.toml ([project.urls] Repository), checked everywhere else.

Usage: python tools/repository.py               print the address
       python tools/repository.py --check       find any other address of ours; 1 when there is one
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BRANCH = "main"
FILES = ("_config.yml", "README.md", "CITATION.cff", "CHANGELOG.md", "pyproject.toml", "environment.yml")
GLOBS = ("book/*.md", "book/*.ipynb", "book/api/*.md", "companion/*.py", "companion/_core/*.py")
# Links of ours are those that a reader clones from, opens on Colab, or reads files from. Another project's
# repository is never linked in these three ways, except as a plain page, which the last pattern leaves alone.
OURS = (
    re.compile(r"colab\.research\.google\.com/github/(?P<repo>[\w.-]+/[\w.-]+)"),
    re.compile(r"raw\.githubusercontent\.com/(?P<repo>[\w.-]+/[\w.-]+)"),
    re.compile(r"git(?:\+https://|@)github\.com[/:](?P<repo>[\w.-]+/[\w-]+(?:\.(?!git)[\w-]+)*)"),
    re.compile(r"https://github\.com/(?P<repo>[\w.-]+/(?:ntk-robustness|NAME))(?![\w-])"),
)


def address(root: Path = ROOT) -> str:
    """Return owner/name, from pyproject.toml."""
    urls = tomllib.loads((root / "pyproject.toml").read_text("utf8"))["project"]["urls"]
    match = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", urls["Repository"])
    if not match:
        raise ValueError(
            f"[project.urls] Repository must be https://github.com/owner/name, got {urls['Repository']}"
        )
    return match[1]


def colab(page: str, repo: str) -> str:
    """Return the address under which Colab opens the notebook of a page such as "book/01_x"."""
    return f"https://colab.research.google.com/github/{repo}/blob/{BRANCH}/{page}.ipynb"


def files(root: Path = ROOT) -> list[Path]:
    """Return every file that may hold the address."""
    named = [root / name for name in FILES if (root / name).exists()]
    return named + sorted(path for pattern in GLOBS for path in root.glob(pattern))


def patterns(repo: str) -> list[re.Pattern]:
    """Return what our own links look like; the repository's own name is searched for under any owner."""
    name = re.escape(repo.split("/")[1])
    return [re.compile(pattern.pattern.replace("NAME", name)) for pattern in OURS]


def strangers(root: Path = ROOT) -> list[str]:
    """Return "file:line: address" for each link of ours that names another repository."""
    repo, found = address(root), []
    for path in files(root):
        for number, line in enumerate(path.read_text("utf8").splitlines(), 1):
            named = {match["repo"] for pattern in patterns(repo) for match in pattern.finditer(line)}
            found += [f"{path.relative_to(root)}:{number}: {other}" for other in sorted(named - {repo})]
    config = (root / "_config.yml").read_text("utf8")
    if f"url: https://github.com/{repo}\n" not in config:
        found.append(f"_config.yml: repository url is not https://github.com/{repo}")
    return found


def main(arguments: list[str]) -> int:
    """Print or check the address."""
    if arguments == ["--check"]:
        found = strangers()
        print("\n".join(found) if found else f"every link of ours names {address()}")
        return int(bool(found))
    if arguments:
        print(__doc__)
        return 2
    print(address())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
