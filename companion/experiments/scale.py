"""Kernel regression on a whole data set, timed stage by stage (chapter 1).

The kernel of all training images, its Cholesky factorization, the kernel to the test images, and the
predictions; beside the kernel its floor on the same machine, the matrix product x xᵀ.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from companion import data, regression, statistics
from companion.architectures import fc
from companion.experiments import main
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


def run(config: Config, *, progress: bool = False) -> dict[str, np.ndarray]:
    """Fit and test once, and time every stage.

    Args:
        config: sizes.
        progress: show the kernels' tqdm bars.

    Returns:
        Numbers: seconds of `gram`, `solve`, `cross` (the kernel to the test images) and `predict`; of
        `product`, the floor of `gram`: one n × n × d matrix product in float32 on the same device;
        and `accuracy` (3,) on the test images: value, and ends of its 95 % interval. Compilations are
        not counted. Takes 12 n² bytes of host memory.
    """
    images = data.load(config.dataset, n_train=config.n_train, n_test=config.n_test)
    architecture = fc(config.depth)
    x, z = images.x_train, images.x_test
    seconds = {}
    # A plan compiles what `gram` then runs.
    plan(architecture, x)
    plan(architecture, z, x)
    kernel = _timed(seconds, "gram", gram, architecture, x, progress=progress)
    ridge = config.ridge * float(np.diag(kernel).mean())
    targets = data.targets(images.y_train, len(images.classes))
    f = _timed(seconds, "solve", regression.fit, kernel, targets=targets, ridge=ridge, solver="cholesky")
    del kernel
    cross = _timed(seconds, "cross", gram, architecture, z, x, progress=progress)
    outputs = _timed(seconds, "predict", np.matmul, cross, f.coefficients.astype(np.float32))
    seconds["product"] = _product_seconds(x.reshape(len(x), -1))
    found = statistics.accuracy(outputs, images.y_test)
    return {name: np.array(value) for name, value in seconds.items()} | {
        "accuracy": np.array([found.value, found.low, found.high])
    }


def _timed(seconds: dict[str, float], name: str, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
    start = time.perf_counter()
    value = work(*args, **options)
    seconds[name] = time.perf_counter() - start
    return value


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


if __name__ == "__main__":
    main(
        "scale",
        PROFILES,
        run,
        dataset=lambda config: data.load(config.dataset, n_train=1, n_test=1).source,
        seeds=lambda _: range(1),
    )
