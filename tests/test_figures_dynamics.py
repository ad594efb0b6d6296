"""The figures of the chapters on kernels that move and on normalization draw what they are given."""

import numpy as np
import pytest
from drawings import named

from companion import figures
from companion.plots import COLORS

# ipywidgets 7 makes its channels the way that ipykernel 7 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `ipykernel.comm.Comm` class:DeprecationWarning"),
    pytest.mark.usefixtures("plain_settings"),
]

RNG = np.random.default_rng(0)
EPOCHS = np.array([0.0, 1.0, 3.0])
IMAGES = RNG.uniform(size=(5, 4, 4, 1))


def test_distances_in_time_share_a_scale_and_have_their_difference_below():
    first, second = RNG.uniform(size=(2, 3, 3))
    figure = figures.kernel_paths.in_time(EPOCHS, first, second, names=("a", "b"))
    panels = [ax.collections[0] for ax in figure.axes[:3]]
    np.testing.assert_allclose(panels[2].get_array().reshape(3, 3), second - first)
    assert panels[0].get_clim() == panels[1].get_clim() == (0, max(first.max(), second.max()))
    assert figure.axes[2].get_title() == "b − a"
    edges = panels[0].get_coordinates()[0, :, 0]
    np.testing.assert_allclose(edges, [0.0, 0.5, 2.0, 3.0])  # cells reach to the middle between records
    assert figure.get_figwidth() == 5.0


def test_polar_curves_are_angle_and_radius_of_each_part():
    angles, lengths = ({"pgd": RNG.uniform(size=(3, 2))} for _ in range(2))
    first, second = figures.kernel_paths.polar(angles, lengths, parts=("whole", "rest")).axes
    np.testing.assert_allclose(named(second)["pgd"], (angles["pgd"][:, 1], lengths["pgd"][:, 1]))
    assert (first.get_title(), first.get_thetamax()) == ("whole", 90)


def test_speed_and_onset_are_means_over_the_seeds_that_have_run():
    speed, onset = RNG.uniform(1, 9, (3, 2)), RNG.uniform(size=(3, 4))
    speed[2], onset[2] = np.nan, np.nan
    row = np.array([0.5, 2.0]), speed, onset
    cases = {"digits": {"pgd": row, "pgd decayed": row}}
    above, below = figures.kernel_paths.speed_and_onset(np.arange(4.0), cases).axes
    np.testing.assert_allclose(named(above)["pgd"], (row[0], speed[:2].mean(axis=0)))
    np.testing.assert_allclose(named(below)["pgd decayed"][1], onset[:2].mean(axis=0))
    assert [line.get_linestyle() for line in above.lines] == ["-", "--"]
    assert above.get_title() == "digits"


def test_measures_and_distances_have_a_line_a_regime():
    rows = {name: RNG.uniform(size=(2, 3)) for name in ("standard", "again")}
    one, two = figures.kernel_paths.along_training(EPOCHS, {"a": rows, "b": rows}).axes
    np.testing.assert_allclose(named(two)["again"], (EPOCHS, rows["again"].mean(axis=0)))
    assert one.get_title() == "a"
    together = {("again", "standard"): rows["again"], ("pgd", "fgsm"): rows["standard"]}
    ends = {("standard", "pgd"): rows["standard"]}
    above, below = figures.kernel_paths.between(EPOCHS, together, ends).axes
    np.testing.assert_allclose(named(above)["pgd – fgsm"][1], rows["standard"].mean(axis=0))
    assert above.lines[1].get_color() == COLORS["network"]
    assert below.lines[0].get_color() == COLORS["clean"]
    assert [line.get_linestyle() for line in above.lines] == ["-", "--"]


def test_each_epoch_shows_its_kernel_the_difference_and_both_spectra(made):
    cosines = {name: RNG.uniform(size=(2, 4, 4)) for name in ("standard", "pgd")}
    spectra = {name: RNG.uniform(size=(2, 5)) for name in cosines}
    figures.kernel_paths.each_epoch([0.0, 1.0], cosines, spectra)
    figure = made["draw"](epoch=1.0)
    kernel, gap, below = (ax for ax in figure.axes if ax.get_label() != "<colorbar>")
    np.testing.assert_allclose(kernel.images[0].get_array(), cosines["standard"][1])
    np.testing.assert_allclose(gap.images[0].get_array(), cosines["pgd"][1] - cosines["standard"][1])
    np.testing.assert_allclose(named(below)["pgd"][1], spectra["pgd"][1])
    assert "After epoch 1: the standard kernel of 4 digits" in made["alt"](epoch=1.0)
    assert made["start"] == {"epoch": 1.0}


def test_ranks_against_accuracy_begin_at_epoch_one_and_end_at_a_dot():
    rank, clean = RNG.uniform(size=(2, 2, 3))
    left, right = figures.kernel_paths.ranks({"a": {"pgd": (EPOCHS, rank, clean)}}).axes
    np.testing.assert_allclose(named(left)["pgd"][1], rank.mean(axis=0))
    lines = [np.asarray(line.get_data()) for line in right.lines]
    np.testing.assert_allclose(lines[0], (clean[0, 1:], rank[0, 1:]))
    np.testing.assert_allclose(lines[3], (clean[1, -1:], rank[1, -1:]))


