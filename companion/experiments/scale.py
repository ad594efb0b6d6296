"""Kernel regression on a whole data set, timed stage by stage (chapter 1).

The kernel of all training images, its Cholesky factorization, the kernel to the test images, and the
predictions; beside the kernel its floor on the same machine, the matrix product x xᵀ.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from companion import data, regression, statistics
from companion.architectures import fc
from companion.experiments._experiment import Arrays, Experiment, Job
from companion.kernels import gram, plan


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        dataset: name of the data set, for `data.load`; all its classes.
        n_train: training images.
        n_test: test images.
        depth: hidden layers of the fully connected network.
        ridge: on the diagonal, in units of its mean.
    """

    dataset: str = "mnist5k"
    n_train: int = 2000
    n_test: int = 1000
    depth: int = 3
    ridge: float = 1e-4


PROFILES = {
    "quick": Config(),
    "full": Config(dataset="cifar10", n_train=20_000, n_test=10_000),
    "paper": Config(dataset="cifar10", n_train=50_000, n_test=10_000),
}


def jobs(config: Config) -> list[Job]:
    """One run."""
    return [Job((config,), f"{config.dataset}, {config.n_train:,} images", 0, config.dataset)]


def gather(_: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of the one run."""
    return dict(next(iter(made.values())))


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Fit and test once, and time every stage.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Numbers: seconds of `gram`, `solve`, `cross` (the kernel to the test images) and `predict`; of
        `product`, the floor of `gram`: one n × n × d matrix product in float32 on the same device;
        and `accuracy` (3,) on the test images: value, and ends of its 95 % interval. Compilations are
        not counted. Takes 12 n² bytes of host memory.
    """
    return EXPERIMENT.run(config, progress=progress)


def compute(config: Config) -> Arrays:
    """Every stage once, and the seconds of each."""
    images = data.load(config.dataset, n_train=config.n_train, n_test=config.n_test)
    architecture = fc(config.depth)
    x, z = images.x_train, images.x_test
    seconds = {}
    # A plan compiles what `gram` then runs.
    plan(architecture, x)
    plan(architecture, z, x)
    with _timed(seconds, "gram"):
        kernel = gram(architecture, x)
    ridge = config.ridge * float(np.diag(kernel).mean())
    targets = data.targets(images.y_train, len(images.classes))
    with _timed(seconds, "solve"):
        f = regression.fit(kernel, targets=targets, ridge=ridge, solver="cholesky")
    del kernel
    with _timed(seconds, "cross"):
        cross = gram(architecture, z, x)
    with _timed(seconds, "predict"):
        outputs = cross @ f.coefficients.astype(np.float32)
    seconds["product"] = _product_seconds(x.reshape(len(x), -1))
    found = statistics.accuracy(outputs, images.y_test)
    return {name: np.array(value) for name, value in seconds.items()} | {
        "accuracy": np.array([found.value, found.low, found.high])
    }


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def _product_seconds(x: np.ndarray) -> float:
    """The least of three products x xᵀ, in row blocks that fit beside x."""
    product = jax.jit(lambda a, b: jnp.matmul(a, b.T, precision="highest"))
    rows = min(len(x), 5000)
    device, part = jnp.asarray(x), jnp.asarray(x[:rows])
    product(part, device).block_until_ready()
    least = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        product(part, device).block_until_ready()
        least = min(least, time.perf_counter() - start)
    return least * len(x) / rows


EXPERIMENT = Experiment(
    "scale",
    1,
    PROFILES,
    jobs,
    compute,
    gather,
    measured=("gram", "solve", "cross", "predict", "product"),
    alone=True,
)
recorded = EXPERIMENT.recorded
