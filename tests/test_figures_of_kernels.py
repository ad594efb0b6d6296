"""The figures of kernels, guarantees and neighbors draw what they are given, as test_figures.py has it."""

import numpy as np
import pytest
from drawings import bars, drawn, is_narrow, middles, named, titles

from companion import figures
from companion.plots import COLORS

# ipywidgets 7 makes its channels the way that ipykernel 7 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `ipykernel.comm.Comm` class:DeprecationWarning"),
    pytest.mark.usefixtures("plain_settings"),
]

RNG = np.random.default_rng(0)
TIMES = np.array([0.1, 1.0, 10.0])
IMAGES = RNG.uniform(size=(4, 5, 5, 1))


def estimates(*shape):
    """Values with both ends of their intervals, along the last axis."""
    return np.sort(RNG.uniform(0.1, 0.9, (*shape, 3)))[..., [1, 0, 2]]


def test_units_show_their_ways_at_the_width_of_the_slider(made):
    ways = {2: RNG.normal(size=(2, 2, 2)), 4: RNG.normal(size=(2, 4, 2))}
    learned, limit, points = RNG.normal(size=(2, 3)), np.zeros(3), (np.array([0.5]), np.array([1.0]))
    kind = {"start": 2, "shown": 3}
    figures.wide_networks.units(
        [2, 4], ways, np.array([[0.5, 0.2], [0.25, 0.1]]), (TIMES, learned, limit), points, **kind
    )
    top, low = made["draw"](width=4).axes
    np.testing.assert_allclose(named(top)["start"], ways[4][0, :3].T)
    way = np.array(named(top)["way to the end"])
    np.testing.assert_allclose(way[:, :2], ways[4][:, 0].T)  # from the start to the end, and then a gap
    assert np.isnan(way[:, 2::3]).all()
    assert top.get_title() == "parameters moved by 25 %, the kernel by 10 %"
    np.testing.assert_allclose(named(low)["network"], (TIMES, learned[1]))
    assert "moved by 50 % of their length" in made["alt"](width=2)


def test_motion_and_distances_are_middles_over_seeds_with_a_slope_of_a_half():
    widths, moves = np.array([4, 16]), RNG.uniform(0.1, 1, (3, 2, 3))
    (ax,) = figures.wide_networks.motion(widths, moves).axes
    np.testing.assert_allclose(named(ax)["outputs"], (widths, moves[..., 2].mean(axis=0)))
    last = moves[:, 1, 0].mean()
    np.testing.assert_allclose(named(ax)["slope −1/2"][1], [2 * last, last])
    kernels, one, other = RNG.uniform(0.1, 1, (3, 3, 2))
    figure = figures.wide_networks.distances(widths, kernels, [9, 36], {"one": one, "other": other})
    above, below = figure.axes
    np.testing.assert_allclose(named(above)["networks"], (widths, np.median(kernels, axis=0)))
    np.testing.assert_allclose(named(below)["other"], ([9, 36], np.median(other, axis=0)))
    theory = named(below)["theory, slope −0.50"][1]
    np.testing.assert_allclose(theory[0] / theory[1], 2)
    np.testing.assert_allclose(theory.prod(), np.median(one, axis=0).prod())  # through the first part
    assert is_narrow(figure)


def test_robustness_along_the_width_has_the_kernel_as_a_line_and_bars_where_there_are_intervals():
    rows = {"network": np.array([[0.2, 0.1, 0.3], [0.4, np.nan, np.nan]]), "linearized": np.full((1, 3), 0.3)}
    spared = {"network": rows["network"] + 0.1}
    figure = figures.wide_networks.robustness([8, 16], np.array([0.6, 0.5, 0.7]), rows, spared)
    (ax,) = figure.axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.6)
    drawn_rows = {bars.get_label(): bars for bars in ax.containers}
    assert set(drawn_rows) == {"network", "network, black pixels left alone", "linearized"}
    np.testing.assert_allclose(drawn_rows["network"].lines[0].get_ydata(), [0.2, 0.4])
    ends = drawn_rows["network"].lines[2][0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in ends], [[0.1, 0.3], [0.4, 0.4]])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["8", "16"]
    assert is_narrow(figure)


