"""The records of a training run as it goes: in memory, and in its folder where it has one."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from companion._kernel_path import KernelPath
from companion._training_checkpoint import Checkpoints
from companion._training_records import Recorder, Run
from companion._training_step import Carry

_COLUMNS = ("epochs", "loss", "clean", "robust", "seconds", "probe_seconds")


class History:
    """What a run has recorded so far, at which of its minibatches it records, and where it is kept."""

    def __init__(
        self,
        recorder: Recorder,
        marks: list[int],
        kept: set[int],
        n_steps: int,
        rule: Callable[[Run], bool] | None,
        store: Checkpoints | None,
    ) -> None:
        self.recorder, self.marks, self.kept, self.n_steps = recorder, marks, kept, n_steps
        self.rule, self.store = rule, store
        self.rows, self.snapshots, self.seconds, self.switched = [], {}, 0.0, None
        self.kernels = None
        if recorder.probe is not None:
            self.kernels = KernelPath(store.folder / "kernels") if store else []

    def resume(self, carry: Carry, end: int) -> tuple[int, Carry]:
        """The minibatches done and the state after them, from the folder; 0 and `carry` without one."""
        found = self.store.load(carry) if self.store else None
        if found is None:
            return 0, carry
        done, carry, rows, numbers = found
        folder, n_steps = self.store.folder, self.n_steps
        if done > end:
            raise ValueError(
                f"epochs must be at least {done / n_steps:g}, which folder {folder} has, got {end // n_steps}"
            )
        if [row[0] for row in rows] != [mark / n_steps for mark in self.marks if mark <= done]:
            raise ValueError(
                f"folder {folder} holds a run with other records: ask for the same, and later ones"
            )
        self.rows, self.seconds, self.switched = list(rows), numbers["seconds"], numbers["switched"]
        self.recorder.probe_seconds = numbers["probe_seconds"]
        epochs = [mark / n_steps for mark in sorted(self.kept) if mark <= done]
        variables = carry.params, carry.state
        self.snapshots = {epoch: self.store.kept(epoch, variables) for epoch in epochs}
        return done, carry

    def note(self, step: int, carry: Carry) -> Carry:
        """Record the network after `step` minibatches; the loss is summed anew from there."""
        epoch, variables = step / self.n_steps, (carry.params, carry.state)
        since = step - (round(self.rows[-1][0] * self.n_steps) if self.rows else 0)
        loss = float(carry.loss) / since if since else math.nan
        accuracies, kernel = self.recorder.accuracies(variables), self.recorder.kernel(variables)
        self.rows.append((epoch, loss, *accuracies, self.seconds, self.recorder.probe_seconds))
        if kernel is not None:
            self.kernels.save(epoch, kernel) if self.store else self.kernels.append(kernel)
        if step in self.kept:
            self.snapshots[epoch] = jax.tree.map(np.asarray, variables)
            if self.store:
                self.store.keep(epoch, self.snapshots[epoch])
        if self.rule is not None and self.switched is None and self.rule(self.run(carry)):
            self.switched = epoch
        return carry._replace(loss=jnp.zeros(()))

    def save(self, step: int, carry: Carry) -> None:
        """Keep the state after `step` minibatches in the folder, if there is one."""
        if self.store:
            self.store.save(
                step,
                carry,
                self._table(),
                seconds=self.seconds,
                probe_seconds=self.recorder.probe_seconds,
                switched=self.switched,
            )

    def run(self, carry: Carry) -> Run:
        """The run so far."""
        return Run(
            jax.tree.map(np.asarray, (carry.params, carry.state)),
            **dict(zip(_COLUMNS, self._table().T, strict=True)),
            kernels=self.kernels,
            snapshots=self.snapshots,
            switched=self.switched,
        )

    def latest(self) -> dict[str, float]:
        """Loss and accuracies of the last record, those that there are."""
        row = dict(zip(_COLUMNS, self.rows[-1], strict=True))
        return {name: row[name] for name in ("loss", "clean", "robust") if not math.isnan(row[name])}

    def _table(self) -> np.ndarray:
        return np.array(self.rows, float).reshape(-1, len(_COLUMNS))
