"""Finite networks beside the kernels of the experiment on clocks: plain training, and against PGD."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from companion._core.types import Array, Key, Params, Predict, State, Variables
from companion.architectures import Architecture
from companion.attacks import Threat, training_attack
from companion.experiments._shared import sgd
from companion.networks import Model
from companion.training import train

_MOMENTUM, _BATCH = 0.9, 50


@functools.lru_cache
def centered(architecture: Architecture) -> Model:
    """f(x; θ) − f(x; θ₀) of a finite network: it starts at 0, as its kernel does."""

    def init(key: Key, x: Array) -> Variables:
        start = architecture.init(key, x)
        return start, start

    def apply(params: Params, state: State, x: Array, _: bool) -> tuple[Array, State]:
        return architecture.apply(params, x) - architecture.apply(state, x), state

    return Model(architecture.name, init, apply)


def on_the_road(
    architecture: Architecture,
    x: np.ndarray,
    labels: np.ndarray,
    threat: Threat | None,
    times: Sequence[float],
    *,
    steps: int,
    largest: float,
    key: Key,
) -> Iterator[tuple[float, Predict]]:
    """The network at these times of its training by SGD with momentum on the squared loss.

    A step takes η / ((1 − μ) n) of the kernel's time, for momentum μ, a rate η, and n images: with the mean
    over a minibatch gradient flow on the sum over all images is followed, as long as the kernel stays.

    Args:
        architecture: with width and outputs.
        x: training images (n, ...).
        labels: their classes (n,).
        threat: of the PGD that it is trained against; None for plain training.
        times: in the kernel's units, growing.
        steps: of that PGD.
        largest: eigenvalue of the kernel, which bounds the rate.
        key: a JAX random key.

    Yields:
        Time, to a whole epoch, and the network then.
    """
    n, batch = len(x), min(_BATCH, len(x))
    epoch = (n // batch) * 0.5 / largest / (1 - _MOMENTUM)  # in time, at half of the mean loss's 1 / λ
    epochs = sorted({max(1, round(t / epoch)) for t in times})
    model = centered(architecture)
    attack = None if threat is None else training_attack(threat, steps=steps)
    options = {"optimizer": sgd(0.5 * n / largest, _MOMENTUM), "loss": "squared", "attack": attack}
    options |= {"batch_size": batch, "record": epochs, "keep": epochs, "key": key}
    run = train(model, x, labels, epochs=epochs[-1], **options)
    for one in epochs:
        yield one * epoch, run.predict(model, epoch=one)
