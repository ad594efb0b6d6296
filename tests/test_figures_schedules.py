"""Figures on saving time and on catastrophic overfitting: lines and points are the arrays given."""

import numpy as np
import pytest
from drawings import drawn, is_narrow, middles, named, titles
from matplotlib.colors import to_rgb

from companion import figures
from companion.plots import COLORS

# ipywidgets 7 makes its channels the way that ipykernel 7 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `ipykernel.comm.Comm` class:DeprecationWarning"),
    pytest.mark.usefixtures("plain_settings"),
]

RNG = np.random.default_rng(0)
EPOCHS = np.arange(4.0)
FOUND = {
    "pgd": {"robust": np.array([0.5, 0.7]), "passes": np.array([12.0, 12.0])},
    "clean for 2": {"robust": np.array([0.4, np.nan]), "passes": np.array([7.0, np.nan])},
    "clean for 4": {"robust": np.array([0.2, 0.4]), "passes": np.array([4.0, 4.0])},
    "standard": {"robust": np.array([0.0, 0.0]), "passes": np.array([6.0, 6.0])},
}


def test_the_toy_of_schedules_draws_cosines_and_costs():
    ax, below = figures.schedules.toy(np.array([1.0, 0.5, -0.5]), [0, 2], np.array([60, 40]), fgsm=20).axes
    np.testing.assert_allclose(drawn(ax)[0][2], [1.0, 0.5, -0.5])
    np.testing.assert_allclose(named(below)["PGD-5"], ([0, 2], [60, 40]))
    assert set(named(below)["FGSM only"][1]) == {20}


def test_cosines_have_a_line_a_seed_and_one_name_a_kind():
    along = {"standard": RNG.uniform(size=(2, 4, 2)), "pgd": RNG.uniform(size=(2, 4, 2))}
    figure = figures.schedules.cosines(EPOCHS, along)
    assert titles(figure) == ["along standard training", "along PGD training"]
    lines = drawn(figure.axes[1])
    assert [name for name, _, _ in lines] == ["clean, attacked", None, "control", None, None]
    np.testing.assert_allclose(lines[3][1:], (EPOCHS, along["pgd"][1, :, 1]))
    assert is_narrow(figure)


def test_a_front_has_means_of_seeds_that_ran_and_a_line_through_the_best():
    (ax,) = figures.schedules.front(FOUND, ["pgd", "clean for 4"]).axes
    points = middles(ax)
    np.testing.assert_allclose(points["pgd"], [[12.0], [0.6]])
    np.testing.assert_allclose(points["clean for"], [[7.0], [0.4]])  # one entry of the legend for both
    assert [text.get_text() for text in ax.texts] == ["2", "4"]
    np.testing.assert_allclose(ax.lines[-1].get_data(), ([4.0, 12.0], [0.3, 0.6]))
    assert "standard" not in points
    first, other = figures.schedules.fronts({"a": FOUND, "b": FOUND}, {"a": ["pgd"], "b": ["pgd"]}).axes
    assert (first.get_ylabel(), other.get_ylabel()) == ("robust accuracy", "")
    assert (first.get_title(), other.get_title()) == ("a", "b")


def test_on_the_way_marks_the_schedule_of_the_slider(made):
    curves = {epoch: RNG.uniform(size=(2, 3)) for epoch in (0, 2, 6)}
    names = {0: "pgd", 2: "clean for 2", 6: "standard"}
    figures.schedules.on_the_way(FOUND, ["pgd"], curves, curves[0] / 2, names=names, start=2)
    ax, below = made["draw"](epoch=2).axes
    sizes = {bars.get_label(): bars.lines[0].get_markersize() for bars in ax.containers}
    assert (sizes["clean for"], sizes["pgd"]) == (9, 6)
    np.testing.assert_allclose(named(below)["clean for 2 of 6 epochs"], curves[2])
    np.testing.assert_allclose(named(below)["PGD from the start"], curves[0])
    np.testing.assert_allclose(named(below)["FGSM from the start"], curves[0] / 2)
    assert made["alt"](epoch=6).endswith("clean for 6 of 6 epochs.")


