"""Standard and adversarial training with records on the way."""

import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion import _training_checks as checks
from companion._attack_losses import Loss, named
from companion._attack_training import Replay
from companion._training_checkpoint import Checkpoints, fingerprint
from companion._training_history import History
from companion._training_records import Probe, Recorder, Run, traceable
from companion._training_step import Carry, Switch, advance
from companion.networks import Model


def train(
    model: Model,
    x: Float[Any, "n ..."],
    labels: Int[Any, " n"],
    *,
    epochs: int,
    optimizer: optax.GradientTransformation,
    key: Any,
    batch_size: int = 100,
    attack: Partial | Replay | Switch | None = None,
    attack_training_mode: bool = False,
    clean_too: bool = False,
    penalty: Partial | None = None,
    loss: Loss = "cross_entropy",
    start: tuple[Any, Any] | None = None,
    record: Sequence[float | int] | None = None,
    x_test: Float[Any, "m ..."] | None = None,
    labels_test: Int[Any, " m"] | None = None,
    test_attack: Partial | None = None,
    probe: Probe | None = None,
    keep: bool | Sequence[float | int] = False,
    folder: str | os.PathLike | None = None,
    progress: bool = False,
) -> Run:
    """Train a network on minibatches, on clean inputs or on those of an attacker who sees it as it is.

    min_θ E max_{x' near x} loss(f(x'; θ), y), the maximum by `attack`. All steps between two records or ends
    of epochs are one compiled loop. Randomness comes from the key, the epoch and the step alone, so a run
    that is repeated, or killed and continued, gives the same bits on a device that computes
    deterministically.

    Args:
        model: the network: see `companion.networks`, also for training linearised ones.
        x: training inputs (n, ...).
        labels: classes (n,).
        epochs: passes over the data, ≥ 0. Each is n // batch_size minibatches in an order of its own; what is
            left over is not seen in that epoch.
        optimizer: from Optax, with a constant or a decayed rate. Make it once: each new one is compiled anew.
        key: a JAX random key.
        batch_size: examples in a step, at most n.
        attack: None for standard training; `attacks.training_attack(...)` for FGSM and PGD training,
            `attacks.free_training(...)` for free training; a `Switch` from one to another at a moment that a
            rule finds; or any traceable function `attack(predict, x, labels, key, epoch) -> x'`, best as a
            `jax.tree_util.Partial`.
        attack_training_mode: whether the attacker meets the network in training mode (batch statistics), as
            in Wong et al. (2020); else in evaluation mode, as at test time.
        clean_too: whether each step sees the minibatch twice, as one batch: clean, then attacked.
        penalty: what is added to the mean loss, `penalty(predict, x, labels, key, epoch) -> scalar` of the
            clean minibatch and the network as the attacker meets it, such as `catastrophic.gradalign`.
        loss: "cross_entropy", "margin", "squared", or a function of outputs (n, k) and labels, values (n,).
        start: (params, state) to start from; None: `model.init`.
        record: epochs at which to record, fractions too, such as (0, .125, .25, .5, 1, 2); rounded to whole
            minibatches. None: 0 and the end of every epoch.
        x_test: test inputs (m, ...), for records.
        labels_test: their classes (m,).
        test_attack: for records of robust accuracy, like `attack`.
        probe: inputs on which to record empirical kernels, in evaluation mode.
        keep: whether to keep the network at every record, or at which of them.
        folder: where to keep a checkpoint after each epoch and record, and kernels and snapshots. A run found
            there goes on where it stopped, also to more epochs than it had; one of other data, start, key,
            batch size, model's name, attack, records or optimizer is refused. (Of a schedule only the first
            step can be compared.)
        progress: show a tqdm bar over epochs with loss and accuracies.

    Returns:
        The network and its records.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape or range; a folder of another run.
        FloatingPointError: when the loss is no longer finite; the message says what to change.

    Cost: for each step one gradient by θ, and one by x for each step of the attack. Memory: one minibatch's.
    Source: Madry et al. (2018), arXiv 1706.06083, equation 2.1.

    >>> from companion.networks import mlp
    >>> x, labels = np.eye(4, dtype=np.float32), np.arange(4) % 2
    >>> run = train(mlp(2, width=16), x, labels, epochs=50, optimizer=optax.sgd(0.1), key=jax.random.key(0),
    ...     batch_size=4, record=[0, 50], x_test=x, labels_test=labels)
    >>> run.epochs, float(run.clean[-1])
    (array([ 0., 50.]), 1.0)
    """
    checks.kinds(model, optimizer)
    x, labels = checks.data("x", x, "labels", labels)
    epochs, batch_size = checks.sizes(epochs, batch_size, len(x))
    test = checks.test(x_test, labels_test, test_attack)
    variables = model.init(jax.random.fold_in(key, 0), jnp.asarray(x[:1])) if start is None else start
    checks.fits(model, variables, x, labels)
    n_steps = len(x) // batch_size
    marks, kept = checks.moments(record, keep, epochs, n_steps)
    attacks, rule, times = _attacks(attack, alone=not clean_too and penalty is None)
    recorder = Recorder(model, test, test_attack, probe, jax.random.fold_in(key, 1))
    store = None
    if folder is not None:
        names = [checks.label(one) for one in (*attacks, *([rule] if rule else []))]
        identity = {
            "model": model.name,
            "data": fingerprint(x, labels),
            "start": fingerprint(variables),
            "key": fingerprint(jax.random.key_data(key)),
            "batch size": str(batch_size),
            "attack": f"{names} {times} {attack_training_mode} {clean_too} {fingerprint(attacks)}",
            "penalty": f"{checks.label(penalty)} {fingerprint(penalty)}",
            "loss": checks.label(named(loss)),
            "records": recorder.identity(),
            "optimizer": fingerprint(checks.first_step(optimizer, variables[0])),
        }
        store = Checkpoints(Path(folder), identity)
    history = History(recorder, marks, kept, n_steps, rule, store)
    shape = (batch_size, *x.shape[1:]) if times else None
    carry = Carry(
        *jax.tree.map(jnp.array, variables),
        optimizer.init(variables[0]),
        jnp.zeros(shape, x.dtype) if times else (),
        jnp.zeros(()),
    )
    go_on = functools.partial(
        advance,
        x=jnp.asarray(x),
        labels=jnp.asarray(labels),
        key=jax.random.fold_in(key, 2),
        penalty=traceable(penalty),
        model=model,
        optimizer=optimizer,
        loss=named(loss),
        batch_size=batch_size,
        times=times,
        attack_training_mode=attack_training_mode,
        clean_too=clean_too,
    )
    done, carry = history.resume(carry, epochs * n_steps)
    with tqdm(
        total=epochs, initial=done / n_steps, desc=model.name, unit="epoch", disable=not progress
    ) as bar:
        return history.run(_through(go_on, carry, done, epochs * n_steps, attacks, history, bar))


