"""What several experiments do alike: kernels by name, attacks in batches, intervals, padding, sources."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from companion import data
from companion.architectures import Architecture, conv, fc, myrtle
from companion.statistics import Estimate
from companion.storage import ALGORITHM, fingerprint, locked, place, read_arrays, write_atomically


def architecture(name: str, **sizes: Any) -> Architecture:
    """The network family that a name such as "FC-3" stands for."""
    kind, depth = name.split("-")
    return {"FC": fc, "Conv": conv, "Myrtle": myrtle}[kind](int(depth), **sizes)


def attack_batch(kernel: Architecture) -> int:
    """Images to attack at once: fewer where a kernel entry takes memory for every pixel."""
    return 256 if kernel.pixel_power == 0 else 32


def triple(estimate: Estimate) -> list[float]:
    """A value and the ends of its interval."""
    return [estimate.value, estimate.low, estimate.high]


def sources(cases: Iterable[Any]) -> str:
    """The data sets of some cases, as captions name them."""
    return "; ".join(dict.fromkeys(data.load(case.dataset, n_train=10, n_test=10).source for case in cases))


def kept(folder: Path | None, name: str, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Arrays from the folder where a run of the same key has left them, else made and left there.

    Args:
        folder: None for nowhere.
        name: begins the file's name.
        key: all that the arrays depend on.
        make: makes them.

    Raises:
        ValueError: a file that is damaged; a folder that another process is writing.
        OSError: the folder cannot be written.
    """
    if folder is None:
        return make()
    path = place(folder) / f"{name} {fingerprint((ALGORITHM, key))[:16]}.npz"
    if not path.exists():
        with locked(path.parent):
            if not path.exists():
                write_atomically(path, make())
    return read_arrays(path)


def padded(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays of several lengths as one, with NaN behind the shorter."""
    shape = np.max([array.shape for array in arrays], axis=0).astype(int)
    result = np.full((len(arrays), *shape), np.nan)
    for row, array in enumerate(arrays):
        result[row, *(slice(length) for length in array.shape)] = array
    return result
