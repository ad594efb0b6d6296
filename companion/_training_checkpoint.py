"""Checkpoints of a training run: written whole or not at all, refused where they are of another run."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from companion._formats import write_atomically


class Checkpoints:
    """The folder of a run: its latest checkpoint, and snapshots of the network at recorded epochs."""

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder, self.identity = folder, dict(identity)

    def save(self, step: int, tree: Any, history: np.ndarray, **numbers: float | None) -> None:
        """Keep the state of a run after `step` minibatches, in place of the one before."""
        header = json.dumps({"step": step, "numbers": numbers, "identity": self.identity})
        _write(self.folder / "checkpoint.npz", tree, header=np.array(header), history=history)

    def load(self, tree: Any) -> tuple[int, Any, np.ndarray, dict[str, float | None]] | None:
        """The latest checkpoint, shaped like `tree`; None where there is none; or an error."""
        path = self.folder / "checkpoint.npz"
        if not path.exists():
            return None
        with np.load(path) as file:
            header = json.loads(str(file["header"]))
            other = header["identity"]
            names = sorted(k for k in self.identity.keys() | other if self.identity.get(k) != other.get(k))
            if names:
                raise ValueError(
                    f"folder {self.folder} holds a run with other {', '.join(names)}: continue that run with "
                    "the same arguments, or choose another folder"
                )
            return header["step"], _read(file, tree), file["history"], header["numbers"]

    def keep(self, epoch: float, variables: Any) -> None:
        """Keep the network at an epoch."""
        _write(self._snapshot(epoch), variables)

    def kept(self, epoch: float, variables: Any) -> Any:
        """The network at an epoch, shaped like `variables`."""
        with np.load(self._snapshot(epoch)) as file:
            return _read(file, variables)

    def _snapshot(self, epoch: float) -> Path:
        return self.folder / "snapshots" / f"{epoch!r}.npz"


def fingerprint(*trees: Any) -> str:
    """A short hash of arrays: shapes, types and bytes."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        array = np.asarray(leaf)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]


def _write(path: Path, tree: Any, **more: np.ndarray) -> None:
    arrays = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    write_atomically(path, lambda file: np.savez(file, **arrays, **more))


def _read(file: Mapping[str, np.ndarray], tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [file[f"leaf{i}"] for i in range(len(leaves))])
