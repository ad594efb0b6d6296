"""How fast finite networks approach their kernel as the width grows (chapter 1).

Measured on real digits: the empirical kernel at initialization against the analytic one, and the outputs
of a trained network against f_t of kernel regression. The second distance has two parts, measured too: from
f_t to the flow of the network's own frozen kernel (its linearization), and from there to the network, whose
kernel moves. Theory expects each to fall as width^(−1/2): Jacot et al. (2018), arXiv 1806.07572; Lee et al.
(2019), arXiv 1902.06720.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np

from companion import data, regression
from companion.architectures import fc
from companion.empirical import empirical_ntk
from companion.experiments._experiment import Arrays, Experiment, Job, Part, filled
from companion.kernels import gram
from companion.training import gradient_descent


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        depth: hidden layers.
        widths: hidden units of the networks at initialization.
        seeds: networks of each width at initialization.
        n_images: digits on which the kernels are compared.
        trained_widths: hidden units of the trained networks.
        trained_seeds: networks of each width that are trained.
        n_train: digits of the pair (4, 9) to train on.
        n_test: digits on which outputs are compared.
        record: numbers of gradient steps after which outputs are compared.
        step: learning rate in units of 1/λ_max of the training kernel.
    """

    depth: int = 2
    widths: tuple[int, ...] = (32, 128, 512, 2048)
    seeds: int = 8
    n_images: int = 20
    trained_widths: tuple[int, ...] = (32, 100, 320, 1024)
    trained_seeds: int = 5
    n_train: int = 60
    n_test: int = 100
    record: tuple[int, ...] = (0, 1, 3, 10, 30, 100, 200)
    step: float = 0.5


PROFILES = {
    "quick": Config(),
    "full": Config(
        widths=tuple(2**i for i in range(5, 14)),
        seeds=20,
        trained_widths=tuple(2**i for i in range(5, 13)),
        trained_seeds=10,
    ),
}


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Measure both distances for every width and seed.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays: `widths` (w,), `kernel_error` (seeds, w), relative in Frobenius norm; `kernel` (n, n), the
        analytic one; `kernels` (w, n, n), the empirical ones of seed 0; `labels` (n,), ascending;
        `trained_widths` (v,); `times` (r,), of the gradient flow; and, as root mean squares over the test
        digits, `deviation` (seeds, v, r) from trained networks to f_t, `frozen` from their linearizations
        to f_t, `moved` from trained networks to their linearizations, and `size` (r,) of f_t itself.
    """
    return EXPERIMENT.run(config, progress=progress)


def jobs(config: Config) -> list[Job]:
    """Kernels at initialization of every seed, and trained networks of every seed."""
    at_start = config.depth, config.widths, config.n_images
    trained = config.depth, config.trained_widths, config.n_train, config.n_test, config.record, config.step
    found = [
        Job(("kernel", at_start, seed), f"kernels, {config.depth} layers", seed, "mnist5k")
        for seed in range(config.seeds)
    ] + [
        Job(("training", trained, seed), f"training, {config.depth} layers", seed, "mnist5k")
        for seed in range(config.trained_seeds)
    ]
    return sorted(found, key=lambda one: one.seed)


def compute(part: str, sizes: tuple[Part, ...], seed: int) -> Arrays:
    """Networks of one seed and every width, at initialization or trained."""
    return {"kernel": _at_initialization, "training": _trained}[part](*sizes, seed)


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    rows, once = {"kernel": {}, "training": {}}, {}
    for job, arrays in made.items():
        part, _, seed = job.config
        rows[part][(seed,)] = {name: arrays[name] for name in _BY_SEED if name in arrays}
        once |= {name: array for name, array in arrays.items() if name not in _BY_SEED}
    return (
        filled((config.seeds,), rows["kernel"])
        | filled((config.trained_seeds,), rows["training"])
        | {name: array.astype(int) if name == "labels" else array for name, array in once.items()}
        | {"widths": np.array(config.widths), "trained_widths": np.array(config.trained_widths)}
    )


_BY_SEED = ("kernel_error", "deviation", "frozen", "moved")


def _at_initialization(depth: int, widths: tuple[int, ...], n_images: int, seed: int) -> Arrays:
    digits = data.load("mnist5k", n_train=n_images)
    order = np.argsort(digits.y_train, kind="stable")
    x = digits.x_train[order]
    exact = gram(fc(depth), x)
    networks = [fc(depth, width=width) for width in widths]
    kernels = [empirical_ntk(one.apply, one.init(jax.random.key(seed), x), x) for one in networks]
    found = {
        "kernel_error": np.array([np.linalg.norm(one - exact) / np.linalg.norm(exact) for one in kernels])
    }
    if seed == 0:
        found |= {"kernel": exact, "kernels": np.stack(kernels), "labels": digits.y_train[order]}
    return found


def _trained(
    depth: int,
    widths: tuple[int, ...],
    n_train: int,
    n_test: int,
    record: tuple[int, ...],
    step: float,
    seed: int,
) -> Arrays:
    digits = data.load("mnist5k", classes=(4, 9), n_train=n_train, n_test=n_test)
    x, z, y = digits.x_train, digits.x_test, data.targets(digits.y_train, 2).astype(np.float32)
    fitted = regression.fit(gram(fc(depth), x), targets=y)
    rate = step / float(fitted.eigenvalues[0])
    times = rate * np.array(record)
    cross = gram(fc(depth), z, x)
    expected = np.stack([fitted.at(t).from_kernel(cross) for t in times])
    found = {"deviation": [], "frozen": [], "moved": []}
    for width in widths:
        network = fc(depth, width=width)
        start = network.init(jax.random.key(seed), x)
        outputs = gradient_descent(network.apply, start, x, y, z, learning_rate=rate, record=record)
        own = regression.fit(empirical_ntk(network.apply, start, x), targets=y)
        own_cross = empirical_ntk(network.apply, start, z, x)
        linearized = np.stack([own.at(t).from_kernel(own_cross) for t in times])
        found["deviation"].append(_rms(outputs - expected))
        found["frozen"].append(_rms(linearized - expected))
        found["moved"].append(_rms(outputs - linearized))
    return {name: np.stack(rows) for name, rows in found.items()} | {"times": times, "size": _rms(expected)}


def _rms(outputs: np.ndarray) -> np.ndarray:
    """Root mean square over test digits and outputs, one for each time."""
    return np.sqrt((outputs**2).mean(axis=(1, 2)))


EXPERIMENT = Experiment("convergence", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
