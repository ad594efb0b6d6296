"""Why a wide network is less robust than its kernel at the same time of plain training (chapter 9).

Beside the kernel of infinite width: a network less its values at the start; its linearization there, whose
kernel is of the same width and stands still; and the network in full batches, with a fifth of the rate. If
the linearization shares the gap, it is not that the kernel moves; if the network with small steps does, it is
not the optimizer. A kernel of finite width has a slope in pixels that are black in every training image; that
of infinite width has none. So attacks that leave these pixels alone are measured too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from companion import data, regression
from companion._core.checks import predicted
from companion._core.types import Array, Predict
from companion.attacks import Threat, margin, outputs_of, pgd
from companion.experiments._clocks_networks import AS_RECORDED, Descent, centered, linear, on_the_road
from companion.experiments._experiment import LISTS, Arrays, Experiment, Job, filled
from companion.experiments._shared import architecture

ROWS = ("kernel", "network", "linearized", "small steps")
ATTACKS = ("clean", "PGD", "PGD, black pixels left alone")


@dataclass(frozen=True)
class Case:
    """One data set and kernel.

    Attributes:
        dataset: name for `data.load`.
        kernel: of a network family, such as "FC-3", with the weights and biases of the experiment on clocks.
        eps: L∞ size, pixels in [0, 1].
        n_train: training images.
        n_test: test images, all attacked.
        widths: of the networks.
        small: of these, trained with small steps too.
    """

    dataset: str
    kernel: str
    eps: float
    n_train: int = 500
    n_test: int = 300
    widths: tuple[int, ...] = field(default=(128, 512, 2048), metadata=LISTS)
    small: tuple[int, ...] = field(default=(128, 512), metadata=LISTS)


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets with their kernels.
        seeds: splits, and networks.
        time: of training, in units of one over the mean diagonal of Θ(X, X), to a whole epoch of the network.
        steps: of PGD.
        weights: w_std and b_std.
    """

    cases: tuple[Case, ...] = field(metadata=LISTS)
    seeds: int = field(default=3, metadata=LISTS)
    time: float = 1.0
    steps: int = 10
    weights: tuple[float, float] = (1.76, 0.18)


PROFILES = {
    "quick": Config((Case("mnist5k", "FC-1", 0.1, 100, 100, (64, 256), (64,)),), seeds=1),
    "full": Config(
        (Case("mnist5k", "FC-1", 0.1, widths=(128, 512, 2048, 8192)), Case("mnist5k", "FC-3", 0.1))
    ),
    "paper": Config(
        tuple(
            Case("mnist5k", kernel, 0.1, 2000, 1000, (128, 512, 2048, 8192)) for kernel in ("FC-1", "FC-3")
        ),
        seeds=10,
    ),
}


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Train, and attack, to one time.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays, NaN where there is no run, over cases c, seeds s, `ROWS` r and widths w, the kernel at the
        first: `accuracy` (c, s, r, w, 3), of `ATTACKS`; `slope` (c, s, r, w, 3), means over test images: the
        margin, the L1 norm of its gradient in the pixels, which is how fast an L∞ attack takes it away, and
        the part of this norm in pixels that are black in every training image; `time` (c, s, r, w).
    """
    return EXPERIMENT.run(config, progress=progress)


def jobs(config: Config) -> list[Job]:
    """Of every seed and case the kernel; then of every width the network, its linearization, small steps."""
    found = []
    for seed in range(config.seeds):
        for case in config.cases:
            rows = [("kernel", 0)]
            for width in case.widths:
                rows += [(row, width) for row in ROWS[1:] if row != "small steps" or width in case.small]
            for row, width in rows:
                label = f"{case.dataset}, {case.kernel}, {row}" + f", width {width:,}" * (width > 0)
                config_of_run = case, seed, row, width, config.time, config.steps, config.weights
                found.append(Job(config_of_run, label, seed, case.dataset))
    return found


def compute(
    case: Case, seed: int, row: str, width: int, time: float, steps: int, weights: tuple[float, float]
) -> Arrays:
    """One row at one width; 0 for the kernel."""
    d = data.load(case.dataset, n_train=case.n_train, n_test=case.n_test, seed=seed)
    options = {"w_std": weights[0], "b_std": weights[1]}
    f = regression.fit(
        architecture(case.kernel, **options), d.x_train, data.targets(d.y_train, len(d.classes))
    )
    unit, largest = float(f.eigenvalues.mean()), float(f.eigenvalues[0])
    if row == "kernel":
        _, moment = AS_RECORDED.epochs(len(d.x_train), largest, time / unit)
        predict = f.at(moment)
    else:
        network = architecture(case.kernel, **options, width=width, n_outputs=len(d.classes))
        model = linear(network) if row == "linearized" else centered(network)
        descent = Descent(0.1, None) if row == "small steps" else AS_RECORDED
        given = {"attack": None, "largest": largest, "key": jax.random.key(seed), "descent": descent}
        ((moment, predict),) = on_the_road(model, d.x_train, d.y_train, [time / unit], **given)
    return _measured(predict, d, Threat("linf", case.eps), steps) | {"time": np.array(moment * unit)}


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    places = {}
    for job, arrays in made.items():
        case, seed, row, width = job.config[:4]
        at = case.widths.index(width) if width else 0
        places[config.cases.index(case), seed, ROWS.index(row), at] = arrays
    longest = max(len(case.widths) for case in config.cases)
    return filled((len(config.cases), config.seeds, len(ROWS), longest), places)


def _measured(f: Predict, d: data.Dataset, threat: Threat, steps: int) -> Arrays:
    x, y, black = d.x_test, d.y_test, d.x_train.max(axis=0) == 0

    def inked(z: Array) -> Array:
        return f(z * ~black)

    def right(g: Predict, points: np.ndarray) -> np.ndarray:
        return predicted(outputs_of(g, points, 256)) == y

    clean, moved = right(f, x), []
    for g in (f, inked):
        points = pgd(g, x, y, threat, steps=steps, early_stop=True, batch_size=min(256, len(x)))
        moved.append(right(g, x) & right(g, points))
    margins, slopes = [], []
    for first in range(0, len(x), 100):
        some, labels = x[first : first + 100], y[first : first + 100]
        margins.append(-np.asarray(margin(f(some), labels)))
        slopes.append(np.abs(jax.grad(lambda z, labels=labels: margin(f(z), labels).sum())(some)))
    slope = np.concatenate(slopes)
    norms = [part.reshape(len(x), -1).sum(axis=1).mean() for part in (slope, slope * black)]
    return {
        "accuracy": np.array([clean.mean(), *(one.mean() for one in moved)]),
        "slope": np.array([np.concatenate(margins).mean(), *norms]),
    }


EXPERIMENT = Experiment("widths", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