def _attacks(attack: Any, *, alone: bool) -> tuple[list[Any], Callable[..., bool] | None, int]:
    """The training attacks, the rule that goes from the first to the second, the times of free training."""
    if isinstance(attack, Replay):
        if not alone:
            raise ValueError("free training takes neither clean_too nor a penalty")
        return [attack.move], None, attack.times
    if isinstance(attack, Switch):
        return [traceable(attack.first), traceable(attack.second)], attack.rule, 0
    return [traceable(attack)], None, 0


def _through(
    go_on: Callable[..., Carry],
    carry: Carry,
    done: int,
    end: int,
    attacks: list[Any],
    history: History,
    bar: tqdm,
) -> Carry:
    """Train from minibatch `done` to `end`, with the records and checkpoints on the way."""
    n_steps, marks = history.n_steps, history.marks
    if not history.rows and 0 in marks:
        carry = history.note(0, carry)
    if done < end:
        for one in attacks:  # compiles, and does nothing
            jax.block_until_ready(go_on(carry, attack=one, epoch=0, first=0, last=0))
    for stop in sorted({*marks, *range(0, end + 1, n_steps)}):
        if stop <= done:
            continue
        epoch, first = divmod(done, n_steps)
        attack = attacks[0 if history.switched is None else -1]
        begin = time.perf_counter()
        carry = jax.block_until_ready(
            go_on(carry, attack=attack, epoch=epoch, first=first, last=stop - epoch * n_steps)
        )
        history.seconds += time.perf_counter() - begin
        done = stop
        if not np.isfinite(float(carry.loss)):
            raise FloatingPointError(
                f"training diverged in epoch {epoch}: take a smaller learning rate, or let it and ε "
                "grow slowly"
            )
        if stop in marks:
            carry = history.note(stop, carry)
            bar.set_postfix({name: f"{value:.3f}" for name, value in history.latest().items()})
        history.save(done, carry)
        bar.update(done / n_steps - bar.n)
    return carry
