"""Checkpoints of a training run: written whole or not at all, refused where they are of another run."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from companion._core.versions import versions
from companion._core.words import Setting, Tree
from companion.storage._files import damaged, read_arrays, write_atomically

# To be raised when the same arguments would train to another network, or the files take another form.
ALGORITHM = 2


class Checkpoints:
    """The folder of a run: its latest checkpoint, and snapshots of the network at recorded epochs."""

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder, self.identity = folder, {"algorithm": str(ALGORITHM)} | dict(identity)

    def save(self, step: int, tree: Tree, history: np.ndarray, **numbers: Setting) -> None:
        """Keep the state of a run after `step` minibatches, in place of the one before."""
        header = {"step": step, "numbers": numbers, "identity": self.identity, "versions": versions()}
        more = {"header": np.array(json.dumps(header)), "history": history}
        write_atomically(self.folder / "checkpoint.npz", _named(tree) | more)

    def load(self, tree: Tree) -> tuple[int, Tree, np.ndarray, dict[str, Setting]] | None:
        """The latest checkpoint, shaped like `tree`; None where there is none; or an error."""
        path = self.folder / "checkpoint.npz"
        if not path.exists():
            for foreign in (*self.folder.glob("kernels/*.npy"), *self.folder.glob("snapshots/*.npz")):
                raise ValueError(f"folder {self.folder} holds {foreign.name} but no checkpoint.npz of a run")
            return None
        arrays = read_arrays(path)
        try:
            header = json.loads(str(arrays.pop("header")))
            step, numbers, other = header["step"], header["numbers"], header["identity"]
            history = arrays.pop("history")
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path, f"it is no checkpoint of train ({error})") from error
        self._same(other, header.get("versions", {}))
        return step, _shaped(path, arrays, tree), history, numbers

    def keep(self, epoch: float, variables: Tree) -> None:
        """Keep the network at an epoch."""
        write_atomically(self._snapshot(epoch), _named(variables))

    def kept(self, epoch: float, variables: Tree) -> Tree:
        """The network at an epoch, shaped like `variables`."""
        path = self._snapshot(epoch)
        if not path.exists():
            raise ValueError(f"folder {self.folder} lacks the network of epoch {epoch:g}, {path.name}")
        return _shaped(path, read_arrays(path), variables)

    def _same(self, other: Mapping[str, str], made: Mapping[str, str]) -> None:
        """Refuse another run, and say what differs."""
        names = sorted(k for k in self.identity.keys() | other if self.identity.get(k) != other.get(k))
        if not names:
            return
        now = versions()
        moved = [f"{k} {made[k]} → {now.get(k)}" for k in made if made[k] != now.get(k)]
        since = f" (versions since: {', '.join(moved)})" if moved else ""
        raise ValueError(
            f"folder {self.folder} holds a run with other {', '.join(names)}{since}: continue that run with "
            "the same arguments, or choose another folder"
        )

    def _snapshot(self, epoch: float) -> Path:
        return self.folder / "snapshots" / f"{epoch!r}.npz"


def _named(tree: Tree) -> dict[str, np.ndarray]:
    import jax  # storage is light where no checkpoint is written

    return {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}


def _shaped(path: Path, arrays: Mapping[str, np.ndarray], tree: Tree) -> Tree:
    """The arrays of a file as a tree; or an error where they are not its leaves."""
    import jax

    wanted = {name: (leaf.shape, leaf.dtype) for name, leaf in _named(tree).items()}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if wanted != found:
        wrong = sorted(k for k in wanted.keys() | found if wanted.get(k) != found.get(k))
        raise damaged(path, f"{wrong[0]} is {found.get(wrong[0])}, wanted {wanted.get(wrong[0])}")
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in wanted])