def test_one_criterion_has_an_interval_in_percent_and_the_color_of_its_outcome():
    panels = {
        "a": {"fgsm": ("fails", np.array([-0.5, -2.0, -0.3]), 0.664), "free": ("open", np.zeros(3), 0.1)},
        "b": {"free": ("passes", np.array([0.1, 0.0, 0.2]), 0.5)},
    }
    first, second = figures.schedules.one_criterion(panels, ["fgsm", "free"], margin=0.2).axes
    np.testing.assert_allclose(first.lines[0].get_data(), ([-115, -30], [0, 0]))  # cut at the edge
    np.testing.assert_allclose(np.ravel(first.lines[1].get_data()), (-50, 0))
    assert [text.get_text() for text in first.texts] == ["66", "10"]
    assert second.lines[0].get_color() == COLORS["robust"]
    np.testing.assert_allclose(np.ravel(second.lines[1].get_data()), (10, 1))
    assert set(second.lines[3].get_xdata()) == {-20}


def test_kernels_apart_and_velocities_are_those_given():
    between = RNG.uniform(size=(2, 4, 4, 4))
    (ax,) = figures.early_kernels.apart({"": (EPOCHS, between)}).axes
    np.testing.assert_allclose(named(ax)["pgd – fgsm"], (EPOCHS, between[..., 2, 3].mean(axis=0)))
    speeds, at = np.array([[3.0, 2.0, 0.2, 0.1], [1.0, 1.0, 1.0, 1.0]]), np.array([2.0, np.inf])
    (ax,) = figures.early_kernels.velocity(EPOCHS, speeds, speeds / 10, at).axes
    stars = [line for line in ax.lines if line.get_marker() == "*"]
    np.testing.assert_allclose([np.ravel(line.get_data()) for line in stars], [(2.0, 0.2)])
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), speeds[1] / 10)


def test_the_bent_loss_and_margins_of_the_toy():
    losses = {"start": RNG.uniform(size=4), "FGSM": RNG.uniform(size=4)}
    rows = RNG.uniform(size=(5, 2))
    ax, below = figures.catastrophic.bent_loss(EPOCHS, losses, {"FGSM": rows}, center=0.5).axes
    np.testing.assert_allclose(named(ax)["FGSM"], (EPOCHS, losses["FGSM"]))
    assert set(drawn(ax)[-1][1]) == {0.5}
    np.testing.assert_allclose(named(below)["FGSM: worst"][1], rows[:, 1])
    np.testing.assert_allclose(named(below)["at its own point"][1], rows[:, 0])


def test_two_trainings_and_one_epoch_of_the_first(made):
    accuracy = {"FGSM": RNG.uniform(size=(4, 3)), "other": RNG.uniform(size=(4, 3))}
    first, second = figures.catastrophic.two_trainings(EPOCHS, accuracy, onset=2).axes
    np.testing.assert_allclose(named(second)["under PGD"], (EPOCHS, accuracy["other"][:, 2]))
    assert (len(first.lines), len(second.lines)) == (4, 3)  # the onset is in the first alone
    shares, surfaces = RNG.uniform(size=(4, 6)), RNG.uniform(size=(4, 3, 2))
    figures.catastrophic.one_epoch(EPOCHS, accuracy["FGSM"], shares, surfaces, shown=[0, 3])
    _, spectrum, surface, _ = made["draw"](i=3).axes
    np.testing.assert_allclose([line.get_ydata() for line in spectrum.lines], shares[[0, 3]])
    np.testing.assert_allclose(surface.images[0].get_array(), surfaces[3].T)
    assert made["start"] == {"i": 3}
    fgsm, pgd = accuracy["FGSM"][3, 1:]
    assert f"{fgsm:.2f} under FGSM and {pgd:.2f} under PGD" in made["alt"](i=3)


