"""Sphinx extension: what the API pages need beside autodoc.

Links to other projects' manuals without a network: Sphinx would fetch each project's whole inventory. The
few names that our signatures use are listed here, and written as small inventories into
`_build/inventories`; a new name is one line. And the docstrings' last lines (Cost, Source) apart, and a
line on what examples start from.
"""

import re
import zlib
from pathlib import Path

from sphinx.ext import intersphinx

# project: (address of its manual, ((name, role, page), ...)); "$" in a page stands for the name.
MANUALS = {
    "python": (
        "https://docs.python.org/3/",
        (
            ("collections.abc.Callable", "py:class", "library/collections.abc.html#$"),
            ("collections.abc.Iterable", "py:class", "library/collections.abc.html#$"),
            ("collections.abc.Iterator", "py:class", "library/collections.abc.html#$"),
            ("collections.abc.Mapping", "py:class", "library/collections.abc.html#$"),
            ("collections.abc.Sequence", "py:class", "library/collections.abc.html#$"),
            ("concurrent.futures.Executor", "py:class", "library/concurrent.futures.html#$"),
            ("os.PathLike", "py:class", "library/os.html#$"),
            ("pathlib.Path", "py:class", "library/pathlib.html#$"),
        ),
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        (
            ("numpy.ndarray", "py:class", "reference/generated/numpy.ndarray.html#$"),
            ("numpy.generic", "py:class", "reference/arrays.scalars.html#$"),
            ("numpy.random.Generator", "py:class", "reference/random/generator.html#$"),
        ),
    ),
    "jax": (
        "https://docs.jax.dev/en/latest/",
        (
            ("jax.Array", "py:class", "_autosummary/jax.Array.html#$"),
            ("jax.jit", "py:function", "_autosummary/jax.jit.html#$"),
            ("jax.tree_util.Partial", "py:class", "_autosummary/jax.tree_util.Partial.html#$"),
        ),
    ),
    "flax": (
        "https://flax-linen.readthedocs.io/en/latest/",
        (("flax.linen.Module", "py:class", "api_reference/flax.linen/module.html#$"),),
    ),
    "optax": (
        "https://optax.readthedocs.io/en/latest/",
        (("optax.GradientTransformation", "py:class", "api/transformations.html#$"),),
    ),
    "matplotlib": (
        "https://matplotlib.org/stable/",
        (
            ("matplotlib.axes.Axes", "py:class", "api/_as_gen/matplotlib.axes.Axes.html#$"),
            ("matplotlib.figure.Figure", "py:class", "api/_as_gen/matplotlib.figure.Figure.html#$"),
        ),
    ),
    "ipywidgets": (
        "https://ipywidgets.readthedocs.io/en/stable/",
        (("ipywidgets.Widget", "py:class", "examples/Widget%20List.html"),),
    ),
}
# Classes whose public name is not where Python says they live, or that jaxtyping prints without a module.
ALIASES = {
    "ndarray": "numpy.ndarray",
    "Array": "jax.Array",
    "Path": "pathlib.Path",
    "pathlib._local.Path": "pathlib.Path",
    "jaxlib._jax.Array": "jax.Array",
    "jax.jaxlib._jax.Array": "jax.Array",
    "concurrent.futures._base.Executor": "concurrent.futures.Executor",
    "flax.linen.module.Module": "flax.linen.Module",
    "optax._src.base.GradientTransformation": "optax.GradientTransformation",
    "matplotlib.axes._axes.Axes": "matplotlib.axes.Axes",
    "ipywidgets.widgets.widget.Widget": "ipywidgets.Widget",
}
# Sphinx looks for these as for names: shapes such as 'n d', jaxtyping's own types, which have no manual to
# link to, and types of our private modules. They stay plain text.
NO_NAME = re.compile(
    r".*['\" ].*|jaxtyping\..*|Float|Float32|Float64|Int|Int32|Bool|UInt8|companion\.(\w+\.)?_.*"
)
# A name of ours where it is defined; the pages have it where it is imported from.
INSIDE = re.compile(r"(companion\.\w+)\._\w+\.(\w+)")
NOTE = re.compile(r"(?:Cost|Source|Sources|Chapter|Precision|Shape|Memory): \S")


def inventory(project: str, rows) -> bytes:
    """Return an inventory file, version 2, that holds the rows (name, role, page)."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    body = "".join(f"{name} {role} 1 {page} -\n" for name, role, page in rows)
    return head.encode() + zlib.compress(body.encode(), 9)


def write(app, config) -> None:
    """Write the inventories and tell intersphinx where they are."""
    folder = Path(app.outdir).parent / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    for project, (address, rows) in MANUALS.items():
        path = folder / f"{project}.inv"
        path.write_bytes(inventory(project, rows))
        config.intersphinx_mapping[project] = (address, str(path))


def resolve(app, env, node, contnode):
    """Resolve what Sphinx found nowhere: an alias, or a shape, which stays plain text."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    if target in ALIASES:
        node["reftarget"] = ALIASES[target]
        return intersphinx.missing_reference(app, env, node, contnode)
    if inside := INSIDE.fullmatch(target):
        public, role = ".".join(inside.groups()), node.get("reftype")
        domain, page = env.get_domain("py"), node.get("refdoc", env.docname)
        if found := domain.resolve_xref(env, page, app.builder, role, public, node, contnode):
            return found
    return contnode if NO_NAME.fullmatch(target) else None


def introduce(_app, what, name, obj, _options, lines) -> None:
    """Say at the top of a page with examples what they start from."""
    members = (getattr(obj, one).__doc__ or "" for one in getattr(obj, "__all__", ()))
    if what == "module" and any(">>>" in text for text in members):
        lines += [
            "",
            "Examples (``>>>``) start after ``import jax``, ``import jax.numpy as jnp``, "
            f"``import numpy as np`` and ``from {name} import *``.",
            "",
        ]


def separate(_app, _what, _name, _obj, _options, lines) -> None:
    """Give the docstrings' one-line notes, such as "Cost: O(n³).", each a paragraph."""
    for number in range(len(lines) - 1, 0, -1):
        if NOTE.match(lines[number]) and lines[number - 1].strip():
            lines.insert(number, "")


def setup(app):
    """Register with Sphinx, ahead of intersphinx, which reads its setting in the same event."""
    app.connect("config-inited", write, priority=100)
    app.connect("missing-reference", resolve, priority=900)
    app.connect("autodoc-process-docstring", separate, priority=900)
    app.connect("autodoc-process-docstring", introduce, priority=950)
    return {"parallel_read_safe": True}
