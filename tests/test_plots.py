import io
import itertools
import subprocess
import sys

import jaxtyping
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from refusals import assert_refused

from companion import plots

# Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision deficiency",
# IEEE TVCG 15(6), 2009: severity 1.0, for linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color):
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast_on_white(color):
    return 1.05 / (XYZ[1] @ linear(color) + 0.05)


def lab(color, sight):
    seen = np.clip(np.array(SIGHT[sight]) @ linear(color), 0, 1)
    ratio = XYZ @ seen / XYZ.sum(axis=1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(colors, sight):
    return min(np.linalg.norm(lab(a, sight) - lab(b, sight)) for a, b in itertools.combinations(colors, 2))


@pytest.fixture
def ax():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.subplots()


@pytest.fixture
def axes():
    return Figure().subplots(2, 3)


@pytest.fixture
def unchecked():
    """Without the shape checks of the tests, as a user runs it: our own messages must do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def style():
    with mpl.rc_context():
        plots.use_style()
        yield


@pytest.mark.parametrize("color", plots.COLORS.values(), ids=plots.COLORS)
def test_every_color_can_be_seen_on_white(color):
    assert contrast_on_white(color) >= 3  # WCAG 1.4.11


@pytest.mark.parametrize("sight", SIGHT)
def test_every_two_colors_can_be_told_apart(sight):
    assert apart(plots.COLORS.values(), sight) > 26


def test_the_color_measures_know_bad_colors():
    # The textbook pair that a deuteranope confuses, and a yellow that no one sees on white.
    assert apart(["#d62728", "#2ca02c"], "normal") > 100
    assert apart(["#b0501e", "#70711c"], "deuteranopia") < 10
    assert contrast_on_white("yellow") < 1.1
    assert contrast_on_white("black") == pytest.approx(21)


def test_importing_changes_no_setting():
    code = (
        "import matplotlib as m; a = dict(m.rcParams); import companion.plots; print(a == dict(m.rcParams))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.usefixtures("style")
def test_the_same_figure_has_the_same_svg_bytes():
    def draw():
        figure, ax = plt.subplots()
        plots.band(ax, np.arange(3), np.arange(6.0).reshape(2, 3), label="a", color="clean")
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        plt.close(figure)
        return out.getvalue()

    assert draw() == draw()
    figure = plt.figure()
    assert figure.get_size_inches()[0] == plots.WIDTH
    plt.close(figure)


def test_in_a_notebook_the_style_asks_for_svg_without_a_date():
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "import matplotlib; matplotlib.use('module://matplotlib_inline.backend_inline')\n"
        "import matplotlib.pyplot as plt\n"
        "from companion import plots\n"
        "plots.use_style()\n"
        "figure, ax = plt.subplots()\n"
        "data, _ = shell.display_formatter.format(figure)\n"
        "print(sorted(data), '<dc:date>' in data['image/svg+xml'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['image/svg+xml', 'text/plain'] False"


@pytest.mark.parametrize(
    ("kind", "low", "middle", "high"),
    [("minmax", 0, 21.4, 100), ("quantile", 0.4, 2, 61.6), ("ci", -33.19, 21.4, 75.99)],
)
def test_band_draws_the_middle_and_the_spread(ax, kind, low, middle, high):
    # Five seeds. The quantiles and the mean ± 2.776·s/√5 (s = 43.96) are worked out by hand.
    samples = np.array([[0.0], [1], [2], [4], [100]]) * np.array([[1.0, 2.0]])
    assert plots.band(ax, np.array([0, 1]), samples, label="clean", color="clean", kind=kind) is ax
    (line,) = ax.get_lines()
    assert line.get_ydata() == pytest.approx([middle, 2 * middle])
    assert to_rgb(line.get_color()) == to_rgb(plots.COLORS["clean"])
    (area,) = (c for c in ax.collections if isinstance(c, PolyCollection))
    at_zero = area.get_paths()[0].vertices
    at_zero = at_zero[at_zero[:, 0] == 0, 1]
    assert [at_zero.min(), at_zero.max()] == pytest.approx([low, high], abs=0.02)
    assert ax.get_legend_handles_labels()[1] == ["clean"]


def test_interval_draws_each_bar_from_low_to_high(ax):
    x = np.array([1.0, 2.0])
    plots.interval(
        ax, x, np.array([0.5, 0.6]), np.array([0.4, 0.6]), np.array([0.7, 0.9]), label="a", color="red"
    )
    bars = ax.containers[0].lines[2][0].get_segments()
    assert np.allclose(bars, [[[1, 0.4], [1, 0.7]], [[2, 0.6], [2, 0.9]]])


def test_spectrum_numbers_eigenvalues_from_one_and_leaves_out_what_is_not_positive(ax):
    plots.spectrum(ax, np.array([8.0, 2.0, 0.0, -1e-9]), label="kernel", color="kernel")
    (line,) = ax.get_lines()
    assert line.get_xydata().tolist() == [[1, 8], [2, 2]]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_power_law_finds_the_exponent_and_writes_it(ax):
    x = np.array([1.0, 4.0, 16.0])
    plots.power_law(ax, x, 3 * x**-0.5, label="fit")
    plots.power_law(ax, x, 3 * x**-0.5, exponent=-1.0)
    fit, reference = ax.get_lines()
    assert np.allclose(fit.get_xydata(), [[1, 3], [16, 0.75]])
    # A slope of -1 through the geometric mean of the points, (4, 1.5).
    assert np.allclose(reference.get_xydata(), [[1, 6], [16, 0.375]])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "4", "16"]
    assert ax.get_legend_handles_labels()[1] == ["fit, slope −0.50", "slope −1.00"]


def test_heatmap_is_symmetric_about_zero_and_parts_the_classes(ax):
    matrix = np.array([[1.0, -4, 0], [2, 0, 0], [0, 0, 3]])
    plots.heatmap(ax, matrix, label="K", boundaries=[2], names=["zeros", "ones"], symmetric=True)
    assert ax.images[0].get_clim() == (-4, 4)
    assert {tuple(line.get_xdata()) for line in ax.get_lines()} == {(0, 1), (1.5, 1.5)}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["zeros", "ones"]
    assert ax.get_xticks().tolist() == [0.5, 2]
    assert [other.get_ylabel() for other in ax.figure.axes] == ["", "K"]


def test_images_draws_gray_and_color_and_empties_the_rest(axes):
    pixels = np.linspace(0, 1, 5 * 4).reshape(5, 2, 2, 1)
    flat = plots.images(axes, pixels, titles=list("abcde"))
    assert [len(ax.images) for ax in flat] == [1, 1, 1, 1, 1, 0]
    assert [ax.get_title() for ax in flat] == ["a", "b", "c", "d", "e", ""]
    assert not any(ax.axison for ax in flat)
    # Black is 0 and white is 1 in every picture: never stretched to the picture's own range.
    assert {ax.images[0].get_clim() for ax in flat[:5]} == {(0, 1)}
    plots.images(flat[5], np.ones((1, 2, 2, 3)))
    assert flat[5].images[0].get_array().shape == (2, 2, 3)


def test_signed_image_is_symmetric_and_prints_its_scale(ax):
    plots.signed_image(ax, np.array([[0.01, -0.03], [0, 0.02]]), title="δ")
    assert ax.images[0].get_clim() == (-0.03, 0.03)
    assert ax.get_xlabel() == "full color: ±0.03"
    plots.signed_image(ax, np.array([[[0.0, 0.1, -0.1]]]), limit=0.1)
    assert np.allclose(ax.images[-1].get_array(), [[[0.5, 1, 0]]])
    plots.signed_image(ax, np.zeros((2, 2)))
    assert ax.get_xlabel() == "full color: ±1"


TWO, WRONG = np.ones(2), np.ones((3, 4))
NAMED = {"label": "a", "color": "clean"}


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(ax):
    assert_refused(
        [
            (lambda ax: plots.band(ax, TWO, WRONG, **NAMED), r"samples: got length \(4,\); want \(2,\)"),
            (lambda ax: plots.band(ax, TWO, TWO, **NAMED), r"samples: got shape \(2,\); want 2 axes"),
            (lambda ax: plots.band(ax, TWO, [[1, np.nan]], **NAMED), "samples has 1 NaN"),
            (lambda ax: plots.band(ax, TWO, [[1, 2]], kind="ci", **NAMED), "samples: got one seed"),
            (lambda ax: plots.interval(ax, TWO, TWO, TWO, [1, 0.5], **NAMED), "estimate: got 1 of 2 outside"),
            (lambda ax: plots.interval(ax, TWO, TWO, [1], TWO, **NAMED), r"low: got length \(1,\)"),
            (lambda ax: plots.spectrum(ax, [1, 2], **NAMED), "eigenvalues: got some that rise"),
            (lambda ax: plots.spectrum(ax, [0, -1], **NAMED), "eigenvalues: got 2, none positive"),
            (lambda ax: plots.power_law(ax, [1, 2], [0, 1]), "y: got a least value of 0"),
            (lambda ax: plots.power_law(ax, [2, 2], [1, 1]), "x: got 1 places"),
            (lambda ax: plots.heatmap(ax, TWO, label=""), r"matrix: got shape \(2,\)"),
            (lambda ax: plots.heatmap(ax, WRONG, label="", boundaries=[3]), r"boundaries: got \[3\]"),
            (lambda ax: plots.heatmap(ax, WRONG, label="", boundaries=[2, 1]), r"boundaries: got \[2, 1\]"),
            (lambda ax: plots.heatmap(ax, WRONG, label="", names=["a", "b"]), "names: got 2; want 1"),
            (lambda ax: plots.heatmap(ax, WRONG, label="", limit=-1.0), "limit: got -1.0"),
            (lambda ax: plots.images(ax, np.full((1, 2, 2), 1.5)), r"pixels: got values in \[1.5, 1.5\]"),
            (lambda ax: plots.images(ax, np.ones((1, 2, 2, 2))), "pixels: got 2 channels"),
            (lambda ax: plots.images(ax, np.ones((2, 2, 2))), "axes: got 1; want at least 2"),
            (lambda ax: plots.images(ax, np.ones((1, 2, 2)), titles=[]), "titles: got 0; want 1"),
            (lambda ax: plots.signed_image(ax, np.ones((2, 2, 4))), "delta: got 4 channels"),
            (lambda ax: plots.signed_image(ax, np.ones((2, 2)), limit=0), "limit: got 0"),
        ],
        ValueError,
        run=lambda call: call(ax),
    )


@pytest.mark.usefixtures("as_users_run")
def test_values_that_would_draw_something_else_are_named():
    assert_refused(
        [
            (lambda ax: plots.band(ax, [1, 2], np.ones((2, 2)), label="", color="adverserial"), "color: got"),
            (lambda ax: plots.power_law(ax, [1, 2], [1, 2], exponent=np.nan), "exponent: got nan"),
            (lambda ax: plots.heatmap(ax, np.eye(4), label="", boundaries=[1.7]), r"boundaries: got \[1.7\]"),
        ],
        ValueError,
        run=lambda call: call(plt.figure().subplots()),
    )
    plt.close("all")
