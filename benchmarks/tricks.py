"""What each trick for XLA and processors is worth: `python benchmarks/tricks.py`.

One line for each: our code, and the same work with the straightforward code in the trick's place. Rounds are
interleaved after one that compiles, and a ratio is the median of the rounds' ratios: of time, of processor
time, which other work on the machine does not change, and of the bytes that XLA plans for temporaries. A
trick worth less than 1.2 of time goes, unless it is there for exactness, to bound memory, or because without
it other numbers would come out. `--record` writes the numbers with their environment into book/results.
"""

import argparse
import contextlib
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion import (
    _arccosine,
    _attack_pgd,
    _conv_kernel,
    _dense_kernel,
    _empirical_methods,
    _feature_attack,
    _layers,
    _network_modules,
    _plan,
    _tiles,
    networks,
    regression,
    results,
)
from companion._attack_losses import cross_entropy, margin
from companion.architectures import fc
from companion.attacks import Threat, pgd
from companion.empirical import empirical_ntk_fn
from companion.kernels import gram
from companion.predictor import input_gradient, predictor

LEAST = 1.2
MODULES = {
    "conv": _conv_kernel,
    "dense": _dense_kernel,
    "features": _feature_attack,
    "jax": jax,
    "layers": _layers,
    "lax": jax.lax,
    "methods": _empirical_methods,
    "modules": _network_modules,
    "pgd": _attack_pgd,
    "plan": _plan,
    "policies": jax.checkpoint_policies,
    "tiles": _tiles,
}


@dataclass(frozen=True)
class Trick:
    """A trick: where it is, and `build(toy) -> (with it, without)`, two ways of the same work.

    `kept` says what it is there for besides time; nothing where it must be worth its time.
    """

    place: str
    build: Callable
    kept: str = ""


@contextlib.contextmanager
def swapped(replaced):
    """Other attributes of modules for a while: {"plan._STEP": 1}."""
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
    return _dense_kernel.relu_kernel(a, b, depth=3, w_std=2**0.5, b_std=0.1)[1]


def conv(depth):
    """The kernel of a convolutional network, not kept compiled."""

    def kernel(a, b, get="ntk"):  # noqa: ARG001
        return _conv_kernel.relu_kernel(a, b, depth=depth, w_std=2**0.5, b_std=0.1)[1]

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

        ours = one(loss, predictor(kernel, x, alpha), z, instead={})
        if isinstance(instead, int):
            return ours, one(loss, predictor(kernel, x, alpha, batch=min(instead, len(x))), z, instead={})
        return ours, one(loss, predictor(kernel, x, alpha), z, instead=instead)

    return build


def matrix(*shape, instead):
    """A whole Gram matrix; `instead` may also be options of `gram`, or a kernel."""

    def build(toy):
        x = inputs(*small(shape) if toy else shape)

        def without():
            with swapped(instead):
                return gram(fc(3), x)

        return lambda: gram(fc(3), x), without

    return build


def one_tile(toy):
    """A Gram matrix in tiles that fit into the cache, and in one."""
    x = inputs(20, 8) if toy else inputs(4000, 784)
    return lambda: gram(fc(3), x), lambda: gram(fc(3), x, tile=len(x))


def given_squares(toy):
    """A Gram matrix of which every tile is given |x|² of its inputs, and of a kernel that computes them."""
    x = inputs(20, 8) if toy else inputs(3000, 3072)
    return lambda: gram(fc(3), x), lambda: gram(fc(3).kernel, x)


def folded(toy):
    """Compiling a function that closes over a predictor."""
    x, z = (inputs(8, 8), inputs(2, 8)) if toy else (inputs(1000, 3072), inputs(100, 3072))

    def way(replaced):
        def run():
            with swapped(replaced):
                f = predictor(dense, x, np.ones((len(x), 1), np.float32))
                jax.jit(lambda z: input_gradient(f, z, jnp.ones((len(z), 1)))).lower(z).compile()

        return run

    return way({}), way({"lax.optimization_barrier": lambda x: x})


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
    """An empirical kernel by Jacobians."""

    def build(toy):
        x = inputs(2, 8, 8, 3) if toy else inputs(*shape)
        params = Plain().init(jax.random.key(0), x[:1])
        ours, other = (empirical_ntk_fn(Plain().apply, implementation="jacobian") for _ in range(2))
        with swapped(instead):
            other(params, x)  # keeps what it compiles
        return lambda: ours(params, x), lambda: other(params, x)

    return build


def outside_loops(toy):
    """An empirical kernel of a network of ours, by XLA's convolutions and by the products for loops."""
    x, model = inputs(2, 8, 8, 3) if toy else inputs(60, 32, 32, 3), networks.cnn(10, width=16)
    variables = model.init(jax.random.key(0), x)
    ours = empirical_ntk_fn(networks.evaluation(model), implementation="jacobian")
    other = empirical_ntk_fn(networks._evaluated(model), implementation="jacobian")
    return lambda: ours(variables, x), lambda: other(variables, x)