def test_matrices_have_one_scale_for_all_widths(made):
    kernels, limit, labels = RNG.uniform(size=(2, 3, 3)), np.ones((3, 3)), np.array([0, 0, 5])
    figures.wide_networks.matrices([8, 16], kernels, limit, np.array([0.5, 0.25]), labels)
    figure = made["draw"](width=16)
    network, _, difference, empty = figure.axes[:4]
    np.testing.assert_allclose(network.images[0].get_array(), kernels[1])
    np.testing.assert_allclose(difference.images[0].get_array(), kernels[1] - 1)
    gap = np.abs(kernels - 1).max()
    assert difference.images[0].get_clim() == (-gap, gap)
    assert empty.texts[0].get_text() == "relative distance\n0.250"
    assert {line.get_xdata()[0] for line in network.lines if line.get_xdata()[0] > 1} == {1.5}


def test_an_ensemble_is_drawn_at_the_time_of_the_slider(made):
    members, moments = RNG.normal(size=(2, 3, 4)), RNG.uniform(size=(3, 2, 4))
    points = (np.zeros(1), np.ones(1))
    figures.wide_networks.ensemble(TIMES, np.arange(4), members, moments, points, start=1.0)
    (ax,) = made["draw"](t=10.0).axes
    np.testing.assert_allclose([line[2] for line in drawn(ax)[:2]], members[:, 2])
    np.testing.assert_allclose(named(ax)["kernel, mean"][1], moments[2, 0])
    low, high = (moments[2, 0] + sign * 2 * moments[2, 1] for sign in (-1, 1))
    corners = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(corners[:, 1].min(), low.min())
    np.testing.assert_allclose(corners[:, 1].max(), high.max())
    assert made["alt"](t=0.1).endswith(f"half-width {2 * moments[0, 1].mean():.2f}.")


def test_two_outputs_have_every_second_dot():
    formula, descent = RNG.normal(size=(2, 3, 2))
    (ax,) = figures.kernel_flow.two_outputs(TIMES, formula, descent, every=2).axes
    np.testing.assert_allclose(drawn(ax)[1][1:], (TIMES, formula[:, 1]))
    np.testing.assert_allclose(named(ax)["gradient descent, $x_2$"], (TIMES[::2], descent[::2, 1]))


def test_learned_directions_add_up_and_pictures_have_their_own_scale():
    eigenvalues, energy = np.array([4.0, 2.0, 1.0]), np.array([0.2, 0.3, 0.5])
    figure = figures.kernel_flow.directions_learned(eigenvalues, energy, {0.1: energy / 2}, name="FC-2")
    above, below = figure.axes
    np.testing.assert_allclose(named(above)["FC-2"], ([1, 2, 3], eigenvalues))
    np.testing.assert_allclose(named(below)["in the targets"][1], [0.2, 0.5, 1.0])
    np.testing.assert_allclose(named(below)["in the outputs at t = 0.1"][1], [0.1, 0.25, 0.5])
    pictures = figures.kernel_flow.directions(np.stack([IMAGES[0], -3 * IMAGES[1]]))
    assert titles(pictures) == ["i = 0", "i = 1", ""]
    top = 3 * IMAGES[1].max()
    np.testing.assert_allclose(pictures.axes[1].images[0].get_clim(), (-top, top))


def test_accuracies_gradients_and_two_kernels():
    curves = {"a": estimates(3), "b": estimates(3)}
    (ax,) = figures.kernel_flow.accuracies(TIMES, curves).axes
    np.testing.assert_allclose(named(ax)["b"], (TIMES, curves["b"][:, 0]))
    figure = figures.kernel_flow.gradients(IMAGES[:3], -IMAGES[:3], list("abc"), says="red: up")
    assert titles(figure)[:3] == ["a", "b", "c"]
    np.testing.assert_allclose(figure.axes[5].images[0].get_array(), -IMAGES[2, ..., 0])
    limit = IMAGES[:3].max()
    assert figure.axes[4].get_xlabel() == f"red: up (scale ±{limit:.2f})"
    shares = {"a": np.array([0.9, 0.1]), "b": np.array([0.6, 0.4])}
    above, below = figures.kernel_flow.two_kernels(shares, TIMES, curves).axes
    np.testing.assert_allclose(named(above)["b"][1], shares["b"])
    np.testing.assert_allclose(named(below)["a"][1], curves["a"][:, 0])


