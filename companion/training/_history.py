"""The records of a training run as it goes: in memory, and in its folder where it has one."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from companion._core.interrupt import safe_point
from companion.storage import Checkpoints, KernelPath, locked
from companion.training._records import Recorder, Run
from companion.training._schedule import Schedule
from companion.training._step import Carry

_COLUMNS = ("epochs", "loss", "clean", "robust", "seconds", "probe_seconds")


class History:
    """What a run has recorded so far, and its folder where it has one.

    The loop asks whether a record is due and which attack's turn it is, and tells what was trained; all else
    is the history's own.
    """

    def __init__(
        self,
        schedule: Schedule,
        recorder: Recorder,
        rule: Callable[[Run], bool] | None,
        store: Checkpoints | None,
    ) -> None:
        self._schedule, self._recorder, self._rule, self._store = schedule, recorder, rule, store
        self._rows, self._snapshots, self._switched = [], {}, None
        self._seconds = self._probe_seconds = 0.0
        self._kernels = None if recorder.probe is None else []

    @property
    def switched(self) -> bool:
        """Whether a `Switch` has gone to its second attack."""
        return self._switched is not None

    def due(self, step: int) -> bool:
        """Whether a record after `step` minibatches is asked for and not yet made."""
        epochs = [row[0] for row in self._rows[-1:]]
        return step in self._schedule.recorded and epochs != [self._schedule.epoch(step)]

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Count the time of this block as training."""
        begin = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - begin

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder, where there is one, and that of the kernels."""
        with contextlib.ExitStack() as stack:
            if self._store:
                stack.enter_context(locked(self._store.folder))
                if self._kernels is not None:
                    self._kernels = KernelPath(self._store.folder / "kernels")
                    stack.enter_context(locked(self._kernels.folder))
            yield

    def resume(self, carry: Carry) -> tuple[int, Carry]:
        """The minibatches done and the state after them, from the folder; 0 and `carry` without one."""
        found = self._store.load(carry) if self._store else None
        if found is None:
            self.save(0, carry)  # what the folder is of, before all else
            return 0, carry
        done, carry, rows, numbers = found
        folder, plan = self._store.folder, self._schedule
        if done > plan.end:
            raise ValueError(
                f"epochs must be at least {plan.epoch(done):g}, which folder {folder} has, got "
                f"{plan.epoch(plan.end):g}"
            )
        if done or len(rows):
            self._same([row[0] for row in rows], numbers["kept"], done)
        self._rows, self._switched = list(rows), numbers["switched"]
        self._seconds, self._probe_seconds = numbers["seconds"], numbers["probe_seconds"]
        self._snapshots = {epoch: self._store.kept(epoch, carry.variables) for epoch in numbers["kept"]}
        return done, carry

    def _same(self, recorded: list[float], kept: list[float], done: int) -> None:
        """Refuse a run of other records, or one that lacks a kernel."""
        folder, plan = self._store.folder, self._schedule
        for name, stored, steps in (("records", recorded, plan.recorded), ("keep", kept, sorted(plan.kept))):
            asked = [plan.epoch(step) for step in steps if step <= done]
            if stored != asked:
                raise ValueError(
                    f"folder {folder} holds a run with other {name}, at epochs {stored} and not {asked}: ask "
                    "for the same, and later ones"
                )
        if self._kernels is not None and (missing := sorted(set(recorded) - set(self._kernels.times))):
            raise ValueError(f"folder {folder} lacks the kernel of epoch {missing[0]:g}")

    def note(self, step: int, carry: Carry) -> Carry:
        """Record the network after `step` minibatches; the loss is summed anew from there."""
        epoch = self._schedule.epoch(step)
        since = step - (round(self._rows[-1][0] * self._schedule.n_steps) if self._rows else 0)
        loss = float(carry.loss) / since if since else math.nan
        accuracies = self._recorder.accuracies(carry.variables)
        safe_point()
        kernel, seconds = self._recorder.kernel(carry.variables)
        self._probe_seconds += seconds
        self._rows.append((epoch, loss, *accuracies, self._seconds, self._probe_seconds))
        if kernel is not None:
            self._kernels.put(epoch, kernel) if self._store else self._kernels.append(kernel)
        if step in self._schedule.kept:
            self._snapshots[epoch] = jax.tree.map(np.asarray, carry.variables)
            if self._store:
                self._store.keep(epoch, self._snapshots[epoch])
        if self._rule is not None and not self.switched:
            answer = self._rule(self.run(carry))
            if not isinstance(answer, bool | np.bool_):
                raise TypeError(f"rule must return True or False, got {answer!r}")
            self._switched = epoch if answer else None
        return carry._replace(loss=jnp.zeros(()))

    def save(self, step: int, carry: Carry) -> None:
        """Keep the state after `step` minibatches in the folder, if there is one."""
        if self._store:
            self._store.save(
                step,
                carry,
                self._table(),
                seconds=self._seconds,
                probe_seconds=self._probe_seconds,
                switched=self._switched,
                kept=list(self._snapshots),
            )

    def run(self, carry: Carry) -> Run:
        """The run so far."""
        return Run(
            jax.tree.map(np.asarray, carry.variables),
            **dict(zip(_COLUMNS, self._table().T, strict=True)),
            kernels=self._kernels,
            snapshots=self._snapshots,
            switched=self._switched,
        )

    def latest(self) -> dict[str, float]:
        """Loss and accuracies of the last record, those that there are."""
        row = dict(zip(_COLUMNS, self._rows[-1], strict=True))
        return {name: row[name] for name in ("loss", "clean", "robust") if not math.isnan(row[name])}

    def _table(self) -> np.ndarray:
        return np.array(self._rows, float).reshape(-1, len(_COLUMNS))
