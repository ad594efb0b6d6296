"""The exported notebooks: every construct translated, the same bytes twice, run in fresh kernels."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import export_notebooks  # noqa: E402
import plain_markdown  # noqa: E402
import repository  # noqa: E402

PAGES = export_notebooks.pages(ROOT)
NAMES = [path.stem for path in PAGES]
# What Colab ships or the install cell brings. myst_nb is the book's alone.
ON_COLAB = set(
    [
        "companion",
        "flax",
        "google",
        "IPython",
        "ipywidgets",
        "jax",
        "jaxtyping",
        "matplotlib",
        "mlxtend",
        "numpy",
        "optax",
        "pandas",
        "PIL",
        "scipy",
        "sklearn",
        "tqdm",
    ]
)

CHAPTER = r"""---
kernelspec: {name: python3, display_name: Python 3, language: python}
---
(ch)=
# A chapter

% not for readers
Text of {cite:t}`one`, then {cite:p}`one,two`, {ref}`other`, {doc}`notes`, [there](notes.md) and [](other).
A mark.[^why] A {term}`word of ours <word>`. See [the sum](#eq-sum) and {eq}`eq-sum`; `{ref}` stays code.

[^why]: Because.

$$
a = b
$$ (eq-sum)

```{math}
:label: eq-two
a &= b \\
c &= d
```

\begin{align*}
x &= y
\end{align*}

```{prf:theorem} Limit
:label: thm
Then {eq}`eq-two` holds:

$$ x = 1 $$
```

:::{note}
Uses {prf:ref}`thm`.
```python
{not}`a role`
```
:::

::::{tab-set}
:::{tab-item} First
One.
:::
:::{tab-item} Second
Two.
:::
::::

```{code-cell} ipython3
:tags: [hide-input]
value = 1
```

- in a list
  ```{tip}
  Indented.
  ```

The value is {glue:text}`value:.2f` of {func}`~companion.kernels.gram`, from
{numref}`fig`, {numref}`Figure %s <fig>`.

```{figure} _static/logo.svg
:name: fig
:alt: A logo

The logo of {cite:t}`two`.
```

```{margin}
Aside.
```

```{admonition} More
:class: dropdown
Folded.
```

```{list-table} Symbols
:name: tab
* - a
  - b
* - $x$
  - y
```

```{exercise} Do it
:label: ex
Do.
```

```{solution-start} ex
:class: dropdown
```
So:

```{code-cell} ipython3
assert value == 1
```

```{solution-end}
```

```{exercise}
:label: ex-two
Prove.
```

```{solution} ex-two
:class: dropdown
By {ref}`ex`.
```

```{bibliography}
```
"""
BIB = """@article{one, author={M{\\"u}ller, Anna and Wu, Bo and Roe, C.}, year={2018}, eprint={1806.07572}}
@article{two, author={Roe, C. and Wu, Bo}, year={2020}, title={U}, doi={10.1/x}}
"""


@pytest.fixture
def book(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[project.urls]\nRepository = "https://github.com/me/it"\n', encoding="utf8"
    )
    (tmp_path / "_toc.yml").write_text(
        "root: book/notes\nparts:\n- numbered: true\n  chapters:\n  - file: book/zero\n  - file: book/ch\n"
    )
    (tmp_path / "book" / "notes.md").write_text("(other)=\n# Notes\n", "utf8")
    (tmp_path / "book" / "ch.md").write_text(CHAPTER, "utf8")
    (tmp_path / "book" / "references.bib").write_text(BIB, "utf8")
    return tmp_path


def exported(root):
    return nbformat.reads(export_notebooks.export(root / "book" / "ch.md", root), as_version=4)


def text_of(root):
    return "\n\n".join(cell.source for cell in exported(root).cells if cell.cell_type == "markdown")


@pytest.mark.parametrize(
    "plain",
    [
        "# A chapter\n\n[![Open in Colab](",
        "](https://colab.research.google.com/github/me/it/blob/main/book/ch.ipynb)",
        "[Müller et al. (2018)](https://arxiv.org/abs/1806.07572)",
        "([Müller et al., 2018](https://arxiv.org/abs/1806.07572); [Roe and Wu, 2020](https://doi.org/10.1/x))",
        "[Notes](https://github.com/me/it/blob/main/book/notes.md)",
        "[there](https://github.com/me/it/blob/main/book/notes.md)",
        "A mark.<sup>1</sup> A word of ours. See the sum and (2.1); `{ref}` stays code.",
        "<sup>1</sup> Because.",
        "$$\na = b \\tag{2.1}\n$$",
        "\\begin{aligned}\na &= b \\\\\nc &= d\n\\end{aligned} \\tag{2.2}",
        "$$\n\\begin{aligned}\nx &= y\n\\end{aligned}\n$$",
        "> **Theorem 2.1 (Limit)**\n>\n> Then (2.2) holds:\n>\n> $$ x = 1 $$",
        "> **Note**\n>\n> Uses Theorem 2.1.",
        "> {not}`a role`",
        "**First**\n\nOne.\n\n**Second**\n\nTwo.",
        "  > **Tip**\n  >\n  > Indented.",
        "The value is `value` of `gram`, from\nFig. 2.1, Figure 2.1.",
        "![A logo](https://raw.githubusercontent.com/me/it/main/book/_static/logo.svg)",
        "*Fig. 2.1. The logo of [Roe and Wu (2020)](https://doi.org/10.1/x).*",
        "<summary>More</summary>\n\nFolded.",
        "**Table 2.1 (Symbols)**\n\n| a | b |\n| --- | --- |\n| $x$ | y |",
        "> **Exercise 2.1 (Do it)**\n>\n> Do.",
        "<details>\n<summary>Solution to Exercise 2.1</summary>\n\nSo:\n\n</details>",
        "<details>\n<summary>Solution to Exercise 2.2</summary>\n\nBy Exercise 2.1.\n\n</details>",
    ],
)
def test_translation_of_each_construct(book, plain):
    assert plain in text_of(book)


def test_nothing_of_the_author_is_left_in_the_notebook(book):
    text = text_of(book)
    for gone in ("not for readers", "(ch)=", "bibliography", "solution-end", ":label:", "[^why]", "{cite"):
        assert gone not in text


def test_what_moves_on_the_page_alone_is_named_and_left_out(book):
    raw = "```{raw} html\n<script>moves()</script>\n```"
    (book / "book" / "ch.md").write_text(CHAPTER.replace("% not for readers", raw), "utf8")
    text = text_of(book)
    assert "a notebook shows the numbers alone" in text
    assert "<script>" not in text


def test_code_cells_keep_their_tags_and_solutions_are_folded(book):
    code = [cell for cell in exported(book).cells if cell.cell_type == "code"]
    assert code[0].metadata["tags"] == ["install"]
    assert code[1].metadata["tags"] == ["hide-input"]
    assert code[1].source == "value = 1"
    assert code[2].metadata["jupyter"] == {"source_hidden": True}
    assert code[2].source.endswith("assert value == 1")
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_export_gives_the_same_bytes_twice_and_ids_follow_the_text(book):
    first = export_notebooks.export(book / "book" / "ch.md", book)
    assert first == export_notebooks.export(book / "book" / "ch.md", book)
    before = {cell.id for cell in exported(book).cells}
    chapter = CHAPTER.replace("% not for readers", "A new paragraph.")
    (book / "book" / "ch.md").write_text(chapter, "utf8")
    assert len(before - {cell.id for cell in exported(book).cells}) == 1


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ("{strange}`x`", "strange"),
        ("```{mermaid}\nx\n```", "mermaid"),
        ("{ref}`nowhere`", "nowhere"),
        ("{cite:p}`nobody`", "nobody"),
        ("{doc}`nothing`", "nothing"),
        (":::{note}\nclosed too often\n:::\n\n:::\n", ":::"),
    ],
)
def test_what_cannot_be_translated_is_an_error_that_names_it(book, raw, named):
    (book / "book" / "ch.md").write_text(CHAPTER.replace("% not for readers", raw), "utf8")
    with pytest.raises(ValueError, match=named):
        exported(book)


@pytest.mark.parametrize(
    "left", ["a {ref}`b`", ":::{note}", "```{note}\nx\n```", "> ```{tip}\n> x", "(label)="]
)
def test_leftovers_are_seen(left):
    assert plain_markdown.leftovers(left)


@pytest.mark.parametrize("fine", ["`{ref}` and a {set}", "```python\n{ref}`b`\n```", "$x_{a}$ `b`"])
def test_plain_markdown_has_no_leftovers(fine):
    assert plain_markdown.leftovers(fine) == []


def test_install_cell_installs_what_is_missing_and_pins_nothing_that_colab_ships(monkeypatch):
    calls = install_on(monkeypatch, present=lambda name: name in ("frozendict", "pooch"))
    assert [list(call)[-2:] for call in calls] == [
        ["-q", "jaxtyping"],
        ["mlxtend<0.24", "neural-tangents==0.6.5"],
        ["https://github.com/me/it", "it"],
    ]
    assert all("jax=" not in part and "numpy" not in part for call in calls for part in call)


def test_install_cell_does_nothing_where_companion_is(monkeypatch):
    assert install_on(monkeypatch, present=lambda _: True) == []


def install_on(monkeypatch, present):
    import importlib.util
    import subprocess

    calls = []

    def run(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", run)
        patch.setattr(importlib.util, "find_spec", lambda name: object() if present(name) else None)
        source = export_notebooks.INSTALL.format(
            neural_tangents="neural-tangents==0.6.5", repo="me/it", folder="it"
        )
        patch.setattr("sys.path", list(sys.path))
        exec(compile(source, "install", "exec"), {})
    return calls


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_notebook_is_what_its_page_says(path):
    assert path.with_suffix(".ipynb").read_text("utf8") == export_notebooks.export(path), "make notebooks"


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_notebook_begins_with_title_and_install_cell_and_has_no_raw_myst(path):
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    page = path.relative_to(ROOT).with_suffix("").as_posix()
    assert notebook.cells[0].source.startswith("# ")
    assert repository.colab(page, repository.address(ROOT)) in notebook.cells[0].source
    assert notebook.cells[1].metadata["tags"] == ["install"]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert plain_markdown.leftovers(cell.source) == []


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_notebook_imports_only_what_colab_has(path):
    notebook = json.loads(path.with_suffix(".ipynb").read_text("utf8"))
    imported = set()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(node.module.split(".")[0])
    if path.stem == "beyond_one_machine":  # which says what to install
        assert {"dask", "distributed"} < imported
        imported -= {"dask", "distributed"}
    assert imported - ON_COLAB - set(sys.stdlib_module_names) == set()


# The chapters take minutes. `make book` has executed their cells; `make compat ARGS=--notebooks`, of CI too,
# runs these very files, on Colab's versions.
CHAPTERS = [path for path in PAGES if path.stem[:2].isdigit()]


@pytest.fixture(scope="module")
def executed():
    """The notebooks that `make book` has executed, by their code."""
    files = sorted(ROOT.glob("_build/.jupyter_cache/*/executed/*/base.ipynb"))
    notebooks = [nbformat.read(file, as_version=4) for file in files]
    return {tuple(cell.source for cell in one.cells if cell.cell_type == "code"): one for one in notebooks}


@pytest.mark.site
@pytest.mark.parametrize("path", CHAPTERS, ids=[path.stem for path in CHAPTERS])
def test_a_chapters_notebook_has_the_cells_that_the_book_executed_without_error(path, executed):
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    mine = executed.get(tuple(source.removeprefix(export_notebooks.SOLUTION) for source in code[1:]))
    assert mine is not None, "make book"
    assert [
        cell for cell in mine.cells if any(o.output_type == "error" for o in cell.get("outputs", []))
    ] == []


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", [path for path in PAGES if path not in CHAPTERS], ids=lambda path: path.stem)
def test_notebook_runs_in_a_fresh_kernel(path):
    # The install cell too: where companion is installed it must change nothing.
    run = [sys.executable, "-m", "jupyter", "execute", "--kernel_name=python3", path.with_suffix(".ipynb")]
    # A backend chosen for this process would keep figures out of the notebook, and it runs as a user's does.
    ours = {"MPLBACKEND", "JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"}
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(run, env=environment, cwd=path.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
