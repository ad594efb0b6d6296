"""`learn`: the clocks that serve attacked validation images best."""

import contextlib
import os
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core.checks import batch as examples
from companion._core.checks import (
    class_labels,
    count,
    finite,
    number,
    one_of,
    predicted,
    random_key,
    same_inputs,
    within,
)
from companion._core.compile import double
from companion._core.interrupt import deferred, safe_point
from companion._core.shown import brief
from companion._core.types import Array, InLoop, Key
from companion._core.words import Unchecked
from companion.attacks import Threat, checked_threat, squared, training_attack
from companion.clocks._flow import Pull, Solver, checked_clocks, flow, problem, with_coefficients
from companion.kernels import gram
from companion.regression import KernelPredictor
from companion.storage import Checkpoints, compared, locked, place

_DECAY = 1e-4  # of the authors' code


@dataclass(frozen=True)
class Learned:
    """Clocks, the predictor at them, and how it got there.

    Attributes:
        f: the predictor `clocked(f, clocks)`.
        clocks: ϖ, (n,), float64.
        losses: mean loss on the attacked batch before each step, (steps,).
        lengths: ‖ϖ‖ / √n after each step, (steps,).
    """

    f: KernelPredictor
    clocks: Float[np.ndarray, " n"]
    losses: Float[np.ndarray, " steps"]
    lengths: Float[np.ndarray, " steps"]

    __repr__ = brief


@deferred()
def learn(
    f: Unchecked,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    rate: float | int,
    start: Float[Any, " n"] | Int[Any, " n"] | float | int = 0.0,
    steps: int = 50,
    batch_size: int = 128,
    attack: InLoop | None = None,
    released: bool = False,
    solver: Solver = "eigh",
    key: Key,
    folder: str | os.PathLike | None = None,
    progress: bool = False,
) -> Learned:
    """Find clocks by descending the loss on attacked validation images: Adv-NTK.

    min_{ϖ ≥ 0} E max_{x' in the threat of x} ½ ‖f_ϖ(x′) − y‖² over validation images (x, y), y the target of
    their class as `data.targets` has it, ±1 or one-hot less 1/k, to which f was fitted as well. A step
    attacks the next batch with the predictor as it is, and moves against the gradient g of the batch's loss,

        ϖ ← max(0, ϖ − rate · √n · g / ‖g‖):

    the root mean square of the change is `rate`, unless a clock stops at 0. So from 0 no more than
    rate · steps is reached, which is early stopping in itself. The paper's ζ is rate · √n.

    Args:
        f: from `regression.fit`, with a kernel and a spectrum, fitted to targets of classes as `data.targets`
            makes them; its own time does not matter.
        x: validation images (m, ...) that f was not fitted to, within the threat's bounds.
        labels: their classes (m,): 0 or 1 for one output, else in [0, k).
        threat: what the attacker may do.
        rate: of a step, in the units of the clocks.
        start: where to begin, (n,), or one number for all: 0 as in the paper, or the best time for all.
        steps: gradient steps.
        batch_size: validation images in a step; all of them where they are fewer. What is left of a pass is
            not seen in it.
        attack: a traceable function `attack(predict, x, labels, key, epoch) -> x'`. None:
            `attacks.training_attack(threat)`, PGD with ten steps from a random start. Of the threat an attack
            of one's own knows only what it is made with.
        released: do as the authors' code does, not to be recommended: clocks are abs(w) of numbers w that
            are free, so that a clock at 0 whose gradient says "less" begins to run; and w decays by 10⁻⁴ of
            itself, times the length of a step.
        solver: "eigh", or "chebyshev" for large n: see `clocked`.
        key: a JAX random key, for the batches and the attack.
        folder: where to keep a checkpoint after every step. A run found there goes on; another one, with
            other images, predictor or options, is refused, and so is one that has gone further than `steps`.
        progress: show a tqdm bar over the steps, with the loss.

    Returns:
        The clocks, the predictor at them, and the losses on the way.

    Raises:
        TypeError: a predictor without a kernel or a spectrum; arguments of the wrong kind.
        ValueError: pixels outside the bounds, labels or clocks out of range, other targets, an attack that
            returns other shapes or NaN, a folder of another run or of more steps.

    Cost of a step: what `clocked` costs and, for "eigh", 2 n³ more, for "chebyshev" four times as much; and
    the attack on a batch.
    Source: Fu & Wang (2024), arXiv 2310.06112, section 5 and algorithm 1.

    >>> from companion.architectures import fc
    >>> from companion.attacks import Threat
    >>> from companion.regression import fit
    >>> x, labels = np.array([[0.2, 0.8], [0.8, 0.2]], np.float32), np.array([0, 1])
    >>> f = fit(fc(1), x, np.array([[-1.0], [1.0]]))
    >>> found = learn(f, x, labels, Threat("linf", 0.1), rate=0.1, steps=3, key=jax.random.key(0))
    >>> found.clocks.round(2).tolist(), bool(found.losses[2] < found.losses[0])
    ([0.3, 0.3], True)
    """
    rate, steps, batch_size = number("rate", rate), count("steps", steps), count("batch_size", batch_size)
    one_of("solver", solver, ("eigh", "chebyshev"))
    random_key("key", key)
    matrix, targets = problem(f)
    if f.kernel is None:
        raise TypeError("f must know its kernel: fit(kernel, x, targets, k_train_train=matrix)")
    clocks = checked_clocks(start, len(matrix), "start")
    x = within("x", examples("x", x), checked_threat(threat).bounds)
    same_inputs("x", x, "f's training inputs", f.x_train)
    labels = class_labels("labels", labels, len(x), targets.shape[1])
    _refuse_other_targets(targets)
    attack = _callable(training_attack(threat) if attack is None else attack)
    run = _Run(f, matrix, targets, x, labels, attack, solver, key, min(batch_size, len(x)))
    history, kept, first = np.zeros((steps, 2)), None, 0
    free, length = clocks, rate * np.sqrt(len(clocks))
    if folder is not None:
        given = [np.asarray(f.x_train), matrix, targets, x, labels, clocks, attack, _raw(key)]
        options = repr([rate, solver, batch_size, f.kind, released])
        kept = Checkpoints(
            place(folder), {"arguments": compared("the attack", given, stacklevel=4), "options": options}
        )
        if (found := kept.load({"clocks": free})) is not None:
            first, free = found[0], np.asarray(found[1]["clocks"])
            _refuse_more(first, steps)
            history[:first] = found[2]
    bar = tqdm(total=steps, initial=first, desc="clocks", unit="step", disable=not progress)
    with bar, contextlib.nullcontext() if kept is None else locked(kept.folder):
        for step in range(first, steps):
            loss, gradient = run.slope(np.abs(free), step)
            gradient = gradient / max(np.linalg.norm(gradient), np.finfo(float).tiny)
            if released:
                free = free - length * (np.where(free < 0, -gradient, gradient) + _DECAY * free)
            else:
                free = np.maximum(0.0, free - length * gradient)
            history[step] = loss, np.sqrt((free**2).mean())
            if kept is not None:
                kept.save(step + 1, {"clocks": free}, history[: step + 1])
            bar.update()
            bar.set_postfix(loss=f"{loss:.4g}")
            safe_point()
    clocks = np.abs(free)
    alpha, _ = flow(matrix, targets, clocks, solver)
    return Learned(with_coefficients(f, alpha), clocks, *history.T)


