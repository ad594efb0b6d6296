"""Sphinx extension: serve the book's JavaScript itself where it was fetched, and offer Colab's notebooks.

With `.cache/vendor` complete (tools/vendor_js.py) no page asks another machine for anything; without it
MathJax and the slider player come from a content network, the same versions, checked by the browser.
"""

import shutil
from pathlib import Path

import vendor_js

INTEGRITY = {
    "mathjax": "sha384-AHAnt9ZhGeHIrydA1Kp1L7FN+2UosbF7RQg6C+9Is/a7kDpQ1684C2iH2VWil6r4",
    "widgets": "sha384-BhIlHV0bCNC00G3UVIEIJKhEHXPQXX90znOSkFJNUoe/L1UByfxdu2lxB3Kdgrpu",
}


def choose_addresses(_app, config) -> None:
    """Set where pages find MathJax and the player of ipywidgets."""
    mathjax, widgets = vendor_js.MATHJAX, vendor_js.WIDGETS
    if vendor_js.is_here(mathjax):
        config.mathjax_path = "vendor/mathjax/tex-chtml.js"
    else:
        config.mathjax_path = f"{vendor_js.CDN}{mathjax.name}@{mathjax.version}/es5/tex-chtml.js"
        config.mathjax_options = {"integrity": INTEGRITY["mathjax"], "crossorigin": "anonymous"}
    if vendor_js.is_here(widgets):
        config.nb_ipywidgets_js = {"vendor/widgets/embed.js": {"defer": "defer"}}
    else:
        address = f"{vendor_js.CDN}{widgets.name}@{widgets.version}/dist/embed.js"
        check = {"integrity": INTEGRITY["widgets"], "crossorigin": "anonymous"}
        config.nb_ipywidgets_js = {address: {"defer": "defer"} | check}
    if vendor_js.STATIC.exists():
        config.html_static_path = [*config.html_static_path, str(vendor_js.STATIC)]


def offer_notebooks(app, error) -> None:
    """Let the download button give the plain notebook that Colab opens, not one full of directives."""
    if error is None and app.builder.format == "html":
        for notebook in sorted((Path(app.srcdir) / "book").glob("*.ipynb")):
            target = Path(app.outdir) / "_sources" / "book" / notebook.name
            if target.exists():
                shutil.copyfile(notebook, target)


def setup(app):
    """Register with Sphinx."""
    app.connect("config-inited", choose_addresses)
    app.connect("build-finished", offer_notebooks)
    return {"parallel_read_safe": True}
