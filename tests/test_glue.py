"""Values glued into a page: what a page needs is the displayed output."""

from companion.interactive import glue


def test_values_are_printed_and_stored(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    glue(slope="-0.50", count=3)
    assert capsys.readouterr().out == "slope = -0.50\ncount = 3\n"
    assert [k["metadata"]["scrapbook"]["name"] for _, k in shown] == ["slope", "count"]
    assert shown[1][0][0] == {"application/papermill.record/text/plain": "3"}
