"""The chapters' figures draw what they are given: lines and points are the arrays, legends name them."""

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from companion import figures, interactive
from companion.interactive._frames import Frame
from companion.plots import COLORS

RNG = np.random.default_rng(0)
TIMES = np.array([0.1, 1.0, 10.0])
IMAGES = RNG.uniform(size=(4, 5, 5, 1))


@pytest.fixture(autouse=True)
def plain_settings():
    with mpl.rc_context():
        yield


@pytest.fixture
def made(monkeypatch):
    """What a player is made of: its functions `draw` and `alt` and its settings; no frame is drawn."""
    found = {}

    def kept(draw, parameters, **settings):
        found.update(draw=draw, parameters=parameters, **settings)
        return interactive.Player(widgets.HTML(), (), Frame(b"", "none", (1, 1), 1))

    for module in vars(figures).values():
        if hasattr(module, "explore"):
            monkeypatch.setattr(module, "explore", kept)
    return found


def drawn(ax):
    """The lines of an axes with their labels: (label or None, x, y)."""
    lines = [(line.get_label(), *np.asarray(line.get_data())) for line in ax.lines]
    return [(None if name.startswith("_") else name, x, y) for name, x, y in lines]


def named(ax):
    return {name: (x, y) for name, x, y in drawn(ax) if name}


def is_narrow(figure):
    return isinstance(figure, Figure) and figure.get_figwidth() == 5.0


def test_the_road_is_drawn_twice_the_second_time_sooner():
    accuracy = RNG.uniform(size=(3, 2))
    figure = figures.overfitting.road(TIMES, accuracy, np.array([1.0, 0.5, 0.1]), factor=10)
    ax, fade = figure.axes
    lines = named(ax)
    assert set(lines) == {"plain, clean", "plain, under PGD", "adversarial, clean", "adversarial, under PGD"}
    np.testing.assert_allclose(lines["plain, under PGD"], (TIMES, accuracy[:, 1]))
    np.testing.assert_allclose(lines["adversarial, clean"], (TIMES / 10, accuracy[:, 0]))
    np.testing.assert_allclose(named(fade)["adversarial"], (TIMES / 10, [1.0, 0.5, 0.1]))
    assert is_narrow(figure)


def test_one_clock_moves_the_curve_and_says_where_it_passes(made):
    places, inputs, labels = np.array([-1.0, 0.0, 1.0]), np.array([-1.0, 1.0]), np.array([1.0, -1.0])
    curves = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, -0.5]])
    figures.overfitting.one_clock([0.0, 9.0], places, curves, inputs, labels, square=1, others=3.0)
    (ax,) = made["draw"](clock=9.0).axes
    np.testing.assert_allclose(drawn(ax)[1][1:], (places, curves[1]))
    assert named(ax)["clock 9"] == (1.0, -1.0)
    assert named(ax)["clock 3"] == (-1.0, 1.0)
    assert made["alt"](clock=0.0) == "Clock 0: the curve passes +0.50 at the wrong label."


def test_one_digit_has_its_margins_and_the_slope_of_the_time(made):
    margins, slopes = RNG.normal(size=(3, 2)), RNG.normal(size=(3, 5, 5, 1))
    kind = {"label": 4, "rival": 9, "start": 1}
    figures.overfitting.one_digit(TIMES, margins, slopes, IMAGES[0], **kind)
    ax, digit, slope = made["draw"](t=10.0).axes
    np.testing.assert_allclose(named(ax)["under PGD"], (TIMES, margins[:, 1]))
    np.testing.assert_allclose(drawn(ax)[2][1:], ([10.0, 10.0], margins[2]))
    np.testing.assert_allclose(slope.images[0].get_array(), slopes[2, ..., 0])
    assert (digit.get_title(), slope.get_title()) == ("a 4", "toward 9")
    assert made["start"] == {"t": 1.0}


def test_learned_clocks_show_the_images_of_either_end():
    clocks = {"from 0": np.array([0.0, 3.0, 1.0, 2.0]), "other": np.ones(4)}
    labels = np.array([0, 1, 1, 2])
    figure = figures.overfitting.learned_clocks(clocks, IMAGES, labels, best=1.5, each=2)
    first, boxes, *small = figure.axes
    assert [text.get_text() for text in first.get_legend().get_texts()] == [
        "from 0",
        "other",
        "best single time",
    ]
    assert [ax.get_title() for ax in small] == ["0: 0.0", "1: 1.0", "2: 2.0", "1: 3.0"]
    np.testing.assert_allclose(small[3].images[0].get_array(), IMAGES[1, ..., 0])
    medians = [line.get_ydata()[0] for line in boxes.lines if line.get_color() == "C1"]
    assert medians[1] == 2.0  # of the clocks 3 and 1


def test_recorded_roads_have_a_thin_line_a_split_and_their_mean():
    curves = {
        "a": RNG.uniform(size=(2, 3, 2)),
        "b": RNG.uniform(size=(1, 3, 2)),
        "c": RNG.uniform(size=(1, 3, 2)),
    }
    figure = figures.overfitting.recorded_roads(TIMES, curves, {"a": 0.3})
    one, two, _, empty = figure.axes
    assert (one.get_title(), two.get_title()) == ("a", "b")
    np.testing.assert_allclose(named(one)["under PGD"][1], curves["a"][..., 1].mean(axis=0))
    assert len(one.lines) == 2 * (2 + 1) + 1
    assert len(two.lines) == 2 * (1 + 1)
    assert set(named(one)["clocks, under PGD"][1]) == {0.3}
    assert not empty.axison
    assert one.lines[-1].get_color() == COLORS["network"]


def test_a_figures_player_is_one_of_companion_interactive():
    assert figures.overfitting.explore is interactive.explore