def last_batches(toy):
    """PGD that leaves images alone once they are fooled: the last few of a batch go in an eighth of it."""
    x, z = (inputs(8, 8), inputs(4, 8)) if toy else (inputs(2000, 784), inputs(1000, 784))
    f = predictor(fc(1), x, regression.solve(gram(fc(1), x), np.sign(x[:, :1] - 0.5), ridge=0.01))
    labels = (z[:, 0] > 0.5).astype(int)

    def attack():
        return pgd(f, z, labels, Threat("linf", 0.05), steps=20, early_stop=True)

    def whole(index, size):
        for first in range(0, len(index), size):
            part = index[first : first + size]
            yield np.concatenate([part, np.repeat(part[:1], size - len(part))])

    def without():
        with swapped({"pgd.in_batches": whole}):
            return attack()

    return attack, without


def single_step(toy):
    """A step of PGD on a network of XLA's convolutions, outside a loop and in one."""
    x = inputs(2, 8, 8, 3) if toy else inputs(256, 32, 32, 3)
    f = Partial(Plain().apply, Plain().init(jax.random.key(0), x[:1]))
    labels, score = np.zeros(len(x), np.int32), np.zeros(len(x), np.float32)
    arrays = x, x, score, x, x - 1, x + 1, labels
    options = {"loss": margin, "targeted": False, "norm": "linf"}

    def way(steps):
        return lambda: _attack_pgd._advance(f, *arrays, steps, 0.1, 0.1, True, **options)

    return way(None), way(1)


def verdicts(toy):
    """What an attack on every feature at once leaves."""
    x = inputs(8, 8) if toy else inputs(2000, 784)
    rows, right = np.ones((len(x), len(x)), np.float32), np.ones(len(x), bool)
    still = _feature_attack._compiled.__wrapped__(dense, "ntk")[2]
    instead = {"features._own": lambda entries, rows, signs: signs * (entries * rows).sum(axis=1)}
    return both(lambda *a: still.__wrapped__(*a), x, rows, rows[0], x, right, instead=instead)


# --- the straightforward code


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
NO_BRANCH = {"lax.cond": lambda _, one, __, *operands: one(*operands)}
ALL_SAVED = {"jax.checkpoint": lambda function, **_: function}
NONE_SAVED = {"policies.dots_with_no_batch_dims_saveable": jax.checkpoint_policies.nothing_saveable}
CNN, LARGE = networks.small_cnn(10, width=8), networks.cnn(10, width=8)