def _refuse_other_targets(targets: np.ndarray) -> None:
    """The loss of these targets must be 0, for f to have been fitted to what it goes to."""
    distances = np.sqrt(2 * np.asarray(squared(targets, predicted(targets))))
    if (far := float(distances.max())) > 1e-5:
        raise ValueError(
            "f must be fitted to data.targets(labels), ±1 or one-hot less 1/k, to which learn goes: its "
            f"targets are off by {far:.3g}"
        )


def _callable(attack: Unchecked) -> InLoop:
    if not callable(attack):
        raise TypeError(f"attack must be a function attack(predict, x, labels, key, epoch), got {attack!r}")
    return attack


def _refuse_more(done: int, steps: int) -> None:
    if done > steps:
        raise ValueError(
            f"folder holds this run after {done} steps, and steps={steps} is fewer: the clocks of then are "
            "not kept"
        )


@dataclass(frozen=True)
class _Run:
    f: KernelPredictor
    matrix: np.ndarray
    targets: np.ndarray
    x: np.ndarray
    labels: np.ndarray
    attack: InLoop
    solver: Solver
    key: Key
    batch_size: int

    def slope(self, clocks: np.ndarray, step: int) -> tuple[float, np.ndarray]:
        """The loss on the attacked batch of a step, and its gradient in the clocks."""
        alpha, pull = flow(self.matrix, self.targets, clocks, self.solver)
        some, key = self.batch(step)
        g = with_coefficients(self.f, alpha)
        with double(g, self.x):
            moved = np.asarray(_attacked(_traced(self.attack), g, self.x[some], self.labels[some], key))
        if moved.shape != self.x[some].shape:
            raise ValueError(
                f"attack must return inputs of the shape of x, {self.x[some].shape}, got {moved.shape}"
            )
        finite("what attack returns", moved)
        return loss_and_gradient(g, moved, self.labels[some], pull)

    def batch(self, step: int) -> tuple[np.ndarray, Key]:
        """Which validation images a step sees, and its key: of the key and the step alone."""
        passed, place = divmod(step, max(1, len(self.x) // self.batch_size))
        order = np.asarray(jax.random.permutation(jax.random.fold_in(self.key, passed), len(self.x)))
        some = order[place * self.batch_size : (place + 1) * self.batch_size]
        return some, jax.random.fold_in(jax.random.fold_in(self.key, passed), 1 + place)


def loss_and_gradient(
    f: KernelPredictor, x: np.ndarray, labels: np.ndarray, pull: Pull
) -> tuple[float, np.ndarray]:
    """The mean squared loss of inputs, and its gradient in the clocks."""
    cross = gram(f.kernel, x, f.x_train, kind=f.kind).astype(np.float64)
    outputs = cross @ f.coefficients
    with double(outputs):
        value, slope = jax.value_and_grad(lambda out: squared(out, labels).mean())(jnp.asarray(outputs))
        return float(value), pull(cross.T @ np.asarray(slope))


def _traced(attack: InLoop) -> Partial:
    return attack if isinstance(attack, Partial) else Partial(attack)


@jax.jit
def _attacked(attack: Partial, f: KernelPredictor, x: Array, labels: Array, key: Key) -> Array:
    with jax.default_matmul_precision("highest"):
        return attack(f, x, labels, key, jnp.inf)


def _raw(key: Key) -> np.ndarray:
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(key) if typed else key)
