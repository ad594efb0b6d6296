"""Values glued into a page: what a page needs is the displayed output."""

import pytest

from companion.interactive import _glue, glue, table


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ("-0.49 [-0.57, -0.40]", "−0.49 [−0.57, −0.40]"),
        ("3.4e-04", "3.4×10⁻⁴"),
        ("1e+12 of 2e3", "1×10¹² of 2e3"),
        ("FC-2, mnist-5 · 2026-11-22", "FC-2, mnist-5 · 2026-11-22"),
        ("commit 65e-4a", "commit 65e-4a"),
    ],
)
def test_numbers_are_typeset(given, printed):
    assert _glue.typeset(given) == printed


def test_values_are_printed_and_stored(monkeypatch, capsys):
    monkeypatch.delenv("COMPANION_PAGE", raising=False)
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    glue(slope="-0.50", count=3)
    assert capsys.readouterr().out == "slope = −0.50\ncount = 3\n"
    assert [k["metadata"]["scrapbook"]["name"] for _, k in shown] == ["slope", "count"]
    assert shown[1][0][0] == {"application/papermill.record/text/plain": "'3'"}


def test_a_page_does_not_repeat_what_its_text_says(monkeypatch, capsys):
    monkeypatch.setenv("COMPANION_PAGE", "1")
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    glue(slope="-0.50")
    assert capsys.readouterr().out == ""


def test_a_table_has_a_caption_heads_and_escaped_typeset_entries(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    table(["", "a < b"], [["one", -0.5], ["two", "1e-3"]], caption="Of two.")
    page = shown[0].data
    assert "<caption>Of two.</caption>" in page
    assert '<th scope="col">a &lt; b</th>' in page
    assert '<tr><th scope="row">one</th><td>−0.5</td></tr>' in page
    assert "<td>1×10⁻³</td>" in page


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2 entries as the header, got 1"):
        table(["", "a"], [["one"]], caption="")