def test_shifts_rounding_and_cost():
    likeness, strangers = {"FC": TIMES, "Conv": TIMES / 2}, {"FC": 0.5, "Conv": 0.25}
    accuracy = {"FC": estimates(3), "Conv": estimates(3)}
    above, below = figures.kernels_measured.shifts([0, 1, 2], likeness, strangers, TIMES, accuracy).axes
    np.testing.assert_allclose(named(above)["Conv"], ([0, 1, 2], TIMES / 2))
    assert [set(y) for _, _, y in drawn(above) if len(set(y)) == 1] == [{0.5}, {0.25}]
    np.testing.assert_allclose(middles(below)["Conv"][1], accuracy["Conv"][:, 0])
    np.testing.assert_allclose(bars(below)["FC"], accuracy["FC"][:, 1:])
    errors = {name: RNG.uniform(size=3) for name in ("library", "exact diagonal", "ours")}
    (ax,) = figures.kernels_measured.rounding(TIMES, errors).axes
    np.testing.assert_allclose(named(ax)["ours"], (TIMES, errors["ours"]))
    sizes = {"gram": (1, 10, 100), "fit": (1, 10, 100), "solve": (1, 10, 100)}
    squared = np.array([[5.0, 1.0, 100.0], [9.0, 2.0, 200.0]])  # the first size is left out of the law
    figure = figures.kernels_measured.cost(sizes, dict.fromkeys(sizes, squared), fitted=2)
    assert "fit, slope 2.00" in named(figure.axes[1])
    np.testing.assert_allclose(drawn(figure.axes[1])[0][2], squared[1])


def test_balls_are_discs_of_their_radii_and_slopes_stand_below():
    points, sides = np.array([[0.0, 0.5], [0.5, -0.5]]), np.array([1.0, -1.0])
    ticks = np.linspace(-1, 1, 5)
    values = np.repeat(ticks[:, None], 5, axis=1)  # the boundary is the second input's 0
    discs = np.array([[0.0, 0.5]]), np.array([0.25])
    slopes = {"conjugate": TIMES, "NTK": 2 * TIMES}
    ax, below = figures.certificates.balls(
        (points, sides), (ticks, values), discs, TIMES, slopes, (3.0, TIMES)
    ).axes
    (disc,) = ax.patches
    assert (*disc.center, disc.radius) == (0.0, 0.5, 0.25)
    border = np.concatenate([path.vertices for path in ax.collections[0].get_paths()])
    np.testing.assert_allclose(border[:, 1], 0, atol=1e-12)
    np.testing.assert_allclose(named(below)["NTK"], (TIMES, 2 * TIMES))
    assert set(named(below)["L"][1]) == {3.0}


def test_what_is_known_is_shaded_between_two_lines(made):
    sure, left = np.array([1.0, 0.5, 0.0]), np.array([1.0, 0.9, 0.8])
    figure = figures.certificates.known(TIMES, {"a": (sure, left), "b": (left, left)}, ends=(5, 3))
    assert titles(figure) == ["a", "b"]
    np.testing.assert_allclose(named(figure.axes[0])["certified"], (TIMES, sure))
    np.testing.assert_allclose(named(figure.axes[0])["attacked"], (TIMES, left))
    assert figure.axes[1].get_xlim() == (0, 3)
    both, facts = {0.1: (sure, left), 1.0: (left, left)}, {0.1: (0.9, 0.5, 1.25), 1.0: (1, 1, 1)}
    figures.certificates.along_ridge(TIMES, both, facts, end=3, start=0.1)
    (ax,) = made["draw"](ridge=1.0).axes
    np.testing.assert_allclose(named(ax)["certified"][1], left)
    said = (
        "Ridge 0.1 mean diagonals: 0.90 right, median certified radius 0.50, median distance of the nearest"
    )
    assert made["alt"](ridge=0.1).startswith(said)


