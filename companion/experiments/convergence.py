"""How fast finite networks approach their kernel as the width grows (chapter 1).

Measured on real digits: the empirical kernel at initialization against the analytic one, and the outputs
of a trained network against f_t of kernel regression. The second distance has two parts, measured too: from
f_t to the flow of the network's own frozen kernel (its linearization), and from there to the network, whose
kernel moves. Theory expects each to fall as width^(−1/2): Jacot et al. (2018), arXiv 1806.07572; Lee et al.
(2019), arXiv 1902.06720.
"""

from dataclasses import dataclass

import jax
import numpy as np
from tqdm.auto import tqdm

from companion import data, regression
from companion.architectures import fc
from companion.empirical import empirical_ntk
from companion.experiments import main
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


def run(config: Config, *, progress: bool = False) -> dict[str, np.ndarray]:
    """Measure both distances for every width and seed.

    Args:
        config: sizes.
        progress: show tqdm bars.

    Returns:
        Arrays: `widths` (w,), `kernel_error` (seeds, w), relative in Frobenius norm; `kernel` (n, n), the
        analytic one; `kernels` (w, n, n), the empirical ones of seed 0; `labels` (n,), ascending;
        `trained_widths` (v,); `times` (r,), of the gradient flow; and, as root mean squares over the test
        digits, `deviation` (seeds, v, r) from trained networks to f_t, `frozen` from their linearizations
        to f_t, `moved` from trained networks to their linearizations, and `size` (r,) of f_t itself.
    """
    return _at_initialization(config, progress) | _trained(config, progress)


def _at_initialization(config: Config, progress: bool) -> dict[str, np.ndarray]:
    digits = data.load("mnist5k", n_train=config.n_images)
    order = np.argsort(digits.y_train, kind="stable")
    x = digits.x_train[order]
    exact = gram(fc(config.depth), x)
    errors = np.empty((config.seeds, len(config.widths)))
    examples = []
    for column, width in enumerate(tqdm(config.widths, desc="kernels", disable=not progress)):
        network = fc(config.depth, width=width)
        for seed in range(config.seeds):
            kernel = empirical_ntk(network.apply, network.init(jax.random.key(seed), x), x)
            errors[seed, column] = np.linalg.norm(kernel - exact) / np.linalg.norm(exact)
            if seed == 0:
                examples.append(kernel)
    return {
        "widths": np.array(config.widths),
        "kernel_error": errors,
        "kernel": exact,
        "kernels": np.stack(examples),
        "labels": digits.y_train[order],
    }


def _trained(config: Config, progress: bool) -> dict[str, np.ndarray]:
    digits = data.load("mnist5k", classes=(4, 9), n_train=config.n_train, n_test=config.n_test)
    x, z, y = digits.x_train, digits.x_test, data.targets(digits.y_train, 2).astype(np.float32)
    fitted = regression.fit(gram(fc(config.depth), x), targets=y)
    rate = config.step / float(fitted.eigenvalues[0])
    times = rate * np.array(config.record)
    cross = gram(fc(config.depth), z, x)
    expected = np.stack([fitted.at(t).from_kernel(cross) for t in times])
    shape = (config.trained_seeds, len(config.trained_widths), len(times))
    deviation, frozen, moved = np.empty(shape), np.empty(shape), np.empty(shape)
    for column, width in enumerate(tqdm(config.trained_widths, desc="training", disable=not progress)):
        network = fc(config.depth, width=width)
        for seed in range(config.trained_seeds):
            start = network.init(jax.random.key(seed), x)
            outputs = gradient_descent(
                network.apply, start, x, y, z, learning_rate=rate, record=config.record
            )
            own = regression.fit(empirical_ntk(network.apply, start, x), targets=y)
            own_cross = empirical_ntk(network.apply, start, z, x)
            linearized = np.stack([own.at(t).from_kernel(own_cross) for t in times])
            deviation[seed, column] = _rms(outputs - expected)
            frozen[seed, column] = _rms(linearized - expected)
            moved[seed, column] = _rms(outputs - linearized)
    return {
        "trained_widths": np.array(config.trained_widths),
        "times": times,
        "deviation": deviation,
        "frozen": frozen,
        "moved": moved,
        "size": _rms(expected),
    }


def _rms(outputs: np.ndarray) -> np.ndarray:
    """Root mean square over test digits and outputs, one for each time."""
    return np.sqrt((outputs**2).mean(axis=(1, 2)))


if __name__ == "__main__":
    main(
        "convergence",
        PROFILES,
        run,
        dataset="mnist5k",
        seeds=lambda config: range(max(config.seeds, config.trained_seeds)),
    )
