"""What several experiments do alike: kernels by name, SGD, the attack at the end, intervals."""

import functools
import re
from pathlib import Path
from typing import Protocol, runtime_checkable

import jax
import numpy as np
import optax

from companion import data
from companion._core.types import Predict
from companion.architectures import Architecture, conv, fc, myrtle
from companion.attacks import Threat, pgd, robust_accuracy


@runtime_checkable
class Images(Protocol):
    """A case, as far as its images go."""

    dataset: str
    n_train: int
    n_test: int


@runtime_checkable
class Attacked(Images, Protocol):
    """A case that is attacked at the end, within ε, by PGD with so many steps and restarts."""

    eps: float
    final: tuple[int, int]


def architecture(name: str, **options: int | float | str) -> Architecture:
    """The network family that a name such as "FC-3" stands for."""
    kind, depth = name.split("-")
    return {"FC": fc, "Conv": conv, "Myrtle": myrtle}[kind](int(depth), **options)


def attack_batch(kernel: Architecture) -> int:
    """Images to attack at once: fewer where a kernel entry takes memory for every pixel."""
    return 256 if kernel.pixel_power == 0 else 32


@functools.lru_cache
def sgd(rate: float, momentum: float, falls: tuple[int, ...] = ()) -> optax.GradientTransformation:
    """SGD of a constant rate, or of one that falls to a tenth at each of `falls`, in steps."""
    schedule = optax.piecewise_constant_schedule(rate, dict.fromkeys(falls, 0.1)) if falls else rate
    return optax.sgd(schedule, momentum=momentum)


@functools.lru_cache(maxsize=8)
def images_of(case: Images) -> data.Dataset:
    """The images of a case."""
    return data.load(case.dataset, n_train=case.n_train, n_test=case.n_test)


def at_the_end(f: Predict, case: Attacked, seed: int, *, batch_size: int = 100) -> np.ndarray:
    """Clean accuracy and that under PGD with restarts, (2, 3) with the ends of 95 % intervals.

    Args:
        f: outputs of a trained network.
        case: with ε, and the PGD of the end.
        seed: of the run.
        batch_size: images at once, or all where there are fewer; small batches fill up less where images are
            fooled early.
    """
    images, (steps, restarts) = images_of(case), case.final
    x, y = images.x_test, images.y_test
    at_once = min(batch_size, len(x))  # fewer images would be padded
    attacked = pgd(
        f,
        x,
        y,
        Threat("linf", case.eps),
        steps=steps,
        restarts=restarts,
        early_stop=True,
        batch_size=at_once,
        key=jax.random.key(1000 + seed),
    )
    return np.stack(
        [robust_accuracy(f, points, y, batch_size=at_once).as_array() for points in (x, attacked)]
    )


def peak_memory() -> float:
    """The most bytes that this process ever held; NaN where the system does not tell."""
    try:
        told = Path("/proc/self/status").read_text("utf8")
    except FileNotFoundError:
        return float("nan")
    return 1024.0 * int(re.search(r"VmHWM:\s*(\d+)", told)[1])
