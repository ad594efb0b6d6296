"""Every matrix product and convolution that promises "highest" asks for it: no CPU shows what TF32 would do.

Nothing is compiled: what JAX traces says the precision of each product, also in loops and branches.
"""

import contextlib
import functools
import importlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import Mesh, PartitionSpec
from jax.tree_util import Partial

from companion.architectures import conv, fc
from companion.attacks import _ascent, _predict, _square
from companion.attacks._losses import margin
from companion.empirical import empirical_ntk
from companion.experiments import scale
from companion.features import _attack
from companion.kernels import gram
from companion.regression import from_coefficients
from companion.training import _descent, _linear
from companion.training import _residual as residual

HIGHEST, DEFAULT = jax.lax.Precision.HIGHEST, jax.lax.Precision.DEFAULT
X, ALPHA, LABELS = np.ones((3, 7), np.float32), np.ones((3, 2), np.float32), np.zeros(3, np.int32)
IMAGES, WEIGHTS = np.ones((3, 8, 8, 1), np.float32), np.ones((7, 2), np.float32)


def products(jaxpr):
    """Whether each product is in highest precision, those of inner programs too."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in ("dot_general", "conv_general_dilated"):
            # JAX's patches of images are convolutions with zeros and ones, which no precision rounds.
            enough = [(HIGHEST, HIGHEST), *[(HIGHEST, DEFAULT)] * (name == "conv_general_dilated")]
            yield equation.params["precision"] in (HIGHEST, *enough)
        inner = jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: isinstance(p, Jaxpr | ClosedJaxpr)
        )
        for part in inner:
            if isinstance(part, Jaxpr | ClosedJaxpr):
                yield from products(getattr(part, "jaxpr", part))


def traced(function, *args):
    return list(products(jax.make_jaxpr(function)(*args).jaxpr))


class NothingRuns(Exception):
    pass


@pytest.fixture
def compiled(monkeypatch):
    """The products of what would be compiled ahead of time, up to the first call."""
    found = []
    with contextlib.suppress(ImportError):  # loaded later it would meet the `jit` that follows
        importlib.import_module("companion.neural_tangents")

    class Program:
        def __init__(self, function, **_):
            self.function = function

        def lower(self, *args):
            found.extend(traced(self.function, *args))
            self.out_info = jax.eval_shape(self.function, *args)
            return self

        def compile(self):
            return self

        def memory_analysis(self):
            return None

        def __call__(self, *args):
            raise NothingRuns

    monkeypatch.setattr(jax, "jit", Program)
    return found


# --- the walk over programs


@jax.custom_vjp
def with_own_gradient(x):
    return x @ x


with_own_gradient.defvjp(lambda x: (x @ x, x), lambda x, gradient: (gradient @ x,))


@jax.custom_jvp
def with_own_tangent(x):
    return x @ x


with_own_tangent.defjvp(lambda primals, tangents: (primals[0], tangents[0] @ primals[0]))

AROUND = {
    "jit": jax.jit(lambda x: x @ x),
    "scan": lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=2)[0],
    "while_loop": lambda x: jax.lax.while_loop(lambda c: (c @ c).sum() < 0, lambda c: c, x),
    "cond": lambda x: jax.lax.cond(x.sum() > 0, lambda c: c, lambda c: c @ c, x),
    "checkpoint": jax.checkpoint(lambda x: x @ x),
    "custom_vjp": with_own_gradient,
    "custom_jvp": with_own_tangent,
    "gradient of custom_vjp": jax.grad(lambda x: with_own_gradient(x + 1).sum()),
    "vmap in jit in scan": lambda x: jax.lax.scan(
        lambda c, _: (jax.jit(jax.vmap(lambda r: x @ r))(c), None), x, None, length=2
    )[0],
    "shard_map": lambda x: jax.shard_map(
        lambda x: x @ x,
        mesh=Mesh(np.array(jax.devices()[:1]), ("a",)),
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
    )(x),
    "convolution": lambda x: jax.lax.conv(x[None, None], x[None, None], (1, 1), "SAME"),
}


@pytest.mark.parametrize("kind", AROUND)
def test_walk_finds_a_product(kind):
    assert False in traced(AROUND[kind], jnp.eye(2))
    with jax.default_matmul_precision("highest"):
        found = traced(lambda x: AROUND[kind](x), jnp.eye(3))
    assert found
    assert all(found)


# --- kernels and predictors


def plain(a, b, get):
    """A kernel of a user's own."""
    return a @ b.T


