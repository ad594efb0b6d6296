"""For tricks.py: the pieces of work, and the straightforward code that takes a trick's place."""

import contextlib
import types
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from empirical import PaperCNN  # beside this file
from jax.tree_util import Partial

from companion import networks
from companion._core import geometry
from companion.architectures import _arccosine, _conv, _dense, fc
from companion.attacks import Threat, _apgd, _ascent, _losses, apgd, targeted_dlr
from companion.attacks._losses import cross_entropy, margin
from companion.empirical import _methods, empirical_ntk_fn
from companion.features import _attack
from companion.kernels import _plan, _tiles, gram
from companion.networks import _layers, _models, _modules, mlp, predict_fn
from companion.regression import from_coefficients

MODULES = {
    "conv": _conv, "dense": _dense, "features": _attack, "geometry": geometry, "jax": jax, "layers": _layers,
    "losses": _losses, "methods": _methods, "modules": _modules, "plan": _plan,
    "policies": jax.checkpoint_policies, "search": _apgd,
}  # fmt: skip


@contextlib.contextmanager
def swapped(replaced):
    """Other attributes of modules for a while: {"conv.box": padded}."""
    with contextlib.ExitStack() as stack:
        for name, value in replaced.items():
            module, attribute = name.split(".")
            stack.enter_context(mock.patch.object(MODULES[module], attribute, value))
        yield


def one(function, *args, instead):
    """The function compiled, with other code in a trick's place; with its planned bytes."""
    with swapped(instead):
        program = jax.jit(lambda *args: function(*args)).lower(*args).compile()

    def run():
        return program(*args)

    run.bytes = getattr(program.memory_analysis(), "temp_size_in_bytes", None)
    return run


def both(function, *args, instead):
    """The function compiled as it is, and with other code in the trick's place."""
    return one(function, *args, instead={}), one(function, *args, instead=instead)


def inputs(*shape):
    """Random images, the same in every process."""
    return np.random.default_rng(0).random(shape, np.float32)


def dense(a, b, get="ntk"):  # noqa: ARG001
    """The kernel of FC-3, not kept compiled."""
    return _dense.relu_kernel(jnp.asarray(a), jnp.asarray(b), depth=3, w_std=2**0.5, b_std=0.1)[1]


def conv(depth):
    """The kernel of a convolutional network, not kept compiled."""

    def kernel(a, b, get="ntk"):  # noqa: ARG001
        return _conv.relu_kernel(a, b, depth=depth, w_std=2**0.5, b_std=0.1)[1]

    return kernel


def tile(kernel, *shape, instead):
    """One tile of a Gram matrix."""

    def build(toy):
        x = inputs(2, *(small(shape) if toy else shape))
        return both(kernel, x[0], x[1], instead=instead)

    return build


def small(shape):
    """A toy of the same rank."""
    return (4, 8) if len(shape) == 2 else (2, 4, 4, 1)


def slope(kernel, m, *shape, instead):
    """A predictor's loss and its input gradient at m inputs; `instead` may also be another block size."""

    def build(toy):
        x = inputs(*small(shape) if toy else shape)
        z, alpha = x[:m], np.ones((len(x), 1), np.float32)

        def loss(f, z):
            return jax.value_and_grad(lambda z: jax.nn.softplus(f(z)).sum())(z)

        ours = one(loss, from_coefficients(kernel, x, alpha), z, instead={})
        if isinstance(instead, int):
            return ours, one(
                loss, from_coefficients(kernel, x, alpha, batch_size=min(instead, len(x))), z, instead={}
            )
        return ours, one(loss, from_coefficients(kernel, x, alpha), z, instead=instead)

    return build


def matrix(*shape, instead):
    """A whole Gram matrix."""

    def build(toy):
        x = inputs(*small(shape) if toy else shape)

        def without():
            with swapped(instead):
                return gram(fc(3), x)

        return lambda: gram(fc(3), x), without

    return build


