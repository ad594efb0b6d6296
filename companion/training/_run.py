"""Standard and adversarial training with records on the way."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core.checks import Numbers, random_key
from companion._core.compile import double_where
from companion._core.interrupt import deferred, in_short_loops, safe_point
from companion._core.types import InLoop, Key, Variables
from companion.attacks import Loss, Replay, loss_named
from companion.networks import Model
from companion.storage import Checkpoints, place
from companion.training import _arguments as checks
from companion.training._history import History
from companion.training._records import Probe, Recorder, Run, traceable
from companion.training._schedule import Schedule, scheduled
from companion.training._step import Carry, Examples, Recipe, Switch, advance


@deferred()
@double_where("x", "start")
def train(
    model: Model,
    x: Float[Any, "n ..."],
    labels: Int[Any, " n"],
    *,
    epochs: int,
    optimizer: optax.GradientTransformation,
    key: Key,
    batch_size: int = 100,
    attack: InLoop | Replay | Switch | None = None,
    attack_training_mode: bool = False,
    clean_too: bool = False,
    penalty: InLoop | None = None,
    loss: Loss = "cross_entropy",
    start: Variables | None = None,
    record: Numbers | None = None,
    x_test: Float[Any, "m ..."] | None = None,
    labels_test: Int[Any, " m"] | None = None,
    test_attack: InLoop | None = None,
    probe: Probe | None = None,
    keep: bool | Numbers = False,
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

    >>> import optax
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
    x, labels = checks.labeled("x", x, "labels", labels)
    epochs, batch_size = checks.sizes(epochs, batch_size, len(x))
    test = checks.test_data(x_test, labels_test, test_attack)
    variables = model.init(jax.random.fold_in(key, 0), jnp.asarray(x[:1])) if start is None else start
    safe_point()
    of_probe = getattr(probe, "labels", None)
    checks.fits(model, variables, x, labels=labels, labels_test=test and test[1], labels_of_probe=of_probe)
    inputs = {"x_test": test and test[0], "probe.x": getattr(probe, "x", None)}
    checks.taken(model, variables, x, inputs)
    schedule = scheduled(record, keep, epochs, len(x) // batch_size)
    attacks, rule, times = _attacks(attack, alone=not clean_too and penalty is None)
    checks.within_bounds(attacks, x, test and test[0], test_attack, probe)
    loss, term = loss_named(loss), traceable(penalty)
    recipe = Recipe(model, optimizer, loss, batch_size, times, attack_training_mode, clean_too)
    measured = {"test": test, "test_attack": test_attack, "probe": probe}
    attacks_seen = () if times else attacks
    checks.functions(recipe, variables, x, labels, key, attacks=attacks_seen, penalty=term, **measured)
    recorder = Recorder(model, test, test_attack, probe, jax.random.fold_in(key, 1))
    store = None
    if folder is not None:
        given = {"data": (x, labels), "start": variables, "key": key, "attack": attack, "penalty": penalty}
        given |= {"test_data": test, "test_attack": test_attack, "probe": probe}
        store = Checkpoints(place(folder), checks.identity(recipe, variables[0], **given))
    history = History(schedule, recorder, rule, store)
    drawn = Examples(jnp.asarray(x), jnp.asarray(labels), jax.random.fold_in(key, 2))
    loops = [functools.partial(advance, recipe, examples=drawn, attack=one, penalty=term) for one in attacks]
    return _through(loops, recipe.start(variables, x), schedule, history, model.name if progress else None)


def _attacks(
    attack: InLoop | Replay | Switch | None, *, alone: bool
) -> tuple[list[Partial | None], Callable[[Run], bool] | None, int]:
    """The training attacks, the rule that goes from the first to the second, the times of free training."""
    if isinstance(attack, Replay):
        if not alone:
            raise ValueError("free training takes neither clean_too nor a penalty")
        return [attack.move], None, attack.replays
    if isinstance(attack, Switch):
        return [traceable(attack.first), traceable(attack.second)], attack.rule, 0
    return [traceable(attack)], None, 0


def _through(
    loops: list[Callable[..., Carry]], carry: Carry, schedule: Schedule, history: History, title: str | None
) -> Run:
    """Train from where the folder stands to the end; `title` is None where no progress is wanted."""
    with history.alone():
        done, carry = history.resume(carry)
        total, begin = schedule.epoch(schedule.end), schedule.epoch(done)
        if history.due(done):
            carry = history.note(done, carry)
            history.save(done, carry)
            safe_point()
        if done < schedule.end:
            for loop in loops:  # compiles, and does nothing
                jax.block_until_ready(loop(carry, epoch=0, first=0, last=0))
                safe_point()
        size = 1
        with tqdm(total=total, initial=begin, desc=title, unit="epoch", disable=title is None) as bar:
            while done < schedule.end:
                stop = schedule.stop(done)
                with history.training():
                    loop = loops[-1 if history.switched else 0]
                    carry, size = _to(stop, loop, carry, done, schedule, size)
                done = stop
                if history.due(done):
                    carry = history.note(done, carry)
                    bar.set_postfix({name: f"{value:.3f}" for name, value in history.latest().items()})
                history.save(done, carry)
                bar.update(schedule.epoch(done) - bar.n)
        return history.run(carry)


def _to(
    stop: int, loop: Callable[..., Carry], carry: Carry, done: int, schedule: Schedule, size: int
) -> tuple[Carry, int]:
    """Minibatches done, ..., stop − 1 of one epoch, some at a time; their number at a time goes on."""

    def steps(first: int, stop: int) -> None:
        nonlocal carry
        epoch, i = divmod(first, schedule.n_steps)
        carry = jax.block_until_ready(loop(carry, epoch=epoch, first=i, last=i + stop - first))

    size = in_short_loops(steps, done, stop, size)
    if not np.isfinite(float(carry.loss)):
        raise FloatingPointError(
            f"training diverged in epoch {done // schedule.n_steps}: take a smaller learning rate, or let it "
            "and ε grow slowly; an attack, a penalty or a loss of your own may have returned NaN too"
        )
    return carry, size
