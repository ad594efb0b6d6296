"""The chapters' figures draw what they are given: lines and points are the arrays, legends name them."""

import matplotlib as mpl
import numpy as np
import pytest
from drawings import drawn, is_narrow, middles, named, titles

from companion import figures, interactive
from companion.plots import COLORS

# ipywidgets 7 makes its channels the way that ipykernel 7 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `ipykernel.comm.Comm` class:DeprecationWarning"),
    pytest.mark.usefixtures("plain_settings"),
]

RNG = np.random.default_rng(0)
TIMES = np.array([0.1, 1.0, 10.0])
IMAGES = RNG.uniform(size=(4, 5, 5, 1))


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


def test_networks_stand_beside_the_kernel_and_its_limit():
    kernel, networks = RNG.uniform(size=(3, 2)), RNG.uniform(size=(2, 2, 2))
    figure = figures.overfitting.network_road(TIMES, kernel, TIMES[1:], networks, factor=10)
    attacked, clean = (named(ax) for ax in figure.axes)
    assert list(attacked) == ["kernel", "in the limit", "network, plain", "network, PGD"]
    np.testing.assert_allclose(attacked["in the limit"], (TIMES / 10, kernel[:, 1]))
    np.testing.assert_allclose(attacked["network, PGD"], (TIMES[1:], networks[1, :, 1]))
    np.testing.assert_allclose(clean["network, plain"], (TIMES[1:], networks[0, :, 0]))
    assert is_narrow(figure)


def test_recorded_roads_have_a_thin_line_a_split_and_their_mean():
    curves = {
        "a": RNG.uniform(size=(2, 3, 2)),
        "b": RNG.uniform(size=(1, 3, 2)),
        "c": RNG.uniform(size=(1, 3, 2)),
    }
    names = {f"{name}, pair, n = 2": curve for name, curve in curves.items()}
    floors = dict.fromkeys(names, 0.5)
    figure = figures.overfitting.recorded_roads(TIMES, names, {"a, pair, n = 2": 0.3}, floors)
    one, two, _, empty = figure.axes
    assert (one.get_title(), two.get_title()) == ("a, pair,\nn = 2", "b, pair,\nn = 2")
    np.testing.assert_allclose(named(one)["under PGD"][1], curves["a"][..., 1].mean(axis=0))
    assert len(one.lines) == 2 * (2 + 1) + 2
    assert len(two.lines) == 2 * (1 + 1) + 1
    assert set(named(two)["one class for all"][1]) == {0.5}
    assert set(named(one)["clocks, under PGD"][1]) == {0.3}
    assert not empty.axison
    assert one.lines[-2].get_color() == COLORS["network"]


def test_recorded_gains_stand_under_their_case_with_their_intervals():
    gains = {
        "clocks": np.array([[0.1, 0.0, 0.3], [np.nan] * 3]),
        "begun late": np.array([[0.2, 0.1, 0.3], [0.0, -0.1, 0.1]]),
        "dealt": np.array([[np.nan] * 3, [-0.1, -0.2, 0.1]]),
    }
    figure = figures.overfitting.recorded_gains(["one", "two"], gains)
    (ax,) = figure.axes
    assert is_narrow(figure)
    assert [text.get_text() for text in ax.texts] == ["one", "two"]
    points = middles(ax)
    assert [points[name].tolist() for name in gains] == [
        [[0.1], [0.0]],
        [[0.2, 0.0], [0.2, 1.2]],
        [[-0.1], [1.4]],
    ]
    (_, _, (bars,)) = ax.containers[0]
    np.testing.assert_allclose(bars.get_segments(), [[[0.0, 0.0], [0.3, 0.0]]])


def test_a_figures_player_is_one_of_companion_interactive():
    assert figures.overfitting.explore is interactive.explore


def attack_curves(size=3):
    return {
        name: np.sort(RNG.uniform(size=(size, 3)))[:, [1, 0, 2]] for name in ("random", "pgd_long", "fgsm")
    }


