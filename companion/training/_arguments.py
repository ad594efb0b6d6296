"""Arguments of training, checked, and what tells one from another in a checkpoint."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import PyTree

from companion._core.checks import batch as examples
from companion._core.checks import class_labels, count, within
from companion._core.compile import network
from companion._core.types import Array, Key, Variables
from companion._core.words import Shape, Unchecked
from companion.attacks import bounds_of
from companion.networks import Model, evaluation
from companion.storage import compared
from companion.training._records import traceable
from companion.training._step import Recipe


def kinds(model: Unchecked, optimizer: Unchecked) -> None:
    """Refuse what is no model or no optimizer, and say how to become one."""
    if not isinstance(model, Model):
        raise TypeError(
            f"model must be a networks.Model, got {model!r}: networks.from_flax makes one of a Flax module, "
            "from_equinox of an Equinox module, from_architecture of fc(...), from_apply of any function"
        )
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"optimizer must come from Optax, such as optax.sgd(0.1), got {optimizer!r}")


def sizes(epochs: Unchecked, batch_size: Unchecked, n: int) -> tuple[int, int]:
    """Epochs and examples of a minibatch."""
    epochs, batch_size = count("epochs", epochs, least=0), count("batch_size", batch_size)
    if batch_size > n:
        raise ValueError(
            f"batch_size must be at most {n}, the number of inputs, got {batch_size} (by default 100)"
        )
    return epochs, batch_size


def labeled(name: str, x: Unchecked, labels_name: str, labels: Unchecked) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and as many labels."""
    x = examples(name, x)
    return x, class_labels(labels_name, labels, len(x))


def test_data(x: Unchecked, labels: Unchecked, attack: Unchecked) -> tuple[np.ndarray, np.ndarray] | None:
    """Test inputs and their labels, where there are some."""
    if x is not None:
        return labeled("x_test", x, "labels_test", labels)
    if attack is not None:
        raise ValueError("test_attack needs x_test and labels_test")
    if labels is not None:
        raise ValueError("labels_test needs x_test")
    return None


def taken(model: Model, variables: Variables, x: np.ndarray, others: Mapping[str, Unchecked]) -> None:
    """Refuse inputs of records that the network does not take, before anything is trained; each by its name.

    Those of another shape than x may be right, for a network that averages over its pixels.
    """
    for name, given in others.items():
        if given is None:
            continue
        given = examples(name, given)
        try:
            jax.eval_shape(evaluation(model), variables, given[:1])
        except Exception as error:
            raise ValueError(
                f"{name} must hold inputs that the model takes, such as {x.shape[1:]} of x, got "
                f"{given.shape[1:]}"
            ) from error


def within_bounds(
    attacks: Sequence[Unchecked],
    x: np.ndarray,
    test: np.ndarray | None,
    test_attack: Unchecked,
    probe: Unchecked,
) -> None:
    """Refuse inputs that attacks of ours would clip: normalized images, whose ε would be none in pixels."""
    given = [("x", x, one) for one in attacks] + [("x_test", test, test_attack)]
    if getattr(probe, "attack", None) is not None:
        given.append(("probe's x", probe.x, probe.attack))
    for name, inputs, attack in given:
        bounds = bounds_of(attack)
        if inputs is not None and bounds is not None:
            within(name, np.asarray(inputs), bounds)


def fits(model: Model, variables: Variables, x: np.ndarray, **labels: Unchecked) -> None:
    """Refuse labels that the network has no outputs for; each by its name."""
    k = network("model", evaluation(model), variables, x)[1]
    for name, given in labels.items():
        if given is not None:
            class_labels(name, given, len(given), k)


def functions(
    recipe: Recipe,
    variables: Variables,
    x: np.ndarray,
    labels: np.ndarray,
    key: Key,
    *,
    attacks: Sequence[Partial | None],
    penalty: Partial | None,
    test: tuple[np.ndarray, np.ndarray] | None,
    test_attack: Unchecked,
    probe: Unchecked,
) -> None:
    """Shapes of what functions of the user's return, without running them; or an error that names one."""

    def predict(z: Array) -> Array:
        return recipe.model.apply(*variables, z, recipe.attack_training_mode)[0]

    def shape(function: Callable[..., Array], *arguments: PyTree) -> Shape | None:
        return getattr(jax.eval_shape(function, *arguments), "shape", None)

    x, labels = x[: recipe.batch_size], labels[: recipe.batch_size]
    losses = shape(lambda x, labels: recipe.loss(predict(x), labels), x, labels)
    if losses != labels.shape:
        raise ValueError(f"loss must return one value for each example, {labels.shape}, got shape {losses}")
    given = [("attack", one, x, labels) for one in attacks] + [("penalty", penalty, x, labels)]
    if test is not None:
        given.append(("test_attack", traceable(test_attack), *(part[: recipe.batch_size] for part in test)))
    if getattr(probe, "attack", None) is not None:
        given.append(("probe.attack", traceable(probe.attack), probe.x, probe.labels))
    for name, function, z, y in given:
        if function is None:
            continue
        wanted = () if name == "penalty" else z.shape
        try:
            got = shape(lambda z, y, f=function: f(predict, z, y, key, 0.0), z, y)
        except TypeError as error:
            if name != "penalty" and "argument" in str(error):
                raise TypeError(
                    "an attack must be a function attack(predict, x, labels, key, epoch), such as "
                    f"attacks.training_attack(threat) makes: {error}"
                ) from error
            raise
        if got != wanted:
            raise ValueError(f"{name} must return an array of shape {wanted} for these inputs, got {got}")


def identity(recipe: Recipe, params: PyTree, **given: PyTree) -> dict[str, str]:
    """What tells a run from another in a folder, by name; a warning where something cannot be told."""
    state = jax.eval_shape(recipe.optimizer.init, params)
    leaves = [
        (jax.tree_util.keystr(path), leaf.shape, leaf.dtype.name)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    ]
    names = ("model", "loss", "batch_size", "attack_training_mode", "clean_too")
    parts = {name: getattr(recipe, name) for name in names} | {"optimizer": (recipe.optimizer, leaves)}
    found = {}
    for name, part in (given | parts).items():
        name = name.replace("_", " ")
        found[name] = compared(f"the {name}", part, stacklevel=5)  # past `train` and its two decorators
    return found
