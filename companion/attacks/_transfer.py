"""Do perturbations made for one function fool another, and why?"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core.checks import batch as examples
from companion._core.checks import class_labels, count, finite, predicted, same_inputs
from companion._core.compile import double
from companion._core.types import Array, Predict
from companion.attacks._losses import Loss, loss_named
from companion.attacks._predict import as_partial, checked_inputs, in_batches, loss_gradient, outputs_of
from companion.statistics import Estimate, accuracy, proportion


@dataclass(frozen=True)
class Transfer:
    """What each attack does to each network.

    Attributes:
        attacks: names, a.
        networks: names, b.
        accuracy: of network b on the inputs of attack a, `accuracy[a][b]`.
        success: share of the inputs that network b has right when clean and wrong under attack a, among those
            it has right when clean; None where it has none right.
        flipped: (attacks, networks, m), which inputs these are.
        agreement: (attacks, networks, networks), the Jaccard index of the sets flipped in two networks:
            common ones over those flipped in either; 1 where none is flipped in either.
    """

    attacks: tuple[str, ...]
    networks: tuple[str, ...]
    accuracy: dict[str, dict[str, Estimate]]
    success: dict[str, dict[str, Estimate | None]]
    flipped: np.ndarray
    agreement: np.ndarray


def transfer(
    attacks: Mapping[str, Float[Any, "m ..."]],
    networks: Mapping[str, Predict],
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    *,
    batch_size: int = 256,
    progress: bool = False,
) -> Transfer:
    """Evaluate attacked inputs, wherever they come from, on functions, whatever they are made of.

    Args:
        attacks: attacked inputs (m, ...) by name.
        networks: functions from inputs (m, ...), NumPy arrays, to outputs (m, k), by name. They are never
            differentiated: a network of another framework will do. A `Partial` is compiled.
        x: the clean inputs (m, ...).
        labels: classes (m,).
        batch_size: inputs at once.
        progress: show a tqdm bar over pairs of an attack and a network.

    Returns:
        Success rates with 95 % Wilson intervals, and which inputs are flipped.

    Raises:
        TypeError, ValueError: no attack or no network, arrays that do not fit each other.

    Cost: attacks × networks evaluations of all inputs.
    Source: the success matrix of Papernot et al. (2016), arXiv 1605.07277, section 3.

    >>> found = transfer({"down": np.zeros((2, 1), np.float32)}, {"identity": lambda x: x - 0.5},
    ...     np.ones((2, 1), np.float32), np.array([1, 1]))
    >>> found.success["down"]["identity"].value
    1.0
    """
    for name, value in (("attacks", attacks), ("networks", networks)):
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} must be a mapping from names, got {type(value).__name__}")
    for name, predict in networks.items():
        if not callable(predict):
            raise TypeError(f"networks[{name!r}] must be a function of inputs (m, ...), got {predict!r}")
    if not attacks or not networks:
        raise ValueError(f"want at least one attack and one network, got {len(attacks)} and {len(networks)}")
    x, batch_size = examples("x", x), count("batch_size", batch_size)
    labels = class_labels("labels", labels, len(x))
    attacked = {name: examples(f"attacks[{name!r}]", value) for name, value in attacks.items()}
    for name, value in attacked.items():
        same_inputs("x", x, f"attacks[{name!r}]", value)
        if len(value) != len(x):
            raise ValueError(f"attacks[{name!r}] must hold {len(x)} inputs as x does, got {len(value)}")
    pairs = list(itertools.product(({None: x} | attacked).items(), networks.items()))
    outputs = {}
    for (a, value), (b, predict) in tqdm(pairs, "transfer", unit="pair", disable=not progress):
        outputs[a, b] = outputs_of(predict, value, batch_size)
        if a is None:  # labels that one of the networks has no outputs for, before all attacks
            class_labels("labels", labels, len(x), outputs[a, b].shape[1])
    accuracies = {key: accuracy(value, labels) for key, value in outputs.items()}
    right = {key: np.asarray(predicted(value)) == labels for key, value in outputs.items()}
    flipped = np.array([[right[None, b] & ~right[a, b] for b in networks] for a in attacked])
    return Transfer(
        tuple(attacked),
        tuple(networks),
        {a: {b: accuracies[a, b] for b in networks} for a in attacked},
        {
            a: {b: _share(flipped[i, j], right[None, b]) for j, b in enumerate(networks)}
            for i, a in enumerate(attacked)
        },
        flipped,
        np.array([[[_jaccard(one, two) for two in sets] for one in sets] for sets in flipped]),
    )


def gradient_cosine(
    first: Predict,
    second: Predict,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    *,
    loss: Loss = "margin",
    batch_size: int = 256,
) -> Float[np.ndarray, " m"]:
    """Cosine of the angle between the loss gradients of two functions at every input.

    Args:
        first: as for `pgd`.
        second: as for `pgd`.
        x: inputs (m, ...).
        labels: classes (m,).
        loss: as for `pgd`.
        batch_size: inputs at once.

    Returns:
        (m,), in [−1, 1]; 0 where a gradient is zero. Independent directions in d pixels have 0 ± d^(−1/2).

    Raises:
        TypeError, ValueError: as `pgd`.

    Cost: one gradient of each function.

    >>> f, g = (lambda x: x @ jnp.array([[1.0], [0.0]])), (lambda x: x @ jnp.array([[1.0], [1.0]]))
    >>> gradient_cosine(f, g, np.ones((1, 2), np.float32), np.array([1])).round(3)
    array([0.707], dtype=float32)
    """
    batch_size, (x, labels) = (
        count("batch_size", batch_size),
        checked_inputs(first, x, labels, loss=loss, name="first"),
    )
    checked_inputs(second, x, labels, loss=loss, name="second")
    first, second, found = as_partial(first), as_partial(second), np.empty(len(x), x.dtype)
    with double(x, first, second):
        for some in in_batches(np.arange(len(x)), min(batch_size, len(x))):
            one, two = (
                loss_gradient(f, x[some], labels[some], loss=loss_named(loss)) for f in (first, second)
            )
            found[some] = _cosines(one, two)
    return finite("the gradients of first or second", found)


@jax.jit
def _cosines(one: Array, two: Array) -> Array:
    one, two = (v.reshape(len(v), -1) for v in (one, two))
    # Scaled first, so that squares of tiny gradients do not vanish.
    one, two = (v / jnp.maximum(jnp.abs(v).max(axis=1, keepdims=True), _tiny(v)) for v in (one, two))
    lengths = jnp.linalg.norm(one, axis=1) * jnp.linalg.norm(two, axis=1)
    return jnp.clip((one * two).sum(axis=1) / jnp.maximum(lengths, _tiny(lengths)), -1, 1)


def _tiny(value: Array) -> np.floating:
    return jnp.finfo(value.dtype).tiny


def _share(flipped: np.ndarray, right: np.ndarray) -> Estimate | None:
    """The share flipped of those right; None where there are none."""
    return proportion(flipped[right]) if right.any() else None


def _jaccard(one: np.ndarray, two: np.ndarray) -> float:
    either = int((one | two).sum())
    return int((one & two).sum()) / either if either else 1.0
