"""Data sets by name: a part of one, chosen by classes and sizes, and targets for regression."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Integer

from companion._core.checks import class_labels, count
from companion._core.words import Unchecked
from companion.data._sets import SETS, Spec, read


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels of one task, read-only.

    Attributes:
        name: the name it was loaded by.
        x_train: training images in [0, 1], shape (n_train, height, width, channels).
        y_train: their labels, 0 to k − 1, shape (n_train,).
        x_test: test images in [0, 1].
        y_test: their labels.
        classes: the k class names; label i means `classes[i]`.
        source: one line on where the pixels came from, fit for a caption.
    """

    name: str
    x_train: Float32[np.ndarray, "n_train h w c"]
    y_train: Int32[np.ndarray, " n_train"]
    x_test: Float32[np.ndarray, "n_test h w c"]
    y_test: Int32[np.ndarray, " n_test"]
    classes: tuple[str, ...]
    source: str

    def __repr__(self) -> str:
        """Give one line: sizes, classes and source."""
        shape = "×".join(str(n) for n in self.x_train.shape[1:])
        return (
            f"<Dataset {self.name}: {len(self.x_train):,} train + {len(self.x_test):,} test images {shape}; "
            f"{len(self.classes)} classes ({', '.join(self.classes)}); {self.source}>"
        )


def load(
    name: str,
    *,
    classes: Iterable[str | int] | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
    download: bool = True,
    progress: bool = True,
) -> Dataset:
    """Load a data set, or a class-stratified random part of it.

    Parts are nested: with the same seed and classes, the first 100 images of `n_train=200` are those of
    `n_train=100`, in the same order. Each class has its share of a part, to within one image where the
    classes are about equal in size. Without `n_train` or `n_test` a split comes whole, in its file's order.

    Args:
        name: "mnist5k" (embedded, 4,000 + 1,000 images), "digits" (8×8, embedded, 1,442 + 355), "mnist",
            "fashion_mnist" or "cifar10".
        classes: names or numbers to keep, such as `("airplane", "automobile")` or `(3, 8)`; labels are
            renumbered in this order. Default: all.
        n_train: images to keep of the training split, at least 1. Default: all.
        n_test: likewise of the test split.
        seed: which random part, at least 0.
        download: whether a missing set may be downloaded (11 to 170 MB, once).
        progress: whether to show the download's progress.

    Returns:
        A read-only `Dataset`: images float32 NHWC in [0, 1], labels int32.

    Raises:
        ValueError: an unknown name or class, a size out of range, or a file that is not what it should be.
        TypeError: an argument of the wrong type.
        FileNotFoundError: the set is not on this machine and was not downloaded; the message says where it
            was looked for and what to do.
        OSError: the cache cannot be written.

    Cost: mnist5k takes 2 s once, then 50 ms; four bytes of memory per pixel.

    >>> load("digits", classes=(3, 8), n_train=100, n_test=20).x_train.shape
    (100, 8, 8, 1)
    """
    spec = _spec(name)
    chosen = _chosen(spec, name, classes)
    sizes = {"train": n_train, "test": n_test}
    for split, size in sizes.items():
        sizes[split] = None if size is None else count(f"n_{split}", size)
    seed = count("seed", seed, least=0)
    raw, scale, source = read(name, spec, download, progress)
    arrays = {}
    for number, split in enumerate(("train", "test")):
        index = _part(raw[f"y_{split}"], spec, chosen, sizes[split], (seed, number), split)
        renumber = np.zeros(len(spec.classes), np.int32)
        renumber[chosen] = np.arange(len(chosen))
        arrays[f"x_{split}"] = np.divide(raw[f"x_{split}"][index], scale, dtype=np.float32)
        arrays[f"y_{split}"] = renumber[raw[f"y_{split}"][index]]
    for array in arrays.values():
        array.setflags(write=False)
    return Dataset(name, **arrays, classes=tuple(spec.classes[c] for c in chosen), source=source)