def test_fooled_digits_have_clean_perturbation_attacked_and_control_rows():
    versions = {"clean": IMAGES, "attacked": IMAGES[::-1], "random": IMAGES}
    outputs = {name: np.arange(4.0) - i for i, name in enumerate(versions)}
    figure = figures.attacks.fooled_digits(versions, outputs, eps=0.5)
    assert titles(figure)[:4] == ["clean: +0.0", "clean: +1.0", "clean: +2.0", "clean: +3.0"]
    assert titles(figure)[8] == "attacked: −1.0"
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
    curves = {"two": np.array([[0.9, 0.8, 1.0], [0.2, 0.1, 0.4]]), "one": np.zeros((2, 3))}
    figure = figures.attacks.against_eps([0, 0.1, 0.2], tasks, [0.0, 0.2], curves)
    for ax, title in zip(figure.axes, ("one", "two"), strict=True):
        np.testing.assert_allclose(named(ax)["smallest perturbations"], ([0, 0.2], curves[title][:, 0]))
    (band,) = (one for one in figure.axes[1].collections if len(one.get_paths()) == 1 and one.get_alpha())
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(6).tolist()}
    assert corners == {(0.0, 0.8), (0.0, 1.0), (0.2, 0.1), (0.2, 0.4)}
    lines = {one.get_label(): one.lines[0].get_linestyle() for one in figure.axes[1].containers}
    assert lines == {"random signs": ":", "PGD, 40 steps": "None", "FGSM, 1 step": "None"}
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
    assert (before.get_title(), after.get_title()) == tuple(
        f"f = {score:+.2f}".replace("-", "−") for score in scores[2]
    )
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


INDEX, MARKS = np.arange(4), {"majority": 0.5, "count": 100}


def test_a_linear_split_has_a_dot_a_direction_and_lines_where_it_is_used_up():
    useful, price = np.array([0.5, -0.1, 0.2]), np.array([1.0, 2.0, 3.0])
    sums = {"a": (0.6, 1.0), "b": (0.3, 9.0)}
    figure = figures.features.linear_split(useful, price, sums, eps=0.1, used_up=(0.01, 0.1))
    ax, below, _ = figure.axes
    np.testing.assert_allclose(named(ax)["usefulness"], ([1, 2, 3], [0.5, np.nan, 0.2]))
    np.testing.assert_allclose(below.collections[0].get_offsets(), np.stack([np.abs(useful), price], axis=1))
    assert named(below)["sum of b"] == (0.3, 9.0)
    # A ray of equal price per usefulness: bent on these axes, so drawn by many points.
    x, y = named(below)["used up at ε = 0.01"]
    np.testing.assert_allclose(y, 10 * np.asarray(x))
    assert len(x) == 20


def test_profiles_and_dots_are_those_given(made):
    rho, gamma, noisy = RNG.uniform(size=(3, 4))
    ax, below, _ = figures.features.one_by_one(INDEX, rho, gamma, noisy, **MARKS).axes
    np.testing.assert_allclose(named(ax)["under random signs"], (1 + INDEX, noisy))
    np.testing.assert_allclose(below.collections[0].get_offsets(), np.stack([rho, gamma], axis=1))
    figures.features.one_feature([1, 3], (INDEX, rho, gamma), IMAGES[:2], -IMAGES[:2], eps=0.1, **MARKS)
    ax, excited, attack = made["draw"](i=3).axes
    np.testing.assert_allclose(drawn(ax)[-1][1:], ([4, 4], [rho[3], gamma[3]]))
    np.testing.assert_allclose(attack.images[0].get_array(), -IMAGES[1, ..., 0])
    np.testing.assert_allclose(excited.images[0].get_array(), IMAGES[1, ..., 0])


def test_a_plane_has_a_square_a_point_and_the_frame_of_the_second_window():
    points, crossed = np.array([[0.0, 0.0], [0.5, 0.5]]), np.array([[True], [False]])
    windows = [(np.zeros(2), 1.0), (np.zeros(2), 0.2)]
    regions = np.zeros((2, 3, 3, 1), bool)
    kind = {"titles": ["feature 7"], "radius": 0.05}
    first, second = figures.features.boundaries(points, regions, crossed, windows, **kind).axes
    assert (len(first.patches), len(second.patches)) == (2 + 1, 1)
    assert second.patches[0].get_edgecolor()[:3] == mpl.colors.to_rgb(COLORS["adversarial"])
    assert first.get_title() == "feature 7"


def test_distances_have_fitted_slopes_and_quantiles():
    lengths = np.geomspace(1e-3, 1, 4)
    moved = {"ntk": np.sqrt(lengths)[:, None] * np.ones(3), "nngp": lengths[:, None] * np.ones(3)}
    needed = RNG.uniform(0.1, 1, (5, 4))
    ax, below = figures.features.distances(lengths, moved, needed, traveled=0.3, fitted=3).axes
    assert {"NTK, slope 0.50", "NNGP, slope 1.00"} <= set(named(ax))
    np.testing.assert_allclose(named(below)["needed to flip"][1], np.median(needed, axis=0))


