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
def test_numbers_aretypeset(given, printed):
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


def test_a_table_is_html_with_caption_heads_and_typeset_numbers():
    shown = table("Gaps, n < 3", ["method", "gap"], [["FGSM", "-0.1"], ["PGD", 2]])._repr_html_()
    assert "<caption>Gaps, n &lt; 3</caption>" in shown
    assert shown.count('<th scope="col">') == 2
    assert (
        '<tr><th scope="row">FGSM</th><td>−0.1</td></tr><tr><th scope="row">PGD</th><td>2</td></tr>' in shown
    )


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"as long as heads, 2, got \[1\]"):
        table("", ["a", "b"], [["a"]])