TRICKS = {
    "one layer apart from the rest, Conv-2": Trick(
        "_conv_kernel._repeat", tile(conv(2), 32, 32, 32, 3, instead={"conv._repeat": unrolled})
    ),
    "the same, input gradient": Trick(
        "_conv_kernel._repeat", slope(conv(2), 32, 64, 28, 28, 1, instead={"conv._repeat": unrolled})
    ),
    "a loop over layers, Conv-4": Trick(
        "_conv_kernel._repeat", tile(conv(4), 32, 32, 32, 3, instead={"conv._repeat": unrolled})
    ),
    "windows by slices": Trick(
        "_conv_kernel.box", tile(conv(3), 32, 32, 32, 3, instead={"conv.box": padded})
    ),
    "channels one after the other": Trick(
        "_conv_kernel._channel_sum",
        tile(conv(3), 32, 32, 32, 3, instead={"conv._channel_sum": all_channels}),
        "memory",
    ),
    "two roots, conv": Trick(
        "_arccosine.angle_and_rest",
        tile(conv(3), 32, 32, 32, 3, instead={"conv.angle_and_rest": shared_root}),
    ),
    "two roots, fc": Trick(
        "_arccosine.angle_and_rest", tile(dense, 592, 784, instead={"dense.angle_and_rest": shared_root})
    ),
    "polynomials, fc": Trick(
        "_arccosine", tile(dense, 592, 784, instead={"dense.angle_and_rest": arccosine}), "exactness"
    ),
    "polynomials, conv": Trick(
        "_arccosine",
        tile(conv(3), 32, 32, 32, 3, instead={"conv.angle_and_rest": arccosine}),
        "exactness",
    ),
    "no mask where no pair is near": Trick("_dense_kernel._gap", tile(dense, 592, 784, instead=NO_BRANCH)),
    "forward mode, input gradient": Trick(
        "_dense_kernel._entries",
        slope(dense, 500, 2000, 784, instead={"dense._entries": lambda f, *args: f(*args)}),
    ),
    "sums by products, input gradient": Trick(
        "_dense_kernel._entries_jvp", slope(dense, 500, 2000, 784, instead={"dense.jnp": BY_SUMS})
    ),
    "tiles that fit into the cache": Trick("_plan._SIDE", one_tile),
    "sides that are multiples": Trick("_plan._STEP", matrix(4001, 784, instead={"plan._STEP": 1})),
    "tiles in threads": Trick(
        "_plan._by_threads", matrix(3000, 784, instead={"plan._by_threads": lambda _: False})
    ),
    "squares given to tiles": Trick("_plan.Job.squares", given_squares),
    "transposed in pieces": Trick("_tiles._mirror", matrix(4000, 784, instead={"tiles._PIECE": 2**30})),
    "products kept, fc": Trick("predictor._compiled", slope(dense, 500, 4000, 3072, instead=NONE_SAVED)),
    "the rest not kept, fc": Trick(
        "predictor._compiled", slope(dense, 500, 4000, 784, instead=ALL_SAVED), "memory"
    ),
    "the rest not kept, conv": Trick(
        "predictor._compiled", slope(conv(2), 32, 64, 28, 28, 1, instead=ALL_SAVED), "memory"
    ),
    "small blocks, conv": Trick("predictor._default_batch", slope(conv(2), 32, 200, 28, 28, 1, instead=200)),
    "constants not folded, compilation": Trick("predictor._compiled", folded),
    "convolutions as products in loops": Trick(
        "_layers.Conv", training(CNN, 40, 28, 28, 1, instead={"layers._product": _layers._convolution})
    ),
    "pooling by reshape": Trick(
        "_layers.max_pool",
        training(
            LARGE, 40, 16, 16, 1, instead={"modules.max_pool": lambda x: nn.max_pool(x, (2, 2), (2, 2))}
        ),
    ),
    "convolutions outside loops": Trick("_layers.outside_loops", outside_loops),
    "patches for each example": Trick(
        "_empirical_conv", jacobian(40, 32, 32, 3, instead={"methods.with_patches": lambda f, *_: f})
    ),
    "products of rows": Trick(
        "_empirical_methods._contract_rows",
        jacobian(40, 32, 32, 3, instead={"methods._contract_rows": by_einsum}),
    ),
    "an eighth for the last": Trick("_attack_predict.in_batches", last_batches),
    "one step outside a loop": Trick("_attack_pgd._advance", single_step),
    "sums by a product, features": Trick("_feature_attack._own", verdicts),
}


def measured(trick, toy, rounds):
    """Medians of the rounds' ratios, the least seconds of both ways, and the ratio of planned bytes."""
    ways, clocks = trick.build(toy), (time.perf_counter, time.process_time)
    taken = np.empty((rounds + 1, len(ways), len(clocks)))
    for number in range(rounds + 1):
        for which, way in enumerate(ways):
            start = [clock() for clock in clocks]
            jax.block_until_ready(way())
            taken[number, which] = [clock() - begin for clock, begin in zip(clocks, start, strict=True)]
    ratios = np.median(taken[1:, 1] / taken[1:, 0], axis=0)
    planned = [getattr(way, "bytes", None) for way in ways]
    return {
        "place": trick.place,
        "ratio": float(ratios[0]),
        "processor_ratio": float(ratios[1]),
        "seconds": taken[1:, :, 0].min(axis=0).tolist(),
        "bytes": planned[1] / planned[0] if all(planned) else None,
        "kept": trick.kept,
    }


def main():
    """Measure the tricks whose name or place contains the given text, print them, record them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "only", nargs="?", default="", help="run only those whose name or place contains this"
    )
    parser.add_argument("--rounds", type=int, default=9, help="of each (9)")
    parser.add_argument("--toy", action="store_true", help="one round at the smallest sizes, to see it run")
    parser.add_argument("--record", action="store_true", help="write book/results/trick_benchmark/cpu.json")
    options = parser.parse_args()
    # What is measured compiles anew: nothing may come from a disk.
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_disable_most_optimizations", options.toy)
    begin, table = time.perf_counter(), {}
    for name, trick in TRICKS.items():
        if options.only in f"{name} {trick.place}":
            row = table[name] = measured(trick, options.toy, 1 if options.toy else options.rounds)
            planned = "" if row["bytes"] is None else f"{row['bytes']:5.2f} × bytes"
            ratios = f"{row['ratio']:6.2f} × {row['processor_ratio']:6.2f} × processor"
            verdict = row["kept"] or ("" if row["ratio"] >= LEAST else "not worth it")
            seconds = 1e3 * row["seconds"][0]
            print(
                f"{name:38} {trick.place:34} {seconds:9.1f} ms {ratios} {planned:13} {verdict}",
                flush=True,
            )
    if options.record and not options.toy:
        path = results.record(
            "trick_benchmark",
            jax.default_backend(),
            values=table,
            config={"rounds": options.rounds},
            dataset="random numbers in [0, 1]",
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
