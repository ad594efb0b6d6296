"""What is measured while a network trains: accuracies, and empirical kernels on a fixed probe."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int

from companion._core.checks import class_labels, one_of
from companion._core.shown import brief
from companion._core.types import Apply, InLoop, Key, Variables
from companion.empirical import Reduce, empirical_ntk_fn
from companion.networks import Model, evaluation, predict_fn
from companion.storage import KernelSequence
from companion.training._step import attacked, right


@dataclass(frozen=True)
class Run:
    """A trained network and what was recorded on the way.

    Attributes:
        variables: (params, state) at the end.
        epochs: moments of the records (r,), rounded to whole minibatches.
        loss: mean training loss since the record before, under the training attack (r,); NaN at epoch 0.
        clean: share of the test inputs classified rightly (r,); NaN without test inputs.
        robust: the same under the test attack (r,); NaN without one.
        seconds: time spent in training steps until then, without compilation and without records (r,).
        probe_seconds: time spent in kernels of the probe until then, without compilation (r,).
        kernels: of the probe at these moments, a list of arrays or a `KernelPath`; None without a probe.
        snapshots: (params, state) by epoch, where they were kept.
        switched: the epoch at which a `Switch` took its second attack; None where it never did.
    """

    variables: Variables
    epochs: Float[np.ndarray, " r"]
    loss: Float[np.ndarray, " r"]
    clean: Float[np.ndarray, " r"]
    robust: Float[np.ndarray, " r"]
    seconds: Float[np.ndarray, " r"]
    probe_seconds: Float[np.ndarray, " r"]
    kernels: KernelSequence | None
    snapshots: Mapping[float, Variables]
    switched: float | None = None

    __repr__ = brief

    def predict(self, model: Model, *, epoch: float | int | None = None) -> Partial:
        """The trained network as a function of inputs, to evaluate and attack: see `networks.predict_fn`.

        Args:
            model: the one that was trained; a run is numbers alone, and does not keep it.
            epoch: one of `snapshots`; None: the end.

        Returns:
            A function of x (n, ...) with outputs (n, k).

        Raises:
            ValueError: an epoch of which no snapshot was kept.
        """
        if epoch is not None and epoch not in self.snapshots:
            raise ValueError(f"epoch must be one of the snapshots {sorted(self.snapshots)}, got {epoch}")
        return predict_fn(model, self.variables if epoch is None else self.snapshots[epoch])


@dataclass(frozen=True)
class Probe:
    """A fixed set of inputs on which the empirical kernel is recorded during training.

    Attributes:
        x: inputs (m, ...), clean.
        reduce: "full" keeps the (m·k, m·k) kernel of all outputs, "trace" the (m, m)
            mean over outputs.
        attack: None for kernels on clean inputs. An attack makes them on inputs attacked anew at every
            record, as the code of Tsilivis & Kempe (2022) does; a kernel then moves with its inputs too.
        labels: (m,), needed with an attack.
    """

    x: Float[Any, "m ..."]
    reduce: Literal["full", "trace"] = "full"
    attack: Partial | None = None
    labels: Int[Any, " m"] | None = None

    def __post_init__(self) -> None:
        one_of("reduce", self.reduce, ("full", "trace"))
        if self.attack is not None and self.labels is None:
            raise ValueError("a probe with an attack needs labels")
        if self.labels is not None:
            class_labels("labels", self.labels, len(self.x))


class Recorder:
    """What is measured at a record."""

    def __init__(
        self,
        model: Model,
        test: tuple[np.ndarray, np.ndarray] | None,
        attack: InLoop | None,
        probe: Probe | None,
        key: Key,
    ) -> None:
        self.model, self.test, self.attack, self.key = model, test, traceable(attack), key
        self.probe, self._kernel_fn, self._compiled = probe, None, False
        if probe is not None:
            if not isinstance(probe, Probe):
                raise TypeError(f"probe must be a training.Probe, Probe(x), got {type(probe).__name__}")
            self._kernel_fn = _kernel_fn(evaluation(model), probe.reduce)

    def accuracies(self, variables: Variables) -> tuple[float, float]:
        """On the test inputs, clean and attacked; NaN for what was not asked for."""
        if self.test is None:
            return math.nan, math.nan
        clean = right(self.model, variables, *self.test, None, self.key).mean()
        if self.attack is None:
            return float(clean), math.nan
        return float(clean), float(right(self.model, variables, *self.test, self.attack, self.key).mean())

    def kernel(self, variables: Variables) -> tuple[np.ndarray | None, float]:
        """The probe's kernel and the seconds it took without compilation; None and 0 without a probe."""
        if self.probe is None:
            return None, 0.0
        if not self._compiled:
            self._kernel(variables)
            self._compiled = True
        begin = time.perf_counter()
        return self._kernel(variables), time.perf_counter() - begin

    def _kernel(self, variables: Variables) -> np.ndarray:
        x = np.asarray(self.probe.x)
        if self.probe.attack is not None:
            labels = np.asarray(self.probe.labels)
            x = np.asarray(
                attacked(variables, x, labels, traceable(self.probe.attack), self.key, model=self.model)
            )
        return self._kernel_fn(variables, x)


@functools.lru_cache(maxsize=32)
def _kernel_fn(apply_fn: Apply, reduce: Reduce) -> Callable[..., np.ndarray]:
    return empirical_ntk_fn(apply_fn, reduce=reduce)


def traceable(attack: InLoop | None) -> Partial | None:
    """A function of the user's as a pytree, of which compiled loops are kept; or an error."""
    if attack is None or isinstance(attack, Partial):
        return attack
    if not callable(attack):
        raise TypeError(
            "an attack must be a function attack(predict, x, labels, key, epoch), such as "
            f"attacks.training_attack(threat) makes, got {attack!r}"
        )
    return Partial(attack)
