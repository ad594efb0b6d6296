"""Finite networks beside the kernels of the experiments on clocks and widths, at the kernel's own time."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from companion import networks
from companion._core.types import Array, InLoop, Key, Params, Predict, State, Variables
from companion.architectures import Architecture
from companion.experiments._shared import sgd
from companion.networks import Model
from companion.training import train


@dataclass(frozen=True)
class Descent:
    """SGD with momentum.

    Attributes:
        rate: in units of 1/λ of the mean loss, λ its largest curvature under the kernel.
        batch_size: images in a step; None for all.
        momentum: μ.
    """

    rate: float = 0.5
    batch_size: int | None = 50
    momentum: float = 0.9

    def batch(self, n: int) -> int:
        """Images in a step, of n."""
        return min(self.batch_size or n, n)

    def epochs(self, n: int, largest: float, time: float) -> tuple[int, float]:
        """The epochs that come nearest to a time of the kernel, one at least, and their time.

        A step takes η / ((1 − μ) n) of it, for a rate η: with the mean over a minibatch gradient flow on the
        sum over all n images is followed, as long as the kernel stays.
        """
        epoch = n // self.batch(n) * self.rate / largest / (1 - self.momentum)
        count = max(1, round(time / epoch))
        return count, count * epoch


AS_RECORDED = Descent()


@functools.lru_cache
def centered(architecture: Architecture) -> Model:
    """f(x; θ) − f(x; θ₀) of a finite network: it starts at 0, as its kernel does."""

    def init(key: Key, x: Array) -> Variables:
        start = architecture.init(key, x)
        return start, start

    def apply(params: Params, state: State, x: Array, _: bool) -> tuple[Array, State]:
        return architecture.apply(params, x) - architecture.apply(state, x), state

    return Model(architecture.name, init, apply)


@functools.lru_cache
def linear(architecture: Architecture) -> Model:
    """⟨∂_θ f(x; θ₀), δ⟩ from the same θ₀: all that the network's kernel at the start can learn."""

    def apply(params: Params, state: State, x: Array, _: bool) -> tuple[Array, State]:
        return architecture.apply(params, x), state

    plain = Model(architecture.name, lambda key, x: (architecture.init(key, x), ()), apply)
    return networks.linearized(plain, center=True)


def on_the_road(
    model: Model,
    x: np.ndarray,
    labels: np.ndarray,
    times: Sequence[float],
    *,
    attack: InLoop | None,
    largest: float,
    key: Key,
    descent: Descent = AS_RECORDED,
) -> Iterator[tuple[float, Predict]]:
    """A network at these times of its training on the squared loss.

    Args:
        model: with one output a class, such as `centered` or `linear`.
        x: training images (n, ...).
        labels: their classes (n,).
        times: in the kernel's units, growing.
        attack: what it is trained against; None for plain training.
        largest: eigenvalue of the kernel, which bounds the rate.
        key: a JAX random key.
        descent: how it is trained.

    Yields:
        Time, to a whole epoch, and the network then.
    """
    n = len(x)
    moments = dict(sorted({descent.epochs(n, largest, t) for t in times}))
    epochs = list(moments)
    options = {"optimizer": sgd(descent.rate * n / largest, descent.momentum), "loss": "squared"}
    options |= {"batch_size": descent.batch(n), "record": epochs, "keep": epochs, "key": key}
    run = train(model, x, labels, epochs=epochs[-1], attack=attack, **options)
    for one, moment in moments.items():
        yield moment, run.predict(model, epoch=one)