def test_pairs_stand_three_in_a_row_with_their_signed_images_below():
    figure = figures.features.gallery([1, 5, 7, 9], RNG.uniform(size=(4, 2)), IMAGES, -IMAGES, limit=2.0)
    assert titles(figure)[0].startswith("feature 1\nρ 0.")
    assert titles(figure)[6].startswith("feature 9")
    np.testing.assert_allclose(figure.axes[9].images[0].get_array(), -IMAGES[3, ..., 0])
    labels = figures.kept_features.relabeled(IMAGES, -IMAGES, list("abcd"), eps=0.1)
    assert titles(labels)[:3] == ["a", "b", "c"]


def test_kept_features_draw_tops_trades_lessons_and_agreement(made):
    tops, top = np.array([1, 2]), np.sort(RNG.uniform(size=(2, 2, 3)))[..., [1, 0, 2]]
    curves = {name: RNG.uniform(size=(2, 2)) for name in ("top", "stopped", "without")}
    ax, below = figures.kept_features.first_features(tops, top, curves).axes
    np.testing.assert_allclose(middles(ax)["PGD"], (tops, top[:, 1, 0]))
    np.testing.assert_allclose(named(below)["early stopping"], curves["stopped"].T)
    figures.kept_features.one_k([1, 2], tops, top, IMAGES[:2], IMAGES[:2], np.ones((2, 2)), eps=1.0, start=2)
    assert made["draw"](k=2).axes[2].get_title() == "f: +1.00 to +1.00"
    taught = {name: top[:, 0] for name in ("attacked images", "random signs", "clean images")}
    (ax,) = figures.kept_features.lessons(["one", "two"], taught).axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["one", "two"]
    np.testing.assert_allclose(middles(ax)["random signs"], (top[:, 0, 0], [0, 1]))
    agree = {"spaces": {"FC-5": RNG.uniform(size=(3, 2)), "RBF": RNG.uniform(size=(3, 2))}}
    (ax,) = figures.kept_features.agreement([1, 10], agree).axes
    np.testing.assert_allclose(named(ax)["RBF"], ([1, 10], agree["spaces"]["RBF"].mean(axis=0)))


def test_recorded_features_have_three_panels_and_a_player_two(made):
    scores = {"index": INDEX, **dict(zip(("rho", "gamma", "noisy"), RNG.uniform(size=(3, 4)), strict=True))}
    tops, top = np.array([1, 2]), np.sort(RNG.uniform(size=(2, 2, 3)))[..., [1, 0, 2]]
    curves = {name: RNG.uniform(size=(2, 2)) for name in ("top", "stopped", "without")}
    ax, middle, below = figures.kept_features.recorded(scores, tops, top, curves, **MARKS).axes
    np.testing.assert_allclose(named(ax)["robustness γᵢ"], (1 + INDEX, scores["gamma"]))
    assert set(middles(middle)) == {"clean", "PGD"}
    assert len(below.lines) == 3
    figures.kept_features.each_kernel(["a"], [scores], [tops], [top], [(0.5, 100)])
    assert len(made["draw"](row=0).axes) == 2
    assert made["fmt"](0) == "a"


def test_structured_data_draw_a_line_a_seed_their_geometric_mean_and_the_window():
    strengths = {name: RNG.uniform(1, 9, size=(3, 2, 2)) for name in ("standard", "PGD")}
    accuracy = {name: np.sort(RNG.uniform(size=(3, 3)))[:, [1, 0, 2]] for name in figures.structured.TRAINED}
    kind = {"window": (0.1, 0.2)}
    figure = figures.structured.two_features([0, 5], strengths, [0, 0.1, 0.2], accuracy, **kind)
    ax, below = figure.axes
    lines = named(ax)
    assert len(ax.lines) == 2 * 2 * (3 + 1)
    expected = strengths["PGD"][:, :, 1].prod(axis=0) ** (1 / 3)
    np.testing.assert_allclose(lines["non-robust, PGD"], ([0, 5], expected))
    np.testing.assert_allclose(middles(below)["lazy, PGD"], ([0, 0.1, 0.2], accuracy["lazy, PGD"][:, 0]))
    (shaded,) = below.patches
    assert (shaded.get_x(), shaded.get_width()) == pytest.approx((0.1, 0.1))
    assert is_narrow(figure)
