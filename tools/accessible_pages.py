"""Sphinx extension: mend in the built pages what the theme and docutils get wrong for assistive technology.

Each replacement names the axe-core rule that asks for it; tools/check_browser.py finds what is left. Scripts
that the theme always loads and this book does not need go too: Thebe, which is there twice, and fails; and
Font Awesome's, 1.5 MB before anything is shown, which draws the icons that its fonts have drawn already.
"""

import re
import shutil
from pathlib import Path

ICONS = "vendor/fontawesome/[0-9.]+/js"
MENDS = (
    # summary-name: the arrow of the navigation has no text.
    (re.compile(r'<summary>(?=<span class="toctree-toggle")'), '<summary aria-label="Show the pages below">'),
    # label-content-name-mismatch: the name hides the text that is shown, "Show code cell source".
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    # aria-deprecated-role, aria-required-children: an entry of a list.
    (re.compile(r' role="doc-biblioentry"'), ' role="listitem"'),
    # An icon says nothing: what it is in has a name.
    (re.compile(r'<i class="(?=[^"]*\bfa-)'), '<i aria-hidden="true" class="'),
    (re.compile(rf'\s*<script src="[^"]*/{ICONS}/[^"]*"></script>'), ""),
)


def mended(html: str) -> str:
    """Return a page with every replacement made; a second time changes nothing."""
    for pattern, replacement in MENDS:
        html = pattern.sub(replacement, html)
    return html


def drop_thebe(_app, _page, _template, context, _doctree) -> None:
    """Leave Thebe's scripts and style out of a page."""
    for key in ("script_files", "css_files"):
        if key in context:
            context[key][:] = [asset for asset in context[key] if not is_thebe(asset)]


def is_thebe(asset) -> bool:
    """Say whether a script or a style belongs to Thebe."""
    body = getattr(asset, "attributes", {}).get("body") or ""
    return "thebe" in str(getattr(asset, "filename", asset) or "").lower() or "THEBE_JS_URL" in body


def mend(app, error) -> None:
    """Mend every page that was written."""
    if error is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        html = path.read_text("utf8")
        better = mended(html)
        if better != html:
            path.write_text(better, "utf8")
    for folder in (Path(app.outdir) / "_static").glob("vendor/fontawesome/*/js"):
        shutil.rmtree(folder)


def setup(app):
    """Register with Sphinx."""
    app.connect("html-page-context", drop_thebe, priority=999)
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True}
