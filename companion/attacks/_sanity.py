"""Is an attack's failure a sign of robustness? Checks in the manner of AutoAttack's, with their meaning."""

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from companion._core.checks import count, random_key
from companion._core.compile import double
from companion._core.types import Key, LossFunction, Predict
from companion.attacks._autoattack import AutoAttack
from companion.attacks._controls import random_sign
from companion.attacks._losses import Loss, loss_named
from companion.attacks._pgd import fgsm, pgd
from companion.attacks._predict import as_partial, checked_inputs, in_batches, loss_gradient, outputs_of
from companion.attacks._threat import Threat, checked_threat
from companion.statistics import Estimate, accuracy


class AttackWarning(UserWarning):
    """What an attack found is not yet a sign of robustness; the message says why."""


@dataclass(frozen=True)
class SanityChecks:
    """Accuracies under attacks that bound each other, and what they say.

    Attributes:
        clean: without an attack.
        random: under random signs of the same size.
        one_step: under FGSM.
        few_steps: under the last point of PGD.
        more_steps: under the last point of PGD with four times the steps of the same size.
        unbounded: under PGD with ε so large that any input may become any other.
        zero_gradient: share of inputs at which the loss has no gradient at all.
        messages: what is suspicious, one sentence each; empty where nothing is.
    """

    clean: Estimate
    random: Estimate
    one_step: Estimate
    few_steps: Estimate
    more_steps: Estimate
    unbounded: Estimate
    zero_gradient: float
    messages: tuple[str, ...]


def sanity_checks(
    predict: Predict,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    key: Key,
    steps: int = 10,
    loss: Loss = "margin",
    batch_size: int = 256,
    found: AutoAttack | None = None,
    progress: bool = False,
) -> SanityChecks:
    """Attack in ways that must bound each other, and warn where they do not.

    Args:
        predict: as for `pgd`.
        x: clean inputs (m, ...).
        labels: classes (m,).
        threat: norm, eps and bounds.
        key: a JAX random key, for the random signs.
        steps: of the attack under test.
        loss: of the attack under test.
        batch_size: examples at once.
        found: what `autoattack` found for these inputs and this threat, to hold the attack against.
        progress: show a tqdm bar over examples and steps of each attack of many steps.

    Returns:
        The accuracies, with 95 % intervals, and the messages.

    Warns:
        AttackWarning: for each of

            - *zero gradients* at more than 1 % of the inputs: the loss is flat, and no gradient attack can
              start. Try the margin loss or random starts, and a black-box attack.
            - *more steps weaker*, by more than 2 %: the steps do not climb: gradients are noisy or masked, or
              the step is too long.
            - *one step stronger than many*, by more than 2 %: gradients at the input are no guide farther on.
            - *unbounded attack fails*: with ε as large as the whole range every input can be turned into any
              other, so an accuracy above 2 % is the attack's failure.
            - *weaker than AutoAttack*, by more than 2 %, where `found` is given: report AutoAttack's number.
            - *random as strong*: the attack is not stronger than random signs (and is not idle: ε > 0).
            - *eps of half the range*, for "linf": every input may become the same gray one, so that no
              function can be robust, and an accuracy near 0 is no finding.

    Raises:
        TypeError, ValueError: as `pgd`; also `found` of another number of inputs.

    Cost: 6 · steps + some 60 gradients of predict for each example.
    Source: Croce & Hein (2020), arXiv 2003.01690, and the checks released with it; Carlini et al. (2019),
    arXiv 1902.06705, section 3.

    >>> import jax
    >>> x, y = np.full((9, 2), 0.6, np.float32), np.ones(9, int)
    >>> f, threat = (lambda x: x @ np.ones((2, 1)) - 1), Threat("linf", 0.2)
    >>> found = sanity_checks(f, x, y, threat, key=jax.random.key(0))
    >>> found.few_steps.value, found.messages
    (0.0, ())
    """
    steps = count("steps", steps)
    random_key("key", key)
    x, labels = checked_inputs(predict, x, labels, checked_threat(threat).bounds, loss=loss)
    if found is not None and not isinstance(found, AutoAttack):
        raise TypeError(f"found must be what autoattack returns, got {found!r}")
    if found is not None and len(found.fooled_by) != len(x):
        raise ValueError(f"found must be of these {len(x)} inputs, got one of {len(found.fooled_by)}")
    predict = as_partial(predict)
    low, high = threat.bounds
    whole = (high - low) * float(x[0].size ** {"linf": 0, "l2": 0.5, "l1": 1}[threat.norm])
    options = {"loss": loss, "batch_size": batch_size, "progress": progress}
    last = options | {"best_iterate": False}
    step_size = 2.5 * threat.eps / steps
    attacks = {
        "clean": x,
        "random": random_sign(x, threat, key=key),
        "one_step": fgsm(predict, x, labels, threat, loss=loss, batch_size=batch_size),
        "few_steps": pgd(predict, x, labels, threat, steps=steps, step_size=step_size, **last),
        "more_steps": pgd(predict, x, labels, threat, steps=4 * steps, step_size=step_size, **last),
        "unbounded": pgd(
            predict,
            x,
            labels,
            dataclasses.replace(threat, eps=whole),
            steps=50,
            step_size=whole / 20,
            early_stop=True,
            **options,
        ),
    }
    reached = {
        name: accuracy(outputs_of(predict, value, batch_size), labels) for name, value in attacks.items()
    }
    flat = _zero_gradients(predict, x, labels, loss_named(loss), batch_size)
    values = {name: one.value for name, one in reached.items()}
    messages = (
        *_too_wide(threat),
        *_messages(values, flat, threat.eps),
        *_weaker(values["few_steps"], found),
    )
    for message in messages:
        warnings.warn(message, AttackWarning, stacklevel=2)
    return SanityChecks(**reached, zero_gradient=flat, messages=messages)


