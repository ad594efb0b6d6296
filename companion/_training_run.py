"""Standard and adversarial training with records on the way."""

import functools
import math
import os
import time
from collections.abc import Sequence
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
from companion._checks import count
from companion._kernel_path import KernelPath
from companion._training_checkpoint import Checkpoints, fingerprint
from companion._training_records import Probe, Recorder, Run, traceable
from companion._training_step import Carry, Replay, Switch, advance
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
    if not isinstance(model, Model):
        raise TypeError(
            f"model must be a networks.Model, got {model!r}: networks.from_flax makes one of a Flax module"
        )
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"optimizer must come from Optax, such as optax.sgd(0.1), got {optimizer!r}")
    x, labels = checks.data("x", x, "labels", labels)
    epochs, batch_size = count("epochs", epochs, least=0), count("batch_size", batch_size)
    if batch_size > len(x):
        raise ValueError(f"batch_size must be at most {len(x)}, the number of inputs, got {batch_size}")
    test = None if x_test is None else checks.data("x_test", x_test, "labels_test", labels_test)
    if test_attack is not None and test is None:
        raise ValueError("test_attack needs x_test and labels_test")
    variables = model.init(jax.random.fold_in(key, 0), jnp.asarray(x[:1])) if start is None else start
    checks.fits(model, variables, x, labels)
    n_steps = len(x) // batch_size
    marks = checks.marks("record", range(epochs + 1) if record is None else record, epochs, n_steps)
    kept = set(marks) if keep is True else set(checks.marks("keep", keep or (), epochs, n_steps))
    if not kept <= set(marks):
        raise ValueError(
            f"keep must name epochs of record, got {sorted(m / n_steps for m in kept - set(marks))}"
        )
    recorder = Recorder(model, test, test_attack, probe, jax.random.fold_in(key, 1))

    times = attack.times if isinstance(attack, Replay) else 0
    if times and (clean_too or penalty is not None):
        raise ValueError("free training takes neither clean_too nor a penalty")
    if isinstance(attack, Switch):
        pending, rule = [traceable(attack.first), traceable(attack.second)], attack.rule
    else:
        pending, rule = [attack.move if times else traceable(attack)], None
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

    store, done, spent, rows, kernels, snapshots, switched = None, 0, 0.0, [], [], {}, None
    if folder is not None:
        names = [checks.label(one) for one in (*pending, *([rule] if rule else []))]
        identity = {
            "model": model.name,
            "data": fingerprint(x, labels),
            "start": fingerprint(variables),
            "key": fingerprint(jax.random.key_data(key)),
            "batch size": str(batch_size),
            "attack": f"{names} {times} {attack_training_mode} {clean_too} {fingerprint(pending)}",
            "penalty": f"{checks.label(penalty)} {fingerprint(penalty)}",
            "loss": checks.label(named(loss)),
            "records": recorder.identity(),
            "optimizer": fingerprint(checks.first_step(optimizer, variables[0])),
        }
        store = Checkpoints(Path(folder), identity)
        kernels = KernelPath(Path(folder) / "kernels") if probe is not None else []
        if (found := store.load(carry)) is not None:
            done, carry, history, numbers = found
            spent, recorder.probe_seconds, switched = (
                numbers[name] for name in ("seconds", "probe_seconds", "switched")
            )
            rows = list(history)
            if done > epochs * n_steps:
                raise ValueError(
                    f"epochs must be at least {done / n_steps:g}, which folder {folder} has, got {epochs}"
                )
            if [row[0] for row in rows] != [mark / n_steps for mark in marks if mark <= done]:
                raise ValueError(
                    f"folder {folder} holds a run with other records: ask for the same, and later ones"
                )
            snapshots = {
                mark / n_steps: store.kept(mark / n_steps, variables) for mark in kept if mark <= done
            }

    def result() -> Run:
        columns = np.array(rows, float).reshape(-1, 6).T
        return Run(
            jax.tree.map(np.asarray, (carry.params, carry.state)),
            *columns,
            kernels=kernels if probe is not None else None,
            snapshots=snapshots,
            switched=switched,
        )

    def note(step: int, total: float) -> None:
        nonlocal switched
        epoch = step / n_steps
        params, state = carry.params, carry.state
        since = step - (round(rows[-1][0] * n_steps) if rows else 0)
        loss = float(carry.loss) / since if since else math.nan
        accuracies, kernel = recorder.accuracies((params, state)), recorder.kernel((params, state))
        rows.append((epoch, loss, *accuracies, total, recorder.probe_seconds))
        if kernel is not None:
            kernels.save(epoch, kernel) if store else kernels.append(kernel)
        if step in kept:
            snapshots[epoch] = jax.tree.map(np.asarray, (params, state))
            if store:
                store.keep(epoch, snapshots[epoch])
        if rule is not None and switched is None and rule(result()):
            switched = epoch

    stops = sorted({*marks, *(e * n_steps for e in range(epochs + 1))})
    with tqdm(
        total=epochs, initial=done / n_steps, desc=model.name, unit="epoch", disable=not progress
    ) as bar:
        if not rows and 0 in marks:
            note(0, 0.0)
        if done < epochs * n_steps:
            for one in pending:  # compiles, and does nothing
                jax.block_until_ready(go_on(carry, attack=one, epoch=0, first=0, last=0))
        for stop in [stop for stop in stops if stop > done]:
            epoch, first = divmod(done, n_steps)
            attack = pending[0 if switched is None else -1]
            begin = time.perf_counter()
            carry = jax.block_until_ready(
                go_on(carry, attack=attack, epoch=epoch, first=first, last=stop - epoch * n_steps)
            )
            spent += time.perf_counter() - begin
            done = stop
            if not np.isfinite(float(carry.loss)):
                raise FloatingPointError(
                    f"training diverged in epoch {epoch}: take a smaller learning rate, or let it and ε "
                    "grow slowly"
                )
            if stop in marks:
                note(stop, spent)
                carry = carry._replace(loss=jnp.zeros(()))
                bar.set_postfix({name: f"{v:.3f}" for name, v in _shown(rows[-1]).items()})
            if store:
                store.save(
                    done,
                    carry,
                    np.array(rows, float).reshape(-1, 6),
                    seconds=spent,
                    probe_seconds=recorder.probe_seconds,
                    switched=switched,
                )
            bar.update(done / n_steps - bar.n)
    return result()


def _shown(row: Sequence[float]) -> dict[str, float]:
    return {
        name: v for name, v in zip(("loss", "clean", "robust"), row[1:4], strict=True) if not math.isnan(v)
    }
