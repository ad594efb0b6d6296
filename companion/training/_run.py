"""Standard and adversarial training with records on the way."""

import bisect
import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core.checks import random_key
from companion._core.compile import double_where
from companion._core.interrupt import deferred, in_short_loops, safe_point
from companion.attacks import Loss, Replay, loss_named
from companion.networks import Model
from companion.storage import Checkpoints, place
from companion.training import _arguments as checks
from companion.training._history import History
from companion.training._records import Probe, Recorder, Run, traceable
from companion.training._step import Carry, Switch, advance


@deferred()
@double_where("x", "start")
def train(
    model: Model,
    x: Float[Any, "n ..."],
    labels: Int[Any, " n"],
    *,
    epochs: int,
    optimizer: optax.GradientTransformation,
    key: Any,
    batch_size: int = 100,
    attack: Callable[..., Any] | Replay | Switch | None = None,
    attack_training_mode: bool = False,
    clean_too: bool = False,
    penalty: Callable[..., Any] | None = None,
    loss: Loss = "cross_entropy",
    start: tuple[Any, Any] | None = None,
    record: Sequence[float | int] | None = None,
    x_test: Float[Any, "m ..."] | None = None,
    labels_test: Int[Any, " m"] | None = None,
    test_attack: Callable[..., Any] | None = None,
    probe: Probe | None = None,
    keep: bool | Sequence[float | int] = False,
    folder: str | os.PathLike | None = None,
    progress: bool = False,
) -> Run:
    """Train a network on minibatches, on clean inputs or on those of an attacker who sees it as it is.

    min_θ E max_{x' near x} loss(f(x'; θ), y), the maximum by `attack`. All steps between two records or ends
    of epochs are one compiled loop, called for some steps at a time, so that Ctrl-C is heard within seconds.
    Randomness comes from the key, the epoch and the step alone, so a run that is repeated, or killed and
    continued, gives the same bits on a device that computes deterministically.

    Args:
        model: the network: see `companion.networks`, also for training linearized ones.
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
            there goes on where it stopped, also to more epochs than it had; one that differs in anything else
            but `progress` is refused, and the message says in what. Functions of your own are compared by
            their code, with the values they close over and the globals they name, those of packages by name.
        progress: show a tqdm bar over epochs with loss and accuracies.

    Returns:
        The network and its records.

    Raises:
        TypeError, ValueError: arguments of the wrong kind, shape or range; a folder of another run, or
            one that another process is writing.
        OSError: the folder cannot be written; the message says what was wanted and what is free.
        FloatingPointError: when the loss is no longer finite; the message says what to change.

    Cost: for each step one gradient by θ, and one by x for each step of the attack. Memory: one minibatch's.
    Source: Madry et al. (2018), arXiv 1706.06083, equation 2.1.

    >>> from companion.networks import mlp
    >>> x, labels = np.eye(4, dtype=np.float32), np.arange(4) % 2
    >>> run = train(mlp(2, width=16), x, labels, epochs=50, optimizer=optax.sgd(0.1), key=jax.random.key(0),
    ...     batch_size=4, record=[0, 50], x_test=x, labels_test=labels)
    >>> run.epochs, float(run.clean[-1])
    (array([ 0., 50.]), 1.0)
    >>> run.predict(mlp(2, width=16))(x).shape
    (4, 2)
    """
    checks.kinds(model, optimizer)
    random_key("key", key)
    x, labels = checks.data("x", x, "labels", labels)
    epochs, batch_size = checks.sizes(epochs, batch_size, len(x))
    test = checks.test(x_test, labels_test, test_attack)
    variables = model.init(jax.random.fold_in(key, 0), jnp.asarray(x[:1])) if start is None else start
    safe_point()
    checks.fits(model, variables, x, labels)
    n_steps = len(x) // batch_size
    marks, kept = checks.moments(record, keep, epochs, n_steps)
    attacks, rule, times = _attacks(attack, alone=not clean_too and penalty is None)
    few = slice(batch_size)
    checks.functions(
        model,
        variables,
        x[few],
        labels[few],
        key,
        attacks=() if times else attacks,
        penalty=traceable(penalty),
        loss=loss_named(loss),
        training_mode=attack_training_mode,
    )
    recorder = Recorder(model, test, test_attack, probe, jax.random.fold_in(key, 1))
    store = None
    if folder is not None:
        identity = checks.identity(
            optimizer,
            variables[0],
            model=model,
            data=(x, labels),
            start=variables,
            key=key,
            batch_size=batch_size,
            attack=attack,
            attack_training_mode=attack_training_mode,
            clean_too=clean_too,
            penalty=penalty,
            loss=loss_named(loss),
            test_data=test,
            test_attack=test_attack,
            probe=probe,
        )
        store = Checkpoints(place(folder), identity)
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
        loss=loss_named(loss),
        batch_size=batch_size,
        times=times,
        attack_training_mode=attack_training_mode,
        clean_too=clean_too,
    )
    with history.alone():
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
        history.save(0, carry)
        safe_point()
    if done < end:
        for one in attacks:  # compiles, and does nothing
            jax.block_until_ready(go_on(carry, attack=one, epoch=0, first=0, last=0))
            safe_point()

    def steps(first: int, stop: int) -> None:
        nonlocal carry
        epoch, i = divmod(first, n_steps)
        attack = attacks[0 if history.switched is None else -1]
        carry = jax.block_until_ready(
            go_on(carry, attack=attack, epoch=epoch, first=i, last=i + stop - first)
        )

    size = 1
    while done < end:
        later = bisect.bisect(marks, done)
        stop = min([(done // n_steps + 1) * n_steps, *marks[later : later + 1]])
        begin = time.perf_counter()
        size = in_short_loops(steps, done, stop, size)
        history.seconds += time.perf_counter() - begin
        if not np.isfinite(float(carry.loss)):
            raise FloatingPointError(
                f"training diverged in epoch {done // n_steps}: take a smaller learning rate, or let it "
                "and ε grow slowly; an attack, a penalty or a loss of your own may have returned NaN too"
            )
        if stop in marks:
            carry = history.note(stop, carry)
            bar.set_postfix({name: f"{value:.3f}" for name, value in history.latest().items()})
        done = stop
        history.save(done, carry)
        bar.update(done / n_steps - bar.n)
    return carry
