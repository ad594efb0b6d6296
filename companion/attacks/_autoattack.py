"""AutoAttack: four attacks that need no tuning, each on what the ones before left."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree
from tqdm.auto import tqdm

from companion._core import geometry
from companion._core.checks import count, predicted, random_key
from companion._core.compile import double
from companion._core.shown import brief
from companion._core.types import Key, Predict
from companion.attacks._apgd import apgd
from companion.attacks._fab import fab
from companion.attacks._predict import as_partial, checked_inputs, outputs_of, some_at_once
from companion.attacks._square import square
from companion.attacks._threat import Threat, checked_threat
from companion.statistics import Estimate, proportion
from companion.storage import compared, held, place, read_arrays, write_atomically

_PART = 1024  # inputs whose results are kept together
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


@dataclass(frozen=True, eq=False)
class AutoAttack:
    """What `autoattack` found.

    Attributes:
        attacked: inputs (m, ...); x itself where it is classified wrongly, or where nothing was found.
        fooled_by: the first of `attacks` to fool each input (m,), by its place there; −1 for none.
        attacks: "clean", for inputs that are classified wrongly as they are, and the attacks in their order.
        accuracy: after each of them, with its 95 % interval.
        seconds: of each attack, with compilation; "clean" takes what the checks take.
    """

    attacked: Float[np.ndarray, "m ..."]
    fooled_by: Int[np.ndarray, " m"]
    attacks: tuple[str, ...]
    accuracy: Mapping[str, Estimate]
    seconds: Mapping[str, float]

    __repr__ = brief

    @property
    def robust_accuracy(self) -> Estimate:
        """The share of inputs that no attack fooled."""
        return self.accuracy[self.attacks[-1]]

    def __str__(self) -> str:
        """A line for each attack: accuracy after it, and seconds."""
        return "\n".join(
            f"{name:8} {self.accuracy[name]}  {self.seconds[name]:8.1f} s" for name in self.attacks
        )


def autoattack(
    predict: Predict,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    key: Key,
    version: str | Sequence[str] = "standard",
    queries: int = 5000,
    batch_size: int | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> AutoAttack:
    """AutoAttack: Auto-PGD on the cross-entropy, on the targeted ratio of logits, targeted FAB, and Square.

    Each attacks what the ones before left, so that robust accuracy falls from line to line. An upper bound of
    the true one, as every attack gives, and the one that the field compares by.

    One output, and two classes, have the margin in place of the ratio; of three classes its denominator is
    z_π1 − z_π3 (`targeted_dlr`). There are min(9, k − 1) target classes. For L1 the first attack has five
    attempts, and the second five target classes.

    Args:
        predict: as for `pgd`.
        x: clean inputs (m, ...); for Square images (m, h, w, c).
        labels: classes (m,).
        threat: norm, eps and bounds.
        key: a JAX random key.
        version: "standard", or names of `STANDARD` in the order wanted, such as ("apgd-ce", "apgd-t").
        queries: of Square.
        batch_size: inputs at once, in every attack: one shape to compile. None: 64 on a CPU, where the last
            batch of what is left is filled up for little, and 256 elsewhere.
        folder: where results are kept part by part (of 1,024 inputs, or a batch if that is more), so that a
            stopped run goes on there; None: nowhere.
        progress: show a tqdm bar over batches and attacks.

    Returns:
        Attacked inputs, which attack fooled which, accuracy and seconds after each.

    Raises:
        TypeError, ValueError: as `pgd`; also an unknown version, and inputs that are no images with Square.
        OSError: the folder cannot be written.

    Cost: of an input that resists: 100 gradients, 100 and twice that for each of min(9, k − 1) targets, and
    `queries` evaluations.
    Source: Croce & Hein (2020), arXiv 2003.01690, section 5; for L1 (2021), arXiv 2103.01208, section 5.

    >>> import jax.numpy as jnp
    >>> x = np.full((1, 5, 5, 1), 0.5, np.float32)
    >>> found = autoattack(lambda x: x.mean((1, 2)) - 0.4, x, np.array([1]), Threat("linf", 0.2),
    ...     key=jax.random.key(0))
    >>> found.robust_accuracy.value, found.attacks[found.fooled_by[0]]
    (0.0, 'apgd-ce')
    """
    names = STANDARD if version == "standard" else (version,) if isinstance(version, str) else tuple(version)
    if not names or not set(names) <= set(STANDARD):
        raise ValueError(f"version must be 'standard' or some of {STANDARD}, got {version!r}")
    queries, batch_size = count("queries", queries), some_at_once(batch_size)
    random_key("key", key)
    x, labels = checked_inputs(predict, x, labels, checked_threat(threat).bounds)
    if "square" in names and x.ndim != 4:
        raise ValueError(f"x must be images (m, h, w, c) for the square attack, got shape {x.shape}")
    with double(x, predict):
        predict, size = as_partial(predict), max(_PART, batch_size)
        known = (names, queries, size, dataclasses.astuple(threat), jax.random.key_data(key), x, labels)
        keeper = _Keeper(folder, (*known, predict) if folder is not None else None)
        firsts = range(0, len(x), size)
        with tqdm(total=len(firsts) * len(names), desc="AutoAttack", disable=not progress) as bar:
            parts = [
                keeper.kept(
                    number,
                    lambda some=slice(first, first + size), number=number: _attacked(
                        predict, x[some], labels[some], threat, jax.random.fold_in(key, number), names,
                        queries, batch_size, bar,
                    ),
                )
                for number, first in enumerate(firsts)
            ]  # fmt: skip
    attacked, fooled_by = (
        np.concatenate([part[name] for part in parts]) for name in ("attacked", "fooled_by")
    )
    seconds = np.sum([part["seconds"] for part in parts], axis=0)
    every = ("clean", *names)
    left = {name: proportion((fooled_by < 0) | (fooled_by > place)) for place, name in enumerate(every)}
    return AutoAttack(attacked, fooled_by, every, left, dict(zip(every, map(float, seconds), strict=True)))


class _Keeper:
    """Results of batches in a folder, of one call's arguments."""

    def __init__(self, folder: str | Path | None, known: PyTree) -> None:
        self.folder = None if folder is None else place(folder)
        self.known = None if known is None else compared("predict", known, stacklevel=4)[:16]
        self.hold = None if self.folder is None else held(self.folder)

    def kept(self, number: int, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        if self.folder is None:
            return make()
        path = self.folder / f"autoattack {self.known} {number}.npz"
        if not path.exists():
            write_atomically(path, make())
        return read_arrays(path)


def _attacked(
    predict: Predict,
    x: np.ndarray,
    labels: np.ndarray,
    threat: Threat,
    key: Key,
    names: tuple[str, ...],
    queries: int,
    batch_size: int,
    bar: tqdm,
) -> dict[str, np.ndarray]:
    """One batch through all attacks."""
    start = time.perf_counter()
    attacked, fooled_by = x.copy(), np.full(len(x), -1, np.int32)
    fooled_by[_wrong(predict, x, labels, batch_size)] = 0
    seconds = [time.perf_counter() - start]
    for number, name in enumerate(names, start=1):
        start, left = time.perf_counter(), np.flatnonzero(fooled_by < 0)
        if len(left):
            size = min(batch_size, len(x))
            some = np.resize(left, -(-len(left) // size) * size)  # whole batches: one shape for all stages
            found = _one(
                name, predict, x[some], labels[some], threat, jax.random.fold_in(key, number), queries,
                batch_size,
            )[: len(left)]  # fmt: skip
            fooled = _wrong(predict, found, labels[left], batch_size)
            attacked[left[fooled]], fooled_by[left[fooled]] = found[fooled], number
        seconds.append(time.perf_counter() - start)
        bar.update()
    return {"attacked": attacked, "fooled_by": fooled_by, "seconds": np.array(seconds)}


def _wrong(predict: Predict, x: np.ndarray, labels: np.ndarray, batch_size: int) -> np.ndarray:
    return predicted(outputs_of(predict, x, batch_size)) != labels


def _one(
    name: str,
    predict: Predict,
    x: np.ndarray,
    labels: np.ndarray,
    threat: Threat,
    key: Key,
    queries: int,
    batch_size: int,
) -> np.ndarray:
    """One attack, with the settings of the paper."""
    options = {"key": key, "batch_size": batch_size}
    if name == "apgd-ce":
        return apgd(predict, x, labels, threat, restarts=5 if threat.norm == "l1" else 1, **options)
    if name == "apgd-t":
        targets = 5 if threat.norm == "l1" else 9
        return apgd(predict, x, labels, threat, loss="targeted_dlr", targets=targets, **options)
    if name == "square":
        return square(predict, x, labels, threat, queries=queries, rescaled=False, **options)
    found = fab(
        predict, x, labels, norm=threat.norm, bounds=threat.bounds, enough=threat.eps, batch_size=batch_size
    )
    near = found.fooled(threat.eps).reshape(-1, *[1] * (x.ndim - 1))
    return geometry.inside(threat, x, np.where(near, found.attacked, x))