def targets(
    labels: Integer[np.ndarray, " n"], n_classes: int | None = None
) -> Float32[np.ndarray, "n outputs"]:
    """Turn labels into regression targets.

    Two classes get one output: class 1 is +1 and class 0 is −1. Of k > 2 classes, output j is 1 − 1/k for
    class j and −1/k for the others, so that each row sums to 0.

    Args:
        labels: integers from 0 to k − 1, shape (n,). Of other names, such as 4 and 9 or strings,
            `np.unique(names, return_inverse=True)[1]` makes them.
        n_classes: k, at least 2. Default: the largest label + 1, and at least 2.

    Returns:
        Shape (n, 1) for two classes, (n, k) for more.

    Raises:
        ValueError: labels of another rank or out of range, or k < 2.
        TypeError: labels that are no integers.

    >>> targets(np.array([0, 1, 1])).ravel().tolist()
    [-1.0, 1.0, 1.0]
    """
    k = None if n_classes is None else count("n_classes", n_classes, least=2)
    if np.ndim(labels) == 0:
        raise ValueError(f"labels must have shape (n,), got {np.shape(labels)}")
    labels = class_labels("labels", labels, len(labels), k)
    if k is None:
        k = max(2, int(labels.max(initial=0)) + 1)
        class_labels("labels", labels, len(labels), k)
    if k == 2:
        return (2 * labels.astype(np.float32) - 1)[:, None]
    return (labels[:, None] == np.arange(k)).astype(np.float32) - np.float32(1 / k)


def _spec(name: Unchecked) -> Spec:
    """Look up a set by its name."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {type(name).__name__}")
    if name in SETS:
        return SETS[name]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), SETS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"name must be one of {', '.join(SETS)}, got {name!r}{hint}")


def _chosen(spec: Spec, name: str, classes: Unchecked) -> list[int]:
    """Turn the wanted classes, names or numbers, into numbers."""
    if classes is None:
        return list(range(len(spec.classes)))
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise TypeError(f"classes must be a tuple of names or numbers, got {classes!r}")
    chosen = []
    for item in classes:
        if isinstance(item, str):
            if item not in spec.classes:
                near = difflib.get_close_matches(item, spec.classes, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"classes: {name} has {', '.join(spec.classes)}, got {item!r}{hint}")
            number = spec.classes.index(item)
        else:
            number = count("each of classes", item, least=0)
            if number >= len(spec.classes):
                raise ValueError(f"classes: {name} numbers them 0 to {len(spec.classes) - 1}, got {item!r}")
        if number in chosen:
            raise ValueError(f"classes must differ, got {spec.classes[number]!r} twice")
        chosen.append(number)
    if not chosen:
        raise ValueError("classes must name at least one class, got none")
    return chosen


def _part(
    labels: Integer[np.ndarray, " n"],
    spec: Spec,
    chosen: list[int],
    size: int | None,
    seed: tuple[int, int],
    split: str,
) -> Integer[np.ndarray, " m"]:
    """Return the indices of the chosen classes: all in file order, or a stratified random part of `size`."""
    members = [np.flatnonzero(labels == c) for c in chosen]
    for c, index in zip(chosen, members, strict=True):
        if not len(index):
            raise ValueError(f"classes: the {split} split holds no image of {spec.classes[c]!r}")
    available = sum(len(index) for index in members)
    if size is None:
        return np.sort(np.concatenate(members))
    if size > available:
        raise ValueError(f"n_{split} must be at most {available:,} for these classes, got {size:,}")
    # NumPy promises that raw bits never change with its version, which it does not of permutation().
    shuffled = [
        index[np.argsort(np.random.PCG64([*seed, c]).random_raw(len(index)), kind="stable")]
        for c, index in zip(chosen, members, strict=True)
    ]
    # Spreading each class evenly over (0, 1) and cutting at any point leaves every class its share.
    place = np.concatenate([(np.arange(len(index)) + 0.5) / len(index) for index in members])
    position = np.repeat(np.arange(len(members)), [len(index) for index in members])
    return np.concatenate(shuffled)[np.lexsort((position, place))][:size]