def test_signals_of_the_attacked_probe_are_dotted():
    clean, attacked = {"fgsm": RNG.uniform(size=(4, 2))}, {"fgsm": RNG.uniform(size=(4, 1))}
    names = {"top share": "above", "linearity": "below"}
    top, line, legend, _ = figures.catastrophic.signals(EPOCHS, names, clean, attacked, onset=2).axes
    assert (top.get_title(), line.get_title()) == ("top share ↑", "linearity ↓")
    np.testing.assert_allclose(top.lines[1].get_ydata(), attacked["fgsm"][:, 0])
    assert (top.lines[1].get_linestyle(), len(line.lines)) == (":", 2)
    assert [text.get_text() for text in legend.get_legend().get_texts()] == ["fgsm", "attacked probe"]


def test_every_seed_has_a_panel_with_onset_collapse_and_alarms():
    accuracy = {"seed 0": RNG.uniform(size=(4, 2)), "seed 1": RNG.uniform(size=(4, 2))}
    collapsed, alarms = np.array([[0, 0, 1, 1], [0, 0, 0, 0]], bool), np.array([[np.nan] * 5, [3.0] * 5])
    onsets, names = np.array([2.0, np.inf]), list("abcde")
    figure = figures.catastrophic.every_seed(
        EPOCHS, accuracy, collapsed, onsets, alarms, signals=names, title="all"
    )
    one, two = figure.axes
    np.testing.assert_allclose(named(one)["PGD"], (EPOCHS, accuracy["seed 0"][:, 1]))
    assert [set(x) for name, x, _ in drawn(one) if name is None] == [{2.0}]
    squares = [line.get_data() for line in two.lines if line.get_marker() == "s"]
    np.testing.assert_allclose(np.ravel([x for x, _ in squares]), [3.0] * 5)
    shaded = [patch.get_paths() for patch in (one.collections[0], two.collections[0])]
    assert [len(paths) for paths in shaded] == [1, 0]


def test_detectors_at_work_show_calm_runs_threshold_and_alarm():
    run, calm = np.array([0.0, 2.0, 3.0]), RNG.uniform(size=(2, 3))
    one = {"calm": calm, "run": run, "threshold": 1.5, "alarm": 2.0}
    panels = {"trace": one, "line": {**one, "alarm": np.inf}}
    first, second = figures.detectors.at_work(EPOCHS, np.zeros(4, bool), panels).axes
    np.testing.assert_allclose(named(first)["FGSM run"], (EPOCHS[1:], run))
    np.testing.assert_allclose(np.ravel(named(first)["alarm"]), (2.0, 2.0))
    assert set(named(first)["threshold"][1]) == {1.5}
    np.testing.assert_allclose(drawn(first)[1][2], calm[1])
    assert "alarm" not in named(second)


def test_margins_say_where_there_is_no_collapse():
    path = RNG.uniform(size=(3, 2))
    empty = np.stack([path[:, 0], np.full(3, np.nan)], axis=1)
    panels = {title: dict.fromkeys("abcde", rows) for title, rows in (("full", path), ("empty", empty))}
    full, none = figures.detectors.margins(panels).axes
    np.testing.assert_allclose(named(full)["c"], path.T)  # the middle one is not shifted
    np.testing.assert_allclose(np.ravel(full.lines[1].get_data()), path[0] - 0.024)
    assert [len(ax.texts) for ax in (full, none)] == [0, 1]


def test_pairs_and_remedies_draw_runs_and_their_mean():
    order = {"trace": np.array([[0.5, 1.0, np.nan], [0.7, np.nan, np.nan]])}
    (ax,) = figures.detectors.pairs({"a": order}, ["rank", "trace"], ["past", "PGD", "noise"]).axes
    np.testing.assert_allclose(named(ax)["past"], ([np.nan, 0.6], [-0.22, 0.78]))
    np.testing.assert_allclose(named(ax)["PGD"], ([np.nan, 1.0], [0, 1]))
    assert named(ax)["noise"][0].tolist() == pytest.approx([np.nan] * 2, nan_ok=True)
    found = {"pgd": np.array([0.5, 0.7, np.nan])}
    (ax,) = figures.detectors.remedies({"a": found}, ["fgsm", "pgd"]).axes
    np.testing.assert_allclose(np.ravel(ax.lines[1].get_data()), (0.6, 1))
    assert to_rgb(ax.lines[0].get_color()) == to_rgb(COLORS["robust"])