def test_the_dial_and_recorded_radii():
    lines = {name: RNG.uniform(0.8, 1, (3, 2)) for name in "abcde"}
    (ax,) = figures.certificates.dial(lines).axes
    np.testing.assert_allclose(named(ax)["e"], lines["e"].T)
    assert ax.lines[3].get_color() == COLORS["robust"]
    radii = {"small": np.array([[1e-9, 1.0], [0.1, 2.0]]), "large": np.array([[0.2, 3.0], [0.3, 4.0]])}
    (ax,) = figures.certificates.recorded_radii(["one", "two"], radii, least=1e-3).axes
    long = [(x[0], x[-1], y[0]) for _, x, y in drawn(ax) if len(x) == 2]
    np.testing.assert_allclose(long, [(1e-3, 1, -0.15), (0.1, 2, 0.85), (0.2, 3, 0.15), (0.3, 4, 1.15)])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["one", "two"]


def test_nearest_inputs_stand_beside_the_change_and_the_floor_moves(made):
    figure = figures.certificates.nearest(IMAGES[:2], IMAGES[2:], list("ab"), list("cd"), limit=0.5)
    assert titles(figure) == ["a", "", "c", "b", "", "d"]
    change = figure.axes[4].images[0]
    np.testing.assert_allclose(change.get_array(), (IMAGES[3] - IMAGES[1])[..., 0])
    assert change.get_clim() == (-0.5, 0.5)
    outputs, certified = np.array([1.0, 0.5, -0.5]), np.array([1.0, 0.0, -1.0])
    kind = {"radius": 0.75, "limit": 0.5, "start": 1}
    figures.certificates.floor([0.0, 1.0, 2.0], outputs, certified, IMAGES[:3], list("449"), **kind)
    ax, change, picture = made["draw"](i=2).axes
    np.testing.assert_allclose(named(ax)["certified floor"][1], certified)
    assert [2.0, -0.5] in [[x[0], y[0]] for _, x, y in drawn(ax) if len(x) == 1]
    np.testing.assert_allclose(change.images[0].get_array(), (IMAGES[2] - IMAGES[0])[..., 0])
    assert (picture.get_title(), made["start"], made["fmt"](2)) == ("says 9", {"i": 1}, "2")


def test_labels_hold_a_class_up_until_they_are_changed(made):
    strongest = np.stack([IMAGES[:2], IMAGES[2:]])
    said = [["4: 30 %", "9: 10 %"], ["9: 20 %", "9: 5 %"]]
    figure = figures.training_attacks.holders(IMAGES[:2], ["4: 3", "9: 5"], strongest, said)
    assert titles(figure) == ["4: 3", "9: 5", "4: 30 %", "9: 20 %", "9: 10 %", "9: 5 %"]
    np.testing.assert_allclose(figure.axes[3].images[0].get_array(), IMAGES[2, ..., 0])
    outputs = np.array([1.0, 0.2, -0.5, -1.0])
    figures.training_attacks.one_label_after_another(outputs, IMAGES[0], "4499", IMAGES[1:], list("abc"))
    ax, digit, *small = made["draw"](r=2).axes
    assert [2, -0.5] in [[x[0], y[0]] for _, x, y in drawn(ax) if len(x) == 1]
    assert digit.get_title() == "says 9"
    assert [one.get_title() for one in small if one.images] == ["a", "b"]
    assert not any(one.images for one in made["draw"](r=0).axes[2:])


def test_changed_labels_are_attacks_on_bounds():
    kept = {name: RNG.uniform(size=3) for name in ("none", "late", "ridge", "early")}
    bound, attack = np.array([1.0, 0.5, 0.2]), np.array([1.0, 0.8, 0.6])
    reached = {"ridge": ([0, 2], [1.0, 0.4])}
    ax, other = figures.training_attacks.changed_labels([0, 1, 2], kept, reached, (bound, attack)).axes
    np.testing.assert_allclose(named(ax)["early"][1], kept["early"])
    assert [[0, 2], [1.0, 0.4]] in [[list(x), list(y)] for _, x, y in drawn(ax)]
    np.testing.assert_allclose(named(other)["bound, one set"][1], bound)
    np.testing.assert_allclose(named(other)["each its own"][1], kept["none"])