def test_first_features_have_a_column_a_kernel_and_a_row_a_feature():
    slopes = {"start": -IMAGES[:2], "pgd": IMAGES[2:4]}
    figure = figures.frozen_kernels.first_features(IMAGES[4], slopes)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["start", "pgd", "feature 0", "feature 0", "feature 1", "feature 1"]
    np.testing.assert_allclose(figure.axes[5].images[0].get_array(), IMAGES[3, ..., 0])
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), -IMAGES[0, ..., 0])


def test_accuracy_on_frozen_kernels_is_of_path_kind_and_epoch():
    accuracy = RNG.uniform(size=(2, 2, 3, 2))
    (ax,) = figures.frozen_kernels.frozen_at({"a": ((0.0, 1.0, 10.0), accuracy)}).axes
    np.testing.assert_allclose(named(ax)["pgd kernel, robust"][1], accuracy[:, 1, :, 1].mean(axis=0))
    np.testing.assert_allclose(named(ax)["standard kernel, clean"][1], accuracy[:, 0, :, 0].mean(axis=0))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "10"]


def test_second_phases_have_clean_and_robust_panels_for_each_set():
    steps, rows = np.array([1.0, 10.0]), RNG.uniform(size=(3, 2, 2))
    above, below = figures.frozen_kernels.second_phase(steps, {"start": rows}).axes
    np.testing.assert_allclose(named(above)["start kernel"], (steps, rows[:, :, 0].mean(axis=0)))
    np.testing.assert_allclose(named(below)["start kernel"][1], rows[:, :, 1].mean(axis=0))
    curves = {("pgd", "benign"): rows, ("pgd", "adversarial"): 1 - rows}
    axes = figures.frozen_kernels.second_phases({"a": (steps, curves), "b": (steps, curves)}).axes
    assert [ax.get_title() for ax in axes] == ["a: clean", "a: robust", "b: clean", "b: robust"]
    np.testing.assert_allclose(
        named(axes[3])["PGD kernel, attacked images"][1], 1 - rows[:, :, 1].mean(axis=0)
    )
    assert [line.get_linestyle() for line in axes[1].lines] == ["-", "--"]


def test_units_variants_and_modes_draw_every_number():
    trap, scores = RNG.uniform(size=(2, 3)), RNG.uniform(size=(2, 3, 2))
    names = dict(zip(("pixels", "units"), trap, strict=True))
    (ax,) = figures.normalization.two_units([0.1, 0.2, 0.3], names).axes
    np.testing.assert_allclose(named(ax)["units"], ([0.1, 0.2, 0.3], trap[1]))
    (ax,) = figures.normalization.variants(["raw", "centered"], scores).axes
    heights = np.array([line.get_ydata() for line in ax.lines])  # clean of every seed, then under PGD
    np.testing.assert_allclose(heights, scores.transpose(2, 1, 0).reshape(6, 2))
    assert len(ax.get_legend().get_texts()) == 2
    (ax,) = figures.normalization.two_modes(trap.T).axes
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines], trap.T)


def test_batch_variance_has_bars_measured_and_dashes_predicted(made):
    ratios = {name: RNG.uniform(0.5, 0.9, size=(2, 3, 2)) for name in ("one", "two", "dense")}
    figures.normalization.batch_variance([2, 8], ratios)
    ax, below = made["draw"](size=8).axes
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, [ratios[p][1, j, 1] for j in range(3) for p in ratios])
    np.testing.assert_allclose(ax.lines[2].get_ydata(), [ratios[p][1, 2, 0] for p in ratios])
    np.testing.assert_allclose(named(below)["dense"], ([2, 8], 1 - ratios["dense"][:, 0, 0]))
    assert f"{ratios['two'][1, 0, 1]:.3f} after the second" in made["alt"](size=8)


def test_differences_leave_out_what_has_not_run():
    first, second = np.array([0.1, 0.0, 0.2]), np.array([-0.1, -0.2, 0.0])
    rows = {"a": np.array([first, np.full(3, np.nan)]), "b": np.array([second, second / 2])}
    (ax,) = figures.normalization.differences({"panel": rows}, what="gap").axes
    lines = [tuple(line.get_xdata()) for line in ax.lines]
    assert [x for x in lines if len(x) == 1] == [(0.1,), (-0.1,), (-0.05,)]
    assert [x for x in lines if len(x) == 2][:3] == [(0.0, 0.2), (-0.2, 0.0), (-0.1, 0.0)]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]


def test_rates_that_some_seed_lacks_are_left_out():
    rates, robust = np.array([0.1, 0.2, 0.4]), RNG.uniform(size=(3, 2))
    broken = robust.copy()
    broken[2, 1] = np.nan
    figure = figures.normalization.over_rates(rates, {"a": {"raw": robust, "layer": broken}}, dashed=1)
    lines = named(figure.axes[0])
    np.testing.assert_allclose(lines["raw"], (rates, robust.mean(axis=1)))
    np.testing.assert_allclose(lines["layer"], (rates[:2], robust[:2].mean(axis=1)))
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["-", "--"]
