"""The records of a training run as it goes: in memory, and in its folder where it has one."""

import contextlib
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from companion._core.interrupt import safe_point
from companion.storage import Checkpoints, KernelPath, locked
from companion.training._records import Recorder, Run
from companion.training._step import Carry

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
        self.kernels = None if recorder.probe is None else []

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder, where there is one, and that of the kernels."""
        with contextlib.ExitStack() as stack:
            if self.store:
                stack.enter_context(locked(self.store.folder))
                if self.kernels is not None:
                    self.kernels = KernelPath(self.store.folder / "kernels")
                    stack.enter_context(locked(self.kernels.folder))
            yield

    def resume(self, carry: Carry, end: int) -> tuple[int, Carry]:
        """The minibatches done and the state after them, from the folder; 0 and `carry` without one."""
        found = self.store.load(carry) if self.store else None
        if found is None:
            self.save(0, carry)  # what the folder is of, before all else
            return 0, carry
        done, carry, rows, numbers = found
        folder, n_steps = self.store.folder, self.n_steps
        if done > end:
            raise ValueError(
                f"epochs must be at least {done / n_steps:g}, which folder {folder} has, got {end // n_steps}"
            )
        if done or len(rows):
            self._same([row[0] for row in rows], numbers["kept"], done)
        self.rows, self.seconds, self.switched = list(rows), numbers["seconds"], numbers["switched"]
        self.recorder.probe_seconds = numbers["probe_seconds"]
        variables = carry.params, carry.state
        self.snapshots = {epoch: self.store.kept(epoch, variables) for epoch in numbers["kept"]}
        return done, carry

    def _same(self, recorded: list[float], kept: list[float], done: int) -> None:
        """Refuse a run of other records, or one that lacks a kernel."""
        folder = self.store.folder
        for name, stored, marks in (("records", recorded, self.marks), ("keep", kept, sorted(self.kept))):
            asked = [mark / self.n_steps for mark in marks if mark <= done]
            if stored != asked:
                raise ValueError(
                    f"folder {folder} holds a run with other {name}, at epochs {stored} and not {asked}: ask "
                    "for the same, and later ones"
                )
        if self.kernels is not None and (missing := sorted(set(recorded) - set(self.kernels.times))):
            raise ValueError(f"folder {folder} lacks the kernel of epoch {missing[0]:g}")

    def note(self, step: int, carry: Carry) -> Carry:
        """Record the network after `step` minibatches; the loss is summed anew from there."""
        epoch, variables = step / self.n_steps, (carry.params, carry.state)
        since = step - (round(self.rows[-1][0] * self.n_steps) if self.rows else 0)
        loss = float(carry.loss) / since if since else math.nan
        accuracies = self.recorder.accuracies(variables)
        safe_point()
        kernel = self.recorder.kernel(variables)
        self.rows.append((epoch, loss, *accuracies, self.seconds, self.recorder.probe_seconds))
        if kernel is not None:
            self.kernels.put(epoch, kernel) if self.store else self.kernels.append(kernel)
        if step in self.kept:
            self.snapshots[epoch] = jax.tree.map(np.asarray, variables)
            if self.store:
                self.store.keep(epoch, self.snapshots[epoch])
        if self.rule is not None and self.switched is None:
            answer = self.rule(self.run(carry))
            if not isinstance(answer, bool | np.bool_):
                raise TypeError(f"rule must return True or False, got {answer!r}")
            self.switched = epoch if answer else None
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
                kept=list(self.snapshots),
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
