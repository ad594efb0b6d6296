"""Arguments of training, checked, and what tells one from another in a checkpoint."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from companion._core.checks import batch as examples
from companion._core.checks import count, number
from companion._core.compile import network
from companion._core.extras import missing
from companion.networks import Model, evaluation
from companion.storage import fingerprint

try:
    import optax
except ModuleNotFoundError as error:
    raise missing("optax", "networks") from error


def kinds(model: Any, optimizer: Any) -> None:
    if not isinstance(model, Model):
        raise TypeError(
            f"model must be a networks.Model, got {model!r}: networks.from_flax makes one of a Flax module, "
            "from_equinox of an Equinox module, from_architecture of fc(...), from_apply of any function"
        )
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"optimizer must come from Optax, such as optax.sgd(0.1), got {optimizer!r}")


def sizes(epochs: Any, batch_size: Any, n: int) -> tuple[int, int]:
    epochs, batch_size = count("epochs", epochs, least=0), count("batch_size", batch_size)
    if batch_size > n:
        raise ValueError(f"batch_size must be at most {n}, the number of inputs, got {batch_size}")
    return epochs, batch_size


def test(x: Any, labels: Any, attack: Any) -> tuple[np.ndarray, np.ndarray] | None:
    if x is not None:
        return data("x_test", x, "labels_test", labels)
    if attack is not None:
        raise ValueError("test_attack needs x_test and labels_test")
    return None


def data(name: str, x: Any, labels_name: str, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    x, labels = examples(name, x), np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.shape != x.shape[:1]:
        raise ValueError(
            f"{labels_name} must be integers of shape {x.shape[:1]}, got {labels.dtype} {labels.shape}"
        )
    return x, labels.astype(np.int32)


def fits(model: Model, variables: Any, x: np.ndarray, labels: np.ndarray) -> None:
    k = network("model", evaluation(model), variables, x)[1]
    if labels.min() < 0 or labels.max() >= max(2, k):
        raise ValueError(f"labels must lie in [0, {max(2, k)}), got {labels.min()} to {labels.max()}")


def functions(
    model: Model,
    variables: Any,
    x: np.ndarray,
    labels: np.ndarray,
    key: Any,
    *,
    attacks: Sequence[Any],
    penalty: Any,
    loss: Any,
    training_mode: bool,
) -> None:
    """Shapes of what functions of the user's return, without running them; or an error that names one."""

    def predict(z: Any) -> Any:
        return model.apply(*variables, z, training_mode)[0]

    def shape(function: Any, *arguments: Any) -> Any:
        return getattr(jax.eval_shape(function, *arguments), "shape", None)

    losses = shape(lambda x, labels: loss(predict(x), labels), x, labels)
    if losses != labels.shape:
        raise ValueError(f"loss must return one value for each example, {labels.shape}, got shape {losses}")
    for name, function, wanted in (*(("attack", one, x.shape) for one in attacks), ("penalty", penalty, ())):
        if function is None:
            continue
        got = shape(lambda x, y, f=function: f(predict, x, y, key, 0.0), x, labels)
        if got != wanted:
            raise ValueError(f"{name} must return an array of shape {wanted} for these inputs, got {got}")


def marks(name: str, moments: Any, epochs: int, n_steps: int) -> list[int]:
    """Epochs as numbers of minibatches."""
    found = sorted({round(number(name, epoch) * n_steps) for epoch in moments})
    if found and found[-1] > epochs * n_steps:
        raise ValueError(f"{name} must lie within {epochs} epochs, got {found[-1] / n_steps:g}")
    return found


def moments(record: Any, keep: Any, epochs: int, n_steps: int) -> tuple[list[int], set[int]]:
    """After which minibatches to record, and after which of these to keep the network."""
    recorded = marks("record", range(epochs + 1) if record is None else record, epochs, n_steps)
    kept = set(recorded if keep is True else marks("keep", keep or (), epochs, n_steps))
    if not kept <= set(recorded):
        missing = sorted(mark / n_steps for mark in kept.difference(recorded))
        raise ValueError(f"keep must name epochs of record, got {missing}")
    return recorded, kept


def identity(optimizer: Any, params: Any, **parts: Any) -> dict[str, str]:
    """What tells a run from another in a folder, by name; a warning where something cannot be told."""
    state = jax.eval_shape(optimizer.init, params)
    leaves = [
        (jax.tree_util.keystr(path), leaf.shape, leaf.dtype.name)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    ]
    found = {}
    for name, part in (parts | {"optimizer": (optimizer, leaves)}).items():
        name, unseen = name.replace("_", " "), []
        found[name] = fingerprint(part, unseen)
        if unseen:
            what = ", ".join(sorted(set(unseen)))
            warnings.warn(
                f"folder: {what} of the {name} cannot be compared when the run goes on: see to it yourself",
                stacklevel=4,
            )
    return found