def test_poisons_and_what_they_leave():
    made = {"one step": IMAGES[2:], "PGD": IMAGES[1:3]}
    figure = figures.training_attacks.poison(IMAGES[:2], made, list("49"), eps=0.25)
    assert titles(figure)[:2] == ["4, one step", "9, one step"]
    change = figure.axes[6].images[0]
    np.testing.assert_allclose(change.get_array(), (IMAGES[1] - IMAGES[0])[..., 0])
    assert change.get_clim() == (-0.25, 0.25)
    curves = {name: estimates(3) for name in ("signs", "one", "ten")}
    (ax,) = figures.training_attacks.poisoned(TIMES, curves).axes
    np.testing.assert_allclose(named(ax)["ten"], (TIMES, curves["ten"][:, 0]))


def test_two_kernels_have_bands_above_and_bars_below():
    certified = {"tangent": estimates(3), "conjugate": estimates(3)}
    left = {name: {"clean": estimates(2), "PGD": estimates(2)} for name in certified}
    ax, below = figures.relatives.two_kernels(TIMES, certified, [0.1, 1.0], left).axes
    np.testing.assert_allclose(named(ax)["conjugate"], (TIMES, certified["conjugate"][:, 0]))
    last = below.containers[-1]
    np.testing.assert_allclose(last.lines[0].get_ydata(), left["conjugate"]["PGD"][:, 0])
    assert last.lines[0].get_color() == COLORS["nonrobust"]
    assert last.lines[0].get_linestyle() == "-"


def test_biases_have_four_panels_and_no_bar_without_an_interval():
    spectra = {0.0: np.array([2.0, 1.0]), 2.0: np.array([1.5, 1.2])}
    rows = np.array([[0.0, 0.5, 0.4, 0.6], [1.0, 0.2, np.nan, np.nan]])
    before, after = {"before": rows, "after": rows}, {"clean": rows, "under PGD": rows}
    share, spectrum, step, robust = figures.relatives.biases(
        (TIMES, TIMES), spectra, before, rows, after
    ).axes
    np.testing.assert_allclose(named(spectrum)["B = 2"][1], spectra[2.0])
    np.testing.assert_allclose(middles(share)["after"], rows[:, :2].T)
    np.testing.assert_allclose(bars(robust)["under PGD"], [[0.4, 0.6], [0.2, 0.2]])
    assert (len(step.containers), step.get_legend()) == (1, None)


def test_starvation_and_collapse():
    weak, lost = ({loss: values for loss in ("logistic", "squared")} for values in (TIMES, estimates(2)))
    toy, real = figures.relatives.starvation(TIMES, weak, ["a", "b"], lost).axes
    np.testing.assert_allclose(named(toy)["squared"][1], TIMES)
    np.testing.assert_allclose(middles(real)["squared loss"], ([0.12, 1.12], lost["squared"][:, 0]))
    np.testing.assert_allclose(bars(real)["logistic loss"], lost["logistic"][:, 1:])
    live = {"standard": TIMES, "pgd": TIMES / 10}
    recorded = {method: estimates(1) for method in ("standard", "noise", "pgd")}
    ax, below = figures.relatives.collapse([0, 10, 20], live, ["a"], recorded, np.array([[2.0, 1.0]])).axes
    np.testing.assert_allclose(named(ax)["pgd"], ([5, 10, 20], TIMES / 10))
    np.testing.assert_allclose(middles(below)["pgd"].ravel(), [0.15, recorded["pgd"][0, 0]])
    assert [y[0] for _, x, y in drawn(below) if len(x) == 2] == [2.0, 1.0]
    empty = {method: np.empty((0, 3)) for method in recorded}
    assert figures.relatives.collapse([0, 1], {}, [], empty, np.empty((0, 2))).axes[1].get_legend() is None