@jax.custom_jvp
def bent(a, b):
    return a @ b.T


@bent.defjvp
def _bent_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    return a @ b.T, da @ b.T + a @ db.T


def unmarked(architecture):
    """The same kernel, of which no compiled form is kept."""
    return replace(architecture, kernel=lambda *args, **options: architecture.kernel(*args, **options))


KERNELS = {
    "fc": (fc(2), X),
    "fc without bias": (fc(2, b_std=0.0), X),
    "fc erf": (fc(2, activation="erf"), X),
    "pooled": (conv(1, pool=True), IMAGES),
    "own": (plain, X),
    "own derivative": (lambda a, b, get: bent(a, b), X),
}


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", ["fc", "fc erf", "pooled", "own"])
def test_gram_is_in_highest_precision(name, kind, compiled):
    kernel, x = KERNELS[name]
    with pytest.raises(NothingRuns):
        gram(kernel if kernel is plain else unmarked(kernel), x, kind=kind)
    assert compiled
    assert all(compiled)


@pytest.mark.parametrize("name", ["fc", "fc without bias", "fc erf"])
def test_kernels_by_themselves_and_their_gradients_are_in_highest_precision(name):
    kernel, x = KERNELS[name][0].kernel, KERNELS[name][1]
    both = traced(lambda a, b: kernel(a, b, ("ntk", "nngp")), x, x)
    slopes = traced(jax.grad(lambda a, b: kernel(a, b).sum(), (0, 1)), x, x)
    assert len(slopes) > len(both) > 0
    assert all(both + slopes)


@pytest.mark.parametrize("name", [*KERNELS, "conv", "conv erf"])
def test_predictors_and_their_gradients_are_in_highest_precision(name):
    shared = {"conv": (conv(2), IMAGES), "conv erf": (conv(2, activation="erf"), IMAGES)} | KERNELS
    kernel, x = shared[name]
    f = from_coefficients(kernel, x, ALPHA, batch_size=2)
    for found in (
        traced(f, x),
        traced(lambda f, x, w: f.gradient(x, w), f, x, ALPHA),
        traced(lambda f, x: f.gradient(x), f, x),
    ):
        assert found
        assert all(found)


# --- empirical kernels