def _messages(value: dict[str, float], flat: float, eps: float) -> list[str]:
    few, more, one = value["few_steps"], value["more_steps"], value["one_step"]
    suspicious = {
        f"zero gradients at {flat:.1%} of the inputs: no gradient attack can start there; try the margin "
        "loss, random starts, or a black-box attack such as `square`": flat > 0.01,
        f"more steps are weaker (accuracy {more:.3f} against {few:.3f}): the steps do not climb, because "
        "gradients are noisy or masked or the step is too long": more > few + 0.02,
        f"one step is stronger than many (accuracy {one:.3f} against {few:.3f}): gradients at the input are "
        "no guide farther on": few > one + 0.02,
        f"the unbounded attack leaves an accuracy of {value['unbounded']:.3f}, where any input may become "
        "any other: the attack fails, the function need not be robust": value["unbounded"] > 0.02,
        f"random signs are as strong as the attack (accuracy {value['random']:.3f} against {few:.3f}): "
        "gradients say nothing here": eps > 0 and few >= value["random"] > 0,
    }
    return [message for message, raised in suspicious.items() if raised]


def _too_wide(threat: Threat) -> list[str]:
    low, high = threat.bounds
    if threat.norm != "linf" or threat.eps < (high - low) / 2:
        return []
    return [
        f"eps = {threat.eps:g} is half of the range {threat.bounds} or more: every input may become the same "
        "gray one, and no function can be robust; eps is in units of the inputs, such as 8/255"
    ]


def _weaker(few: float, found: AutoAttack | None) -> list[str]:
    if found is None or few <= (least := found.robust_accuracy.value) + 0.02:
        return []
    return [
        f"the attack leaves more than AutoAttack (accuracy {few:.3f} against {least:.3f}): it overstates "
        "robustness, report AutoAttack's number"
    ]


def _zero_gradients(
    predict: Predict, x: np.ndarray, labels: np.ndarray, loss: LossFunction, batch_size: int
) -> float:
    flat = np.empty(len(x), bool)
    with double(x, predict):
        for some in in_batches(np.arange(len(x)), min(batch_size, len(x))):
            found = np.asarray(loss_gradient(predict, x[some], labels[some], loss=loss))
            flat[some] = ~found.any(axis=tuple(range(1, x.ndim)))
    return float(flat.mean())
