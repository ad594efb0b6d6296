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


def attack_curves(size=3):
    return {
        name: np.sort(RNG.uniform(size=(size, 3)))[:, [1, 0, 2]] for name in ("random", "pgd_long", "fgsm")
    }


def middles(ax):
    """Points that have bars, by label."""
    return {bars.get_label(): np.asarray(bars.lines[0].get_data()) for bars in ax.containers}


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def test_fooled_digits_have_clean_perturbation_attacked_and_control_rows():
    versions = {"clean": IMAGES, "attacked": IMAGES[::-1], "random": IMAGES}
    outputs = {name: np.arange(4.0) - i for i, name in enumerate(versions)}
    figure = figures.attacks.fooled_digits(versions, outputs, eps=0.5)
    assert titles(figure)[:4] == ["clean: +0.0", "clean: +1.0", "clean: +2.0", "clean: +3.0"]
    assert titles(figure)[8] == "attacked: -1.0"
    np.testing.assert_allclose(figure.axes[4].images[0].get_array(), (IMAGES[3] - IMAGES[0])[..., 0])
    assert figure.axes[4].images[0].get_clim() == (-0.5, 0.5)


def test_losses_are_lines_and_outputs_a_histogram():
    values = {name: RNG.normal(size=3) for name in ("margin", "cross-entropy", "squared")}
    ax, histogram = figures.attacks.losses(TIMES, values, np.array([0.5, 1.5, 1.6])).axes
    assert named(ax).keys() == values.keys()
    np.testing.assert_allclose(named(ax)["squared"], (TIMES, values["squared"]))
    assert sum(bar.get_height() for bar in histogram.patches) == 3


def test_accuracy_against_eps_and_along_training():
    tasks = {"one": attack_curves(), "two": attack_curves()}
    figure = figures.attacks.against_eps([0, 0.1, 0.2], tasks)
    assert titles(figure) == ["one", "two"]
    found = middles(figure.axes[1])
    assert set(found) == {"random signs", "PGD, 40 steps", "FGSM, 1 step"}
    np.testing.assert_allclose(found["FGSM, 1 step"], ([0, 0.1, 0.2], tasks["two"]["fgsm"][:, 0]))
    paths = {"digits": {"FC-1": RNG.uniform(size=(3, 2)), "FC-5": RNG.uniform(size=(3, 2))}}
    (ax,) = figures.attacks.along_training(paths).axes
    np.testing.assert_allclose(named(ax)["FC-5"], paths["digits"]["FC-5"].T)
    assert len(ax.lines) == 4


def test_players_of_attacks_show_the_moment_of_the_slider(made):
    accuracy = {name: np.sort(RNG.uniform(size=(3, 3)))[:, [1, 0, 2]] for name in ("clean", "PGD")}
    attacked, scores = RNG.uniform(size=(3, 5, 5, 1)), RNG.normal(size=(3, 2))
    figures.attacks.along_time(TIMES, accuracy, IMAGES[0], attacked, scores, eps=0.2, start=1)
    ax, before, change, after = made["draw"](t=10.0).axes
    np.testing.assert_allclose(named(ax)["PGD"], (TIMES, accuracy["PGD"][:, 0]))
    np.testing.assert_allclose(change.images[0].get_array(), (attacked[2] - IMAGES[0])[..., 0])
    assert (before.get_title(), after.get_title()) == tuple(f"f = {score:+.2f}" for score in scores[2])
    outputs = {"kernel": [0.5, -1.0], "network": [0.25, 2.0]}
    figures.attacks.one_perturbation([0.0, 0.1], outputs, IMAGES[0], attacked[:2], start=0.0)
    assert named(made["draw"](size=0.1).axes[0])["network"][1].tolist() == [0.25, 2.0]
    assert (
        made["alt"](size=0.1) == "At ε = 0.1 the kernel gives -1.00 and the network +2.00 to the digit shown."
    )


def test_transfer_draws_means_and_bands_over_seeds(made):
    success, cosine = RNG.uniform(size=(3, 2, 3)), RNG.uniform(size=(3, 2))
    ax, below = figures.transfer.over_width([32, 64], success, cosine, title="ε = 1").axes
    assert set(named(ax)) == {"the kernel's", "white-box PGD", "random signs"}
    np.testing.assert_allclose(named(ax)["the kernel's"], ([32, 64], success[..., 0].mean(axis=0)))
    np.testing.assert_allclose(named(below)["cosine of gradients"][1], cosine.mean(axis=0))
    ax, below = figures.transfer.laziness([0.1, 1.0], success, cosine, 2 * cosine, title="").axes
    np.testing.assert_allclose(named(below)["motion of the kernel"][1], cosine.mean(axis=0))
    np.testing.assert_allclose(named(ax)["white-box PGD"][1], success[..., 1].mean(axis=0))
    levels = RNG.uniform(size=(3, 2, 2, 3))
    figures.transfer.while_training([0.5, 0.1], [32, 64], levels)
    (ax,) = made["draw"](width=64).axes
    np.testing.assert_allclose(named(ax)["the kernel's"][1], levels[:, 1, :, 0].mean(axis=0))
    assert ax.get_xlim()[0] > ax.get_xlim()[1]  # training goes right
    first, last = levels[:, 1, :, 0].mean(axis=0)
    assert f"from {first:.2f} at the first level to {last:.2f} at the last" in made["alt"](width=64)


def test_recorded_attacks_have_a_panel_for_each_part():
    curves, success = attack_curves(), {"residual 0.5": RNG.uniform(size=(3, 2, 3))}
    depths = {"FC-1": curves["pgd_long"], "FC-2": curves["fgsm"]}
    first, second, last = figures.transfer.recorded(TIMES, curves, depths, [32, 64], success).axes
    np.testing.assert_allclose(middles(first)["random signs"], (TIMES, curves["random"][:, 0]))
    np.testing.assert_allclose(middles(second)["FC-2"], (TIMES, curves["fgsm"][:, 0]))
    assert last.get_title() == "residual 0.5"