def mirrored(toy):
    """Writing the mirror image of one tile of the size that a GPU has."""
    values = inputs(4, 4) if toy else inputs(4096, 4096)
    target = np.empty_like(values)

    def without():
        target[:] = values.T

    return lambda: _tiles._mirror(target, values, diagonal=False), without


def one_tile(toy):
    """A Gram matrix in tiles that fit into the cache, and in one."""
    x = inputs(20, 8) if toy else inputs(4000, 784)
    return lambda: gram(fc(3), x), lambda: gram(fc(3), x, tile=len(x))


def training(model, *shape, instead):
    """Steps of training in one compiled loop."""

    def build(toy):
        x = inputs(4, 16, 16, 1) if toy else inputs(*shape)
        labels = jnp.arange(len(x)) % 10
        params, state = model.init(jax.random.key(0), x)

        def steps(params):
            def loss(params):
                return cross_entropy(model.apply(params, state, x, True)[0], labels).mean()

            def step(_, params):
                return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss)(params))

            return jax.lax.fori_loop(0, 3, step, params)

        return both(steps, params, instead=instead)

    return build


class Plain(nn.Module):
    """A small network of Flax's own convolutions."""

    @nn.compact
    def __call__(self, x):
        """Logits (n, 10)."""
        for channels in (16, 32):
            x = nn.relu(nn.Conv(channels, (3, 3), (2, 2))(x))
        return nn.Dense(10)(x.reshape(len(x), -1))


def jacobian(*shape, instead):
    """An empirical kernel by Jacobians, of the paper's CNN."""

    def build(toy):
        x = inputs(2, 8, 8, 3) if toy else inputs(*shape)
        net = PaperCNN(10)
        params = net.init(jax.random.key(0), x[:1])
        ours, other = (empirical_ntk_fn(net.apply, implementation="jacobian") for _ in range(2))
        with swapped(instead):
            other(params, x)  # keeps what it compiles
        return lambda: ours(params, x), lambda: other(params, x)

    return build


def outside_loops(toy):
    """An empirical kernel of a network of ours, by XLA's convolutions and by the products for loops."""
    x, model = inputs(2, 8, 8, 3) if toy else inputs(60, 32, 32, 3), networks.cnn(10, width=16)
    variables = model.init(jax.random.key(0), x)
    ours = empirical_ntk_fn(networks.evaluation(model), implementation="jacobian")
    other = empirical_ntk_fn(_models._evaluated(model), implementation="jacobian")
    return lambda: ours(variables, x), lambda: other(variables, x)


def single_step(toy):
    """A step of PGD on a network of XLA's convolutions, outside a loop and in one."""
    x = inputs(2, 8, 8, 3) if toy else inputs(256, 32, 32, 3)
    f = Partial(Plain().apply, Plain().init(jax.random.key(0), x[:1]))
    labels, score = np.zeros(len(x), np.int32), np.zeros(len(x), np.float32)
    arrays = x, x, score, x, x - 1, x + 1, labels
    options = {"loss": margin, "targeted": False, "norm": "linf"}

    def way(steps):
        return lambda: _ascent._advance(f, *arrays, steps, 0.1, 0.1, True, **options)

    return way(None), way(1)


def verdicts(toy):
    """What an attack on every feature at once leaves."""
    x = inputs(8, 8) if toy else inputs(2000, 784)
    rows, right = np.ones((len(x), len(x)), np.float32), np.ones(len(x), bool)
    still = _attack._compiled.__wrapped__(dense, "ntk")[2]
    instead = {"features._own": lambda entries, rows, signs: signs * (entries * rows).sum(axis=1)}
    return both(lambda *a: still.__wrapped__(*a), x, rows, rows[0], x, right, instead=instead)


def ball_step(norm, instead):
    """A step of an attack on images of one channel, from corners of the ball, where attacks mostly are."""

    def build(toy):
        x = inputs(4, 5, 5, 1) if toy else inputs(64, 28, 28, 1)  # as a CPU has them at once
        rng = np.random.default_rng(1)
        low, high = np.maximum(x - 0.1, 0), np.minimum(x + 0.1, 1)
        points, gradient = (
            np.where(rng.random(x.shape) < 0.5, low, high),
            rng.standard_normal(x.shape, np.float32),
        )

        def function(gradient, points, x, low, high):
            return geometry.step(norm, gradient, points, x, low, high, 0.05, 0.1)

        return both(function, gradient, points, x, low, high, instead=instead)

    return build


