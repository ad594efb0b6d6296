"""Values glued into a page: what a page needs is the displayed output."""

import base64
import json
import re

import numpy as np
import pytest

from companion.interactive import _glue, embed, glue, packed, table


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
    assert "<caption><span>Of two.</span></caption>" in page
    assert '<th scope="col">a &lt; b</th>' in page
    assert '<tr><th scope="row">one</th><td>−0.5</td></tr>' in page
    assert "<td>1×10⁻³</td>" in page
    table(
        ["FC-1", ""], [["CIFAR-10", "0.5 [−0, 12%]"], ["", "a long cell of words and 1 number"]], caption=""
    )
    page = shown[1].data
    assert '<th scope="col"><span class="w">FC-1</span></th>' in page
    assert '<span class="w">CIFAR-10</span></th><td>0.5\u00a0[0,\u00a012\u00a0%]</td>' in page
    assert '<td class="l">a long cell of words and 1 number</td>' in page


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2 entries as the header, got 1"):
        table(["", "a"], [["one"]], caption="")


def test_arrays_reach_a_page_as_little_endian_bytes_in_c_order(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    matrix = np.asfortranarray(np.array([[1.5, -2.0], [0.25, 8.0]], ">f4"))
    values = {"matrix": matrix, "text": "</script>", "list": [1, 2.5]}
    monkeypatch.setenv("COMPANION_PAGE", "1")
    embed("some-data", values)
    assert capsys.readouterr().out == ""
    (text,) = re.findall('<script type="application/json" id="some-data">(.*)</script>$', shown[0].data)
    assert "</script>" not in text
    found = json.loads(text)
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(found["matrix"]), "<f4"), [1.5, -2, 0.25, 8])
    assert {name: found[name] for name in ("text", "list")} == {"text": "</script>", "list": [1, 2.5]}
    monkeypatch.delenv("COMPANION_PAGE")
    embed("some-data", values)
    assert capsys.readouterr().out.startswith("some-data: ")
    assert len(shown) == 1
    with pytest.raises(TypeError, match="arrays of numbers, got set"):
        embed("some-data", {"a": {1}})


def test_packed_images_come_back_and_others_are_refused():
    levels = np.random.default_rng(0).integers(0, 256, (3, 4, 5)) * (np.arange(5) > 2)
    found = packed(np.divide(levels, 255, dtype=np.float32))
    assert (found["count"], found["pixels"]) == (3, 20)
    back = np.zeros(60, int)
    back[np.unpackbits(found["mask"])[:60] == 1] = found["values"]
    np.testing.assert_array_equal(back.reshape(levels.shape), levels)
    with pytest.raises(ValueError, match="bytes b"):
        packed(np.full((1, 2), 0.3, np.float32))
    with pytest.raises(ValueError, match="must lie in the bounds"):
        packed(np.full((1, 2), 2.0, np.float32))
