"""Write the notebook that Colab opens beside each page of the book that has code.

Usage: python tools/export_notebooks.py            write book/*.ipynb
       python tools/export_notebooks.py --check    compare instead; 1 when a notebook is stale or left over

The page is the truth. Its notebook depends on the page, the other pages' labels, references.bib and the
repository's address alone: no outputs, cell ids made from the text, the same bytes on every machine.
"""

import hashlib
import re
import sys
from pathlib import Path

import jupytext
import myst
import nbformat
import plain_markdown
import references
import repository
from cross_references import Book

ROOT = Path(__file__).resolve().parent.parent
NEURAL_TANGENTS = "neural-tangents==0.6.5"
INSTALL = """\
# On Colab, run this first. It installs what is missing there and changes nothing that Colab ships;
# where companion is installed already, it does nothing.
import importlib.util
import subprocess
import sys
from pathlib import Path


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)


if importlib.util.find_spec("companion") is None:
    # Everything else that companion needs, Colab ships. Newer releases of mlxtend want a newer NumPy.
    helpers = {{"frozendict": "frozendict", "jaxtyping": "jaxtyping", "pooch": "pooch"}}
    alone = {{"mlxtend": "mlxtend<0.24", "neural_tangents": "{neural_tangents}"}}
    pip = (sys.executable, "-m", "pip", "install", "-q")
    for names, options in ((helpers, ()), (alone, ("--no-deps",))):
        if missing := [wanted for name, wanted in names.items() if not importlib.util.find_spec(name)]:
            run(*pip, *options, *missing)
    # A copy of the repository, and not the package alone: the recorded results are in it.
    if not Path("{folder}").exists():
        run("git", "clone", "-q", "--depth", "1", "https://github.com/{repo}", "{folder}")
    sys.path.insert(0, str(Path("{folder}").resolve()))
    importlib.invalidate_caches()"""
SOLUTION = '# @title Solution { display-mode: "form" }\n'
METADATA = {
    "colab": {"provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages of the table of contents that have code cells."""
    paths = [root / f"{name}.md" for name in myst.contents(root)]
    return [
        path
        for path in paths
        if path.exists() and re.search(r"^`{3,}\{code-cell\}", path.read_text("utf8"), re.M)
    ]


def context(path: Path, root: Path) -> Book:
    """Collect what the translation of one page needs."""
    read, targets = myst.index(root)
    return Book(
        page=path.relative_to(root).with_suffix("").as_posix(),
        targets=targets,
        titles={name: page.title for name, page in read.items()},
        notebooks=frozenset(p.relative_to(root).with_suffix("").as_posix() for p in pages(root)),
        entries=references.load(root / "book" / "references.bib"),
        repo=repository.address(root),
    )


def markdown(text: str) -> nbformat.NotebookNode:
    """Return a Markdown cell."""
    return nbformat.v4.new_markdown_cell(text)


def code(cell: nbformat.NotebookNode, *, solution: bool) -> nbformat.NotebookNode:
    """Return a code cell with its tags; a solution's code is folded until the reader asks for it."""
    new = nbformat.v4.new_code_cell(cell.source)
    if tags := list(cell.metadata.get("tags", [])):
        new.metadata["tags"] = tags
    if solution:
        new.metadata["cellView"] = "form"
        new.metadata["jupyter"] = {"source_hidden": True}
        new.source = SOLUTION + cell.source
    return new


def heading(source: str, book: Book) -> tuple[str, str]:
    """Split a page's first cell into its title with the badge and a word on this copy, and the rest."""
    title, _, rest = source.partition("\n")
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    badge = f"[![Open in Colab]({picture})]({repository.colab(book.page, book.repo)})"
    words = f"A chapter of a [book](https://github.com/{book.repo}) as a notebook, made from its page."
    if "glue" in book.used:
        words += (
            " A `name` in code letters inside a sentence stands for a value computed by the cells before it."
        )
    return f"{title}\n\n{badge}\n\n{words}", rest.strip("\n")


def cells(path: Path, root: Path = ROOT) -> list[nbformat.NotebookNode]:
    """Return the notebook's cells: title, install cell, then the page's own."""
    book, made, solution = context(path, root), [], False
    for cell in jupytext.reads(path.read_text("utf8"), fmt="md:myst").cells:
        if cell.cell_type == "code":
            made.append(code(cell, solution=solution))
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            if figure.get("caption"):
                target = book.targets.get(figure.get("name", ""))
                number = target.number if target else ""
                made.append(markdown(plain_markdown.figure_caption(figure["caption"], number, book)))
            continue
        names = [part.name for part in myst.split(cell.source) if isinstance(part, myst.Block)]
        for name in names:
            solution = {"solution-start": True, "solution-end": False}.get(name, solution)
        if text := plain_markdown.translate(cell.source, book):
            unclosed = text.count("<details>") - text.count("</details>")
            made.append(markdown(text + "\n\n</details>" * unclosed))
    first, rest = heading(made[0].source, book)
    install = nbformat.v4.new_code_cell(
        INSTALL.format(neural_tangents=NEURAL_TANGENTS, repo=book.repo, folder=book.repo.rpartition("/")[2])
    )
    install.metadata["tags"] = ["install"]
    return [markdown(first), install, *([markdown(rest)] if rest else []), *made[1:]]


def export(path: Path, root: Path = ROOT) -> str:
    """Return a page's notebook as text.

    Raises:
        ValueError: something on the page has no plain Markdown, or raw MyST would be left.
    """
    made = cells(path, root)
    seen: dict[str, int] = {}
    for cell in made:
        if cell.cell_type == "markdown" and (left := plain_markdown.leftovers(cell.source)):
            raise ValueError(f"raw MyST would be left in the notebook: {left}")
        name = hashlib.sha256(f"{path.stem}\0{cell.cell_type}\0{cell.source}".encode()).hexdigest()[:10]
        seen[name] = seen.get(name, 0) + 1
        cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    notebook = nbformat.v4.new_notebook(cells=made, metadata=METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def main(arguments: list[str]) -> int:
    """Write or compare every notebook."""
    check, stale, wanted = "--check" in arguments, [], set()
    for path in pages():
        notebook = path.with_suffix(".ipynb")
        wanted.add(notebook)
        try:
            text = export(path)
        except ValueError as error:
            print(f"{path.relative_to(ROOT)}: {error}")
            return 1
        if not notebook.exists() or notebook.read_text("utf8") != text:
            stale.append(notebook)
            if not check:
                notebook.write_text(text, "utf8")
    over = sorted(set((ROOT / "book").glob("*.ipynb")) - wanted)
    for notebook in [*stale, *over]:
        state = "has no page" if notebook in over else ("stale" if check else "wrote")
        print(f"{state}: {notebook.relative_to(ROOT)}")
    if check and (stale or over):
        print("make notebooks writes them again")
        return 1
    if check:
        print(f"{len(wanted)} notebooks are as their pages say")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