def logits(instead):
    """The gradient of Auto-PGD's targeted loss."""

    def build(toy):
        outputs = inputs(4 if toy else 20_000, 10)
        labels = np.arange(len(outputs)) % 10
        function = jax.grad(lambda z, y: targeted_dlr(z, y, (y + 1) % 10).sum())
        return both(function, outputs, labels, instead=instead)

    return build


def rare_looks(toy):
    """Auto-PGD on a small network that it does not fool, looking at who is fooled at every fifth step."""
    x, model = inputs(4, 5, 5, 1) if toy else inputs(256, 28, 28, 1), mlp(10, width=8 if toy else 128)
    f = predict_fn(model, model.init(jax.random.key(0), x[:1]))
    labels, threat = np.asarray(f(x).argmax(axis=1)), Threat("linf", 1e-6)

    def ours():
        return apgd(f, x, labels, threat, key=jax.random.key(0))

    def without():
        with swapped({"search._FEW": 2.0}):
            return ours()

    return ours, without


# --- the straightforward code


def by_a_sort(outputs, number):
    """The largest outputs of each example."""
    ordered = jnp.sort(outputs, axis=1)
    return [ordered[:, -1 - i] for i in range(number)]


def images(array, _ndim):
    """Instead of rows."""
    return array


def image_length(delta):
    """The length of each image, over its axes."""
    axes, tiny = tuple(range(1, delta.ndim)), jnp.finfo(delta.dtype).tiny
    scale = jnp.maximum(jnp.abs(delta).max(axis=axes, keepdims=True), tiny)
    length = scale * jnp.sqrt(((delta / scale) ** 2).sum(axis=axes, keepdims=True))
    return jnp.where(length > 0, length, jnp.ones_like(length))


def unrolled(times, layer, state):
    """The layers of a convolutional kernel one after the other."""
    for _ in range(times):
        state = layer(0, state)
    return state


def padded(a):
    """Sums over 3×3 windows, by padding."""
    for axis in (0, 1):
        wide = jnp.pad(a, [(1, 1) if i == axis else (0, 0) for i in range(a.ndim)])
        a = sum(jax.lax.slice_in_dim(wide, i, i + a.shape[axis], axis=axis) for i in range(3))
    return a


def all_channels(operation, v1, v2):
    """Σ over channels, of all at once."""
    return operation(v1, v2).sum(0)


def shared_root(m):
    """`angle_and_rest` with one square root."""
    root, arc, rest = jnp.sqrt(m), _arccosine._arc, _arccosine._rest
    return root * _arccosine._polynomial(arc, 1.0, m), root * m * _arccosine._polynomial(rest, 1.0, m)


def arccosine(m):
    """`angle_and_rest` by JAX's arccosine."""
    angle = jnp.arccos(1 - m)
    return angle, jnp.sin(angle) - angle * (1 - m)


def by_sums(a, b, precision=None):
    """A product with ones as a broadcast, on whose way back there are sums."""
    return a * b if a.shape[-1] == 1 else jnp.matmul(a, b, precision=precision)


def by_einsum(_reduce, _parts, rows1, rows2):
    """The trace of a block of an empirical kernel, by einsum."""
    pairs = zip(rows1, rows2, strict=True)
    return sum(jnp.einsum("akp,bkp->ab", a, b) for a, b in pairs) / rows1[0].shape[1]


BY_SUMS = types.SimpleNamespace(**vars(jnp) | {"matmul": by_sums})
ALL_SAVED = {"jax.checkpoint": lambda function, **_: function}
NONE_SAVED = {"policies.dots_with_no_batch_dims_saveable": jax.checkpoint_policies.nothing_saveable}
CNN, LARGE = networks.small_cnn(10, width=8), networks.cnn(10, width=8)
