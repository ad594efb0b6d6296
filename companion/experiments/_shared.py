"""What several experiments do alike: kernels by name, SGD, the attack at the end, intervals."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from companion import data
from companion.architectures import Architecture, conv, fc, myrtle
from companion.attacks import Threat, pgd, robust_accuracy


def architecture(name: str, **sizes: Any) -> Architecture:
    """The network family that a name such as "FC-3" stands for."""
    kind, depth = name.split("-")
    return {"FC": fc, "Conv": conv, "Myrtle": myrtle}[kind](int(depth), **sizes)


def attack_batch(kernel: Architecture) -> int:
    """Images to attack at once: fewer where a kernel entry takes memory for every pixel."""
    return 256 if kernel.pixel_power == 0 else 32


@functools.lru_cache
def sgd(rate: float, momentum: float, falls: tuple[int, ...] = ()) -> optax.GradientTransformation:
    """SGD of a constant rate, or of one that falls to a tenth at each of `falls`, in steps."""
    schedule = optax.piecewise_constant_schedule(rate, dict.fromkeys(falls, 0.1)) if falls else rate
    return optax.sgd(schedule, momentum=momentum)


@functools.lru_cache(maxsize=8)
def images_of(case: Any) -> data.Dataset:
    """The images of a case."""
    return data.load(case.dataset, n_train=case.n_train, n_test=case.n_test)


def at_the_end(f: Callable[[Any], Any], case: Any, seed: int, **options: Any) -> np.ndarray:
    """Clean accuracy and that under PGD with restarts, (2, 3) with the ends of 95 % intervals.

    Args:
        f: outputs of a trained network.
        case: has `eps`, and `final`: steps and restarts.
        seed: of the run.
        options: of `pgd`, other than early stopping on at most 512 images at once.
    """
    images, (steps, restarts) = images_of(case), case.final
    x, y = images.x_test, images.y_test
    size = min(512, len(x))  # fewer images would be padded
    options = {"early_stop": True, "batch_size": size, "key": jax.random.key(1000 + seed)} | options
    attacked = pgd(f, x, y, Threat("linf", case.eps), steps=steps, restarts=restarts, **options)
    return np.stack([robust_accuracy(f, points, y).as_array() for points in (x, attacked)])


def peak_memory() -> float:
    """The most bytes that this process ever held; NaN where the system does not tell."""
    try:
        told = Path("/proc/self/status").read_text("utf8")
    except FileNotFoundError:
        return float("nan")
    return 1024.0 * int(re.search(r"VmHWM:\s*(\d+)", told)[1])