@pytest.mark.parametrize("reduce", ["trace", "class", "full"])
@pytest.mark.parametrize("implementation", ["jacobian", "structured", "vector_products", "batch_statistics"])
def test_empirical_kernels_are_in_highest_precision(implementation, reduce, compiled):
    def apply_fn(params, x):
        hidden = jax.lax.conv_general_dilated(
            x, params[0], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return hidden.reshape(len(x), -1) @ params[1]

    params = jnp.ones((3, 3, 1, 2)), jnp.ones((128, 2))
    mixed = implementation == "batch_statistics"
    options = {"batch_statistics": True} if mixed else {"implementation": implementation}
    with pytest.raises(NothingRuns):
        empirical_ntk(apply_fn, params, IMAGES, reduce=reduce, **options)
    assert len(compiled) > 2
    assert all(compiled)


# --- attacks

NETWORK = Partial(lambda w, x: x.reshape(len(x), -1) @ w)
ATTACKED = {
    "network": (Partial(NETWORK.func, jnp.asarray(WEIGHTS)), X),
    "predictor": (_predict.as_partial(from_coefficients(fc(1), X, ALPHA)), X),
}


@pytest.mark.parametrize("name", ATTACKED)
@pytest.mark.parametrize("steps", [None, 2])
def test_gradient_attacks_are_in_highest_precision(name, steps):
    f, x = ATTACKED[name]
    step = functools.partial(_ascent._advance, loss=margin, targeted=False, norm="linf")
    found = traced(step, f, x, x, ALPHA[:, 0], x, x, x, LABELS, steps, 0.1, 0.1, True)
    assert len(found) >= 2
    assert all(found)


def test_evaluations_of_attacks_are_in_highest_precision():
    f, x = ATTACKED["network"]
    gradient = functools.partial(_predict.loss_gradient, loss=margin)
    sizes = {"first_share": 0.8, "spread": 1.0, "eps": 0.1}
    search = functools.partial(_square._search, loss=margin, norm="linf", **sizes)
    picture = Partial(NETWORK.func, np.ones((64, 2), np.float32))
    for found in (
        traced(gradient, f, x, LABELS),
        traced(_predict.compiled_outputs, f, x),
        traced(search, picture, jax.random.key(0), LABELS, IMAGES, IMAGES, IMAGES, LABELS, np.int32(5)),
    ):
        assert found
        assert all(found)


def test_evaluation_of_any_function_is_in_highest_precision():
    seen = []

    def predict(x):
        seen.append(jax.config.jax_default_matmul_precision)
        return x[:, :2]

    _predict.outputs_of(predict, X, 3)
    _predict.outputs_of(Partial(predict), X, 3)
    assert seen == ["highest"] * 2


@pytest.mark.parametrize("kernel", [plain, fc(1).kernel], ids=["own", "fc"])
def test_feature_attacks_are_in_highest_precision(kernel):
    rows, signs = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    right, points = np.ones(2, bool), X[:2]
    first, again, still = _attack._compiled.__wrapped__(kernel, "ntk")
    ball = _attack._Ball(X[0], X[0], X[0], size=0.1, eps=0.1)
    for function, args in (
        (functools.partial(first, norm="linf"), (X, rows, signs, ball)),
        (functools.partial(again, norm="linf"), (X, rows, signs, points, right, ball)),
        (still, (X, rows, signs, points, right)),
    ):
        found = traced(function, *args)
        assert len(found) >= 2
        assert all(found)


# --- networks in the lazy regime, and measured times


def apply(params, x):
    return x @ params


def test_training_in_the_lazy_regime_is_in_highest_precision():
    outputs, advance = _descent._compiled.__wrapped__(apply)
    numbers = {"norm": 1.0, "rate": 0.1, "momentum": 0.0, "level": 0.1, "stop": 5}

    def train(key, size):
        state = residual._start(WEIGHTS, np.float32, full=size == len(X))
        return residual._train(Partial(apply), X, ALPHA, key=key, state=state, size=size, **numbers)

    for found in (
        traced(outputs, WEIGHTS, X),
        traced(advance, WEIGHTS, X, ALPHA, 0.1, 2),
        traced(lambda: train(None, 3)),
        traced(lambda: train(jax.random.key(0), 2)),
        traced(functools.partial(_linear._pulled_back, lambda v, x: x @ v[0]), (WEIGHTS, ()), X, ALPHA),
    ):
        assert found
        assert all(found)


def test_what_centered_training_takes_off_is_in_highest_precision():
    seen = []

    def network(params, x):
        if not isinstance(x, jax.core.Tracer):
            seen.append(jax.config.jax_default_matmul_precision)
        return x @ params

    residual.train_to_residual(network, WEIGHTS, X, ALPHA, learning_rate=0.01, residuals=[0.9])
    assert seen == ["highest"]


def test_the_measured_product_is_in_highest_precision(monkeypatch):
    found, real = [], jax.jit
    monkeypatch.setattr(jax, "jit", lambda f: found.append(f) or real(f))
    scale._product_seconds(X)
    assert traced(found[0], X, X) == [True]
