"""What tells values apart across processes: equal ones have one fingerprint, others another."""

import dataclasses
import functools
import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from beartype import beartype
from flax import linen
from jax.tree_util import Partial
from jaxtyping import jaxtyped

from companion import networks
from companion.storage._fingerprint import fingerprint

SCALE = 2.0


def added(shift):
    return lambda x: x + shift


def with_default(shift):
    def attack(x, shift=shift):
        return x + shift

    return attack


def reads_global(value):
    scope = {"SCALE": value}
    exec("def attack(x):\n    return helper(x)\ndef helper(x):\n    return SCALE * x", scope)
    return scope["attack"]


class Moved:
    """A callable object with a state."""

    def __init__(self, shift):
        self.shift = shift

    def __call__(self, x):
        return x + self.shift


@dataclasses.dataclass
class Made:
    """Its state is made of its field, and can be changed beside it."""

    width: int = 2
    scale: np.ndarray = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        self.w = np.ones(self.width)

    @functools.cached_property
    def total(self):
        return self.w.sum()


class Module(linen.Module):
    """Flax's modules are dataclasses that keep books of their own."""

    width: int = 2

    def __call__(self, x):
        return self.width * x


class Wrapper:
    """A callable that calls itself by the name of what it wraps."""

    def __init__(self, function, scale):
        functools.update_wrapper(self, function)
        self.scale = scale

    def __call__(self, x):
        return self.scale * self.__wrapped__(x)


class Named(dict):
    """A container with an attribute."""


def changed(value, **attributes):
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return value


def custom(decay):
    def update(gradients, state, params=None):
        return jax.tree.map(lambda g: decay * g, gradients), state

    return optax.GradientTransformation(lambda params: (), update)


def shifted(x: jax.Array) -> jax.Array:
    return x + SCALE


PAIRS = {
    "numbers": (lambda: 1, lambda: 1.0),
    "boolean": (lambda: True, lambda: 1),
    "nesting": (lambda: ((1, 2), 3), lambda: (1, (2, 3))),
    "kind of sequence": (lambda: (1, 2), lambda: [1, 2]),
    "array": (lambda: np.arange(3), lambda: np.arange(3.0)),
    "array's shape": (lambda: np.zeros((2, 3)), lambda: np.zeros((3, 2))),
    "last entry": (lambda: np.zeros(5000), lambda: np.append(np.zeros(4999), 1)),
    "key": (lambda: jax.random.key(0), lambda: jax.random.key(1)),
    "kind of key": (lambda: jax.random.key(0), lambda: jax.random.key(0, impl="rbg")),
    "closure": (lambda: added(1), lambda: added(2)),
    "bytecode": (lambda: lambda x: x + 1, lambda: lambda x: x - 1),
    "constant": (lambda: lambda x: x + 1, lambda: lambda x: x + 2),
    "default": (lambda: with_default(1), lambda: with_default(2)),
    "global behind a global": (lambda: reads_global(1), lambda: reads_global(2)),
    "partial": (lambda: functools.partial(max, 1), lambda: functools.partial(max, 2)),
    "Partial": (lambda: Partial(jnp.sign, 1), lambda: Partial(jnp.tanh, 1)),
    "jitted": (lambda: jax.jit(added(1)), lambda: jax.jit(added(2))),
    "object": (lambda: Moved(1), lambda: Moved(2)),
    "union of types": (lambda: int | str, lambda: int | float),
    "method": (lambda: Moved(1).__call__, lambda: Moved(2).__call__),
    "rate": (lambda: optax.sgd(0.1), lambda: optax.sgd(0.2)),
    "momentum": (lambda: optax.sgd(0.1, momentum=0.9), lambda: optax.sgd(0.1, momentum=0.0)),
    "sign": (lambda: optax.sgd(0.1), lambda: optax.sign_sgd(0.1)),
    "clipping": (lambda: optax.clip_by_global_norm(1.0), lambda: optax.clip_by_global_norm(0.01)),
    "decay": (lambda: optax.adamw(1e-3), lambda: optax.adamw(1e-3, weight_decay=1e-2)),
    "end of a schedule": (
        lambda: optax.sgd(optax.piecewise_constant_schedule(0.1, {437: 0.1})),
        lambda: optax.sgd(optax.piecewise_constant_schedule(0.1, {440: 0.1})),
    ),
    "injected": (lambda: optax.inject_hyperparams(optax.adam)(1e-3), lambda: optax.adam(1e-3)),
    "own optimizer": (lambda: custom(0.1), lambda: custom(0.2)),
    "state beside the fields": (Made, lambda: changed(Made(), w=-np.ones(2))),
    "field that is not compared": (lambda: Made(scale=np.ones(1)), lambda: Made(scale=np.zeros(1))),
    "own module": (Module, lambda: Module(width=3)),
    "wrapper's state": (lambda: Wrapper(added(1), 1), lambda: Wrapper(added(1), -1)),
    "wrapped function": (lambda: Wrapper(added(1), 1), lambda: Wrapper(added(2), 1)),
    "function's attribute": (lambda: changed(added(1), w=1), lambda: changed(added(1), w=2)),
    "container's attribute": (lambda: changed(Named(a=1), w=1), lambda: changed(Named(a=1), w=2)),
    "width": (lambda: networks.mlp(2, width=4), lambda: networks.mlp(2, width=8)),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_equal_values_have_one_fingerprint_and_others_another(name):
    one, other = PAIRS[name]
    unseen = []
    assert fingerprint(one(), unseen) == fingerprint(one(), unseen) != fingerprint(other(), unseen)
    assert unseen == []


def test_what_is_derived_from_an_object_is_not_part_of_it():
    one, other = Made(), Made()
    assert one.total == 2
    assert fingerprint(one) == fingerprint(other)


def test_order_counts_where_there_is_one():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 2, "b": 1})
    for letters in itertools.permutations("abc"):
        assert fingerprint(set(letters)) == fingerprint({"a", "b", "c"})


def test_a_jax_array_is_the_numpy_array():
    assert fingerprint(jnp.arange(3.0)) == fingerprint(np.arange(3, dtype=np.float32))


def test_functions_that_call_each_other_have_an_end():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert fingerprint(even) != fingerprint(odd)


def test_what_cannot_be_seen_is_said():
    unseen = []
    fingerprint(added(threading.Lock()), unseen)
    assert unseen == ["_thread.lock"]


def test_fingerprints_stay_what_they_are():
    """A change of these refuses every folder there is: raise the numbers of algorithm and format with it."""
    assert fingerprint(None) == "9e3aa23a593b58110bed80ff45bba5bd"
    assert fingerprint({"a": (1, 0.5), "b": np.eye(2)}) == "233bb9533ed9d26772fc6e7efeed7af4"


@pytest.mark.parametrize("check", [jaxtyped(typechecker=beartype), beartype], ids=["jaxtyping", "beartype"])
def test_checked_annotations_are_looked_through(check):
    checked = check(shifted)
    before = fingerprint(checked)
    checked(jnp.ones(2))
    assert before == fingerprint(checked) == fingerprint(shifted)
