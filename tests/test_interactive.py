import base64
import gzip
import io
import json
import re
import subprocess
import sys

import ipywidgets as widgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from refusals import assert_refused

from companion import interactive

# ipywidgets 7 makes its channels the way that ipykernel 7 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:The `ipykernel.comm.Comm` class:DeprecationWarning")

X = np.linspace(0, 1, 50)


def draw(t, eps=0.0):
    figure, ax = plt.subplots(figsize=(3, 2))
    ax.plot(X, eps + np.sin(X * t))
    ax.set(ylim=(-1, 2), title=f"{t}, {eps}")
    return figure


def say(t, eps=0.0):
    return f"a wave at {t}, {eps}"


def player(parameters=None, **options):
    return interactive.explore(draw, parameters or {"t": [1, 2, 3]}, **({"alt": say} | options))


def walk(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


def find(root, kind):
    return [widget for widget in walk(root) if isinstance(widget, kind)]


def alt_of(widget):
    return re.search(r'alt="([^"]*)"', widget.value)[1]


def shown(root):
    """The alt text of the picture that is seen: down the selected children, as the browser goes."""
    if not hasattr(root, "children"):
        return alt_of(root) if isinstance(root, widgets.HTML) and "<img" in root.value else None
    chosen = getattr(root, "selected_index", None)
    visible = root.children if chosen is None else [root.children[chosen]]
    return next(filter(None, map(shown, visible)), None)


def links_of(model):
    """Every browser-side link whose source is this widget's trait: (trait, target, target's trait)."""
    registry = getattr(widgets.widget, "_instances", None)  # ipywidgets 8, and 7 below
    registry = widgets.Widget.widgets if registry is None else registry
    links = [w for w in registry.values() if type(w).__name__ == "Link" and w.source[0] is model]
    return [(link.source[1], link.target[0], link.target[1]) for link in links]


def follow(model, trait, value):
    """Set a trait and do what the browser does: pass it along the links."""
    setattr(model, trait, value)
    for source, target, name in links_of(model):
        if source == trait:
            follow(target, name, value)


with_stack = pytest.mark.skipif(not hasattr(widgets, "Stack"), reason="ipywidgets 7 has no Stack")


@pytest.fixture(params=[pytest.param("browser", marks=with_stack), "python"])
def mode(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setitem(sys.modules, "google.colab", type(sys)("google.colab"))
    return request.param


@pytest.mark.usefixtures("mode")
def test_one_slider_moves_the_picture_through_every_frame():
    made = player({"t": [1, 2, 3]}, start={"t": 2}, labels={"t": "time t"})
    (slider,) = find(made.widget, widgets.SelectionSlider)
    assert slider.description == "time t"
    assert shown(made.widget) == "a wave at 2, 0.0"
    for i in (0, 2, 1):
        follow(slider, "index", i)
        assert shown(made.widget) == f"a wave at {i + 1}, 0.0"


@pytest.mark.usefixtures("mode")
def test_play_moves_the_slider():
    made = player({"t": [1, 2, 3]}, start={"t": 2}, interval=250)
    (play,) = find(made.widget, widgets.Play)
    assert (play.min, play.max, play.value, play.interval) == (0, 2, 1, 250)
    follow(play, "value", 2)
    assert shown(made.widget) == "a wave at 3, 0.0"


@pytest.mark.usefixtures("mode")
def test_two_sliders_reach_every_frame():
    made = player({"t": [1, 2], "eps": [0.0, 0.5, 1.0]}, start={"eps": 0.5})
    first, second = find(made.widget, widgets.SelectionSlider)
    assert find(made.widget, widgets.Play) == []
    assert shown(made.widget) == "a wave at 1, 0.5"
    for i, j in [(1, 0), (0, 0), (0, 2), (1, 1)]:
        follow(second, "index", j)
        follow(first, "index", i)
        assert shown(made.widget) == f"a wave at {i + 1}, {j / 2}"


@with_stack
def test_without_a_kernel_nothing_listens_in_python():
    made = player()
    assert len(find(made.widget, widgets.Stack)) == 1
    (slider,) = find(made.widget, widgets.SelectionSlider)
    slider.index = 1  # no link is followed here, as no browser is
    assert shown(made.widget) == "a wave at 1, 0.0"


def test_values_are_written_as_asked():
    (slider,) = find(player({"t": [0.1 + 0.2, 100000.0]}).widget, widgets.SelectionSlider)
    assert [text for text, _ in slider.options] == ["0.3", "100000"]
    made = player({"t": [1, 2], "eps": [0.0, 0.5]}, fmt={"t": "2^{}".format})
    assert [s.options[1][0] for s in find(made.widget, widgets.SelectionSlider)] == ["2^2", "0.5"]


def test_frames_are_small_palette_pictures_of_the_figure():
    made = player(colors=16, dpi=100)
    for frame in made.frames:
        picture = Image.open(io.BytesIO(frame.png))
        assert (picture.mode, picture.size) == ("P", (300, 200))
        assert len(picture.getcolors()) <= 16
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        data = re.search(r'src="data:image/png;base64,([^"]+)"', frame.html())[1]
        assert base64.b64decode(data) == frame.png
        assert 'width="300" height="200"' in frame.html()
        assert "max-width:288px" in frame.html()  # 3 inches of 96
    assert len({frame.png for frame in made.frames}) == 3
    assert made.nbytes == sum(len(frame.html()) for frame in made.frames)


def test_64_colors_change_a_plot_by_little():
    figure = draw(3.0)
    raw = io.BytesIO()
    figure.savefig(raw, dpi=110)
    (frame, *_) = player({"t": [3.0, 4.0]}).frames
    before, after = (np.asarray(Image.open(b).convert("RGB"), int) for b in (raw, io.BytesIO(frame.png)))
    assert np.abs(before - after).max() <= 32
    assert np.sqrt(((before - after) ** 2).mean()) < 2
    plt.close(figure)


def test_the_same_call_gives_the_same_bytes():
    assert [f.png for f in player().frames] == [f.png for f in player().frames]


def test_figures_are_closed_and_settings_kept():
    before, open_before = dict(mpl.rcParams), plt.get_fignums()
    with mpl.rc_context({"savefig.bbox": "tight", "savefig.transparent": True}):
        made = player(dpi=100)
    assert made.poster.size == (300, 200)
    assert Image.open(io.BytesIO(made.poster.png)).convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert plt.get_fignums() == open_before
    assert dict(mpl.rcParams) == before


def test_alt_texts_are_escaped():
    made = player(alt=lambda t: f'the "kernel" <{t}> & more')
    assert 'alt="the &quot;kernel&quot; &lt;1&gt; &amp; more"' in made.frames[0].html()


def test_the_bundle_has_the_widget_and_a_poster():
    made = player(start={"t": 3})
    bundle = made._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == made.widget.model_id
    assert bundle["image/png"] == made.frames[2].png
    assert bundle["text/plain"] == "a wave at 3, 0.0"


def test_colab_is_offered_the_widget_only(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", type(sys)("google.colab"))
    assert not {"image/png", "text/html"} & set(player()._repr_mimebundle_())


def test_a_page_gets_player_and_still_in_one_piece_for_one_caption(monkeypatch):
    sent = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: sent.append(data))
    made = player()
    made._ipython_display_()
    (bundle,) = sent
    page = re.fullmatch(r"<script type=.*?>(.*)</script><noscript>(.*)</noscript>", bundle["text/html"])
    assert json.loads(page[1])["model_id"] == made.widget.model_id
    assert page[2] == made.poster.html()


def test_frames_of_lines_stay_light():
    def lines(t):
        figure, ax = plt.subplots(figsize=(6.5, 3.4))
        for k in range(1, 4):
            ax.plot(X, np.sin(k * (1 + t / 10) * X), label=f"k = {k}")
        ax.set(xlim=(0, 1), ylim=(-1, 1), xlabel="x", ylabel="f(x)")
        ax.legend(loc="lower left")
        return figure

    # A tenth of what a page of thirty such frames may weigh, for three of them.
    made = interactive.explore(lines, {"t": range(3)}, alt=lambda t: f"three waves at {t}")
    packed = len(gzip.compress("".join(frame.html() for frame in made.frames).encode()))
    assert made.nbytes < 60_000
    assert packed < 45_000


def test_bad_input_is_named():
    assert_refused(
        [
            ({"parameters": {"t": range(31)}}, r"parameters: got 31 frames \(t: 31\); want at most 30"),
            ({"parameters": {"t": range(6), "eps": range(6)}}, r"got 36 frames \(t: 6 x eps: 6\)"),
            (
                {"parameters": {"t": [1], "eps": [1, 2]}},
                "parameters: got t: 1 x eps: 2; want two values or more",
            ),
            ({"parameters": {"t": [1, 2], "a": [1, 2], "b": [1, 2]}}, "parameters: got 3"),
            ({"alt": lambda t: " "}, "alt: got ' ' at {'t': 1}"),
            ({"labels": {"time": "t"}}, r"labels: got \['time'\]"),
            ({"start": {"time": 1}}, r"start: got \['time'\]"),
            ({"start": {"t": 9}}, r"start: got t = 9; want one of \[1, 2, 3\]"),
            ({"fmt": "{:.0f}".format, "parameters": {"t": [1.1, 1.2]}}, "fmt: got the same text"),
            ({"colors": 1}, "colors: got 1"),
            ({"max_bytes": 5000}, r"parameters: got 3 frames of [\d,]+ bytes together.*max_bytes = 5,000"),
        ],
        ValueError,
        run=lambda options: player(**options),
    )
    assert plt.get_fignums() == []


def test_no_parameter_is_refused():
    with pytest.raises(ValueError, match="parameters: got 0"):
        interactive.explore(draw, {}, alt=say)


def test_figures_of_several_sizes_are_refused():
    with pytest.raises(
        ValueError, match=r"draw: got frames of several sizes in pixels, \(220, 110\) at {'t': 2}"
    ):
        interactive.explore(lambda t: Figure(figsize=(t, 1)), {"t": [1, 2]}, alt=say)


@pytest.mark.usefixtures("as_users_run")
def test_arguments_of_the_wrong_kind_are_named():
    def run(changed):
        arguments = {"draw": lambda t: None, "parameters": {"t": [1, 2]}, "alt": say} | changed
        interactive.explore(arguments.pop("draw"), arguments.pop("parameters"), **arguments)

    assert_refused(
        [
            ({"alt": "a line"}, TypeError, "alt: got 'a line'; want a function"),
            ({"draw": 3}, TypeError, "draw: got 3; want a function"),
            ({"parameters": [("t", [1, 2])]}, TypeError, "parameters: got .* want a mapping"),
            ({"parameters": {"t": 5}}, TypeError, "parameters: got .* want a mapping"),
            ({"fmt": {"tt": str}}, ValueError, r"fmt: got \['tt'\]"),
            ({"interval": 0}, ValueError, "interval: got 0; want milliseconds, more than 0"),
        ],
        run=run,
    )


def test_draw_must_return_a_figure():
    with pytest.raises(TypeError, match=r"draw: got NoneType at {'t': 1}"):
        interactive.explore(lambda t: None, {"t": [1, 2]}, alt=say)


def test_import_loads_no_other_floor():
    code = (
        "import sys; import companion.interactive, companion.plots; "
        "rooms = {m.split('.')[1] for m in sys.modules if m.startswith('companion.')}; "
        "print(sorted(rooms), 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['_core', 'interactive', 'plots'] False"
