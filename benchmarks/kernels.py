"""Kernels side by side with neural-tangents and with the bare matrix product: `python benchmarks/kernels.py`.

Every line is one way to do one piece of work. Seconds are the least of several interleaved runs after
compilation, so that ratios hold on a busy machine too. Memory is how much a process of its own grows while it
compiles and does the work once, the result included. neural-tangents runs as one jit of the whole and by
`nt.batch` at several sizes: the best counts. The floor is one float32 matrix product n × n × d of the same
inputs. `--record` writes the numbers with their environment into book/results, where the book's status page
reads them.
"""

import argparse
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from empirical import PaperCNN  # beside this file

from companion import results
from companion.architectures import conv, fc
from companion.empirical import empirical_ntk_fn
from companion.kernels import gram
from companion.neural_tangents import nt, stax
from companion.regression import from_coefficients

SCALES = {"W_std": 2**0.5, "b_std": 0.1}


def inputs(*shape):
    """Random images, the same in every process."""
    return np.random.default_rng(0).random(shape, np.float32)


def library(layer, *end):
    """neural-tangents' kernel of three hidden ReLU layers."""
    hidden = [part for _ in range(3) for part in (layer(), stax.Relu())]
    return stax.serial(*hidden, *end, stax.Dense(1, **SCALES))[2]


def of_the_library(kernel_fn, x, batches):
    """Ways to compute a kernel with neural-tangents: in one piece, and in batches."""
    whole = jax.jit(lambda x: kernel_fn(x, None, "ntk"))
    ways = {"neural-tangents, one jit": lambda: whole(x)} if 0 in batches else {}
    for size in batches:
        if size:
            batched = nt.batch(kernel_fn, batch_size=size)
            ways[f"neural-tangents, batches of {size}"] = lambda f=batched: f(x, None, "ntk")
    return ways


def dense(n, d):
    """The Gram matrix of FC-3."""
    x = inputs(n, d)
    product = jax.jit(lambda x: jnp.matmul(x, x.T, precision="highest"))
    batches = [0, *(size for size in (500, 1000) if n % size == 0)]
    kernel_fn = library(lambda: stax.Dense(1, **SCALES))
    return {
        "companion": lambda: gram(fc(3), x),
        **of_the_library(kernel_fn, jnp.asarray(x), batches),
        "matrix product": lambda: product(x),
    }


def convolutional(n, side=32):
    """The Gram matrix of Conv-3 with a flattened end."""
    x = inputs(n, side, side, 3)
    kernel_fn = library(lambda: stax.Conv(1, (3, 3), padding="SAME", **SCALES), stax.Flatten())
    return {
        "companion": lambda: gram(conv(3), x),
        **of_the_library(
            kernel_fn, jnp.asarray(x), [size for size in (16, 32) if n % size == 0] + [0] * (n <= 128)
        ),
    }


def empirical(n, side=32):
    """The full empirical NTK of a convolutional network, 10 n × 10 n."""
    x = inputs(n, side, side, 3)
    params = PaperCNN(10).init(jax.random.key(0), x[:1])
    ours = empirical_ntk_fn(PaperCNN(10).apply, reduce="full", memory=3 * 2**30)
    theirs = nt.empirical_ntk_fn(
        PaperCNN(10).apply,
        trace_axes=(),
        vmap_axes=0,
        implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    )
    whole = jax.jit(lambda params, x: theirs(x, None, params))
    return {
        "companion": lambda: ours(params, x),
        "neural-tangents, structured derivatives": lambda: whole(params, x),
    }


def gradient(m, n, d):
    """The input gradient of a kernel predictor."""
    x, z, alpha = inputs(n, d), inputs(m, d), inputs(n, 1)
    f, weights = from_coefficients(fc(3), x, alpha), jnp.ones((m, 1), jnp.float32)
    kernel_fn = library(lambda: stax.Dense(1, **SCALES))
    whole = jax.jit(jax.grad(lambda z, x, alpha: (kernel_fn(z, x, "ntk") @ alpha).sum()))
    product = jax.jit(lambda z, x: jnp.matmul(z, x.T, precision="highest"))
    return {
        "companion": lambda: f.gradient(z, weights),
        "neural-tangents, one jit": lambda: whole(z, x, alpha),
        "matrix product": lambda: product(z, x),
    }


CASES = {
    **{f"FC-3 Gram, n = {n}, d = {d}": (dense, n, d) for d in (784, 3072) for n in (2000, 5000, 10_000)},
    **{f"Conv-3 Gram, n = {n}, 32×32×3": (convolutional, n) for n in (128, 512)},
    **{f"CNN, empirical NTK, {n} × 10 outputs": (empirical, n) for n in (100, 250)},
    **{f"FC-3 input gradient, 500 × 5000, d = {d}": (gradient, 500, 5000, d) for d in (784, 3072)},
}
TOY = {
    "FC-3 Gram": (dense, 20, 8),
    "Conv-3 Gram": (convolutional, 16, 4),
    "CNN, empirical NTK": (empirical, 2, 4),
    "FC-3 input gradient": (gradient, 4, 8, 8),
}
ROUNDS = {dense: 6, convolutional: 1, empirical: 1, gradient: 9}


def seconds(work):
    """Time of one call, its result computed to the end."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def measured(build, *sizes, rounds):
    """Least seconds of every way to do a case, in interleaved rounds after one that compiles."""
    ways = build(*sizes)
    times = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            elapsed = seconds(work)
            if number:
                times[name].append(elapsed)
    return {name: min(found) for name, found in times.items()}


def grown(case, way):
    """How much a process of its own grows at its peak while it does a case, in bytes; None without /proc."""
    command = [sys.executable, __file__, "--memory", case, way]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    return None if printed == "None" else int(printed)


def grown_here(case, way):
    """How much this process grows while it does a case."""
    build, *sizes = case
    work = build(*sizes)[way]
    try:
        before = kilobytes("VmRSS")
        jax.block_until_ready(work())
        return 1024 * (kilobytes("VmHWM") - before)
    except FileNotFoundError:
        return None


def kilobytes(name):
    """A size of this process, as Linux tells it."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))


def main():
    """Run the cases whose name contains the given text, print them, and record them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="", help="run only cases whose name contains this")
    parser.add_argument("--record", action="store_true", help="write book/results/kernel_benchmark/cpu.json")
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        return print(grown_here(CASES[options.memory[0]], options.memory[1]))
    start, table, cases = time.perf_counter(), {}, TOY if options.toy else CASES
    for case in (case for case in cases if options.only in case):
        print(f"\n{case}", flush=True)
        times = measured(*cases[case], rounds=1 if options.toy else ROUNDS[cases[case][0]])
        theirs = min((name for name in times if name.startswith("neural")), key=times.get)
        kept = {"companion": "companion", "neural-tangents": theirs, "matrix product": "matrix product"}
        table[case] = {}
        for short, name in kept.items():
            if name in times:
                bytes_grown = grown_here(cases[case], name) if options.toy else grown(case, name)
                table[case][short] = {"way": name, "seconds": times[name], "bytes": bytes_grown}
        ours = times["companion"]
        for name, found in times.items():
            known = next((row for row in table[case].values() if row["way"] == name), None)
            size = f"{known['bytes'] / 1e6:8,.0f} MB" if known and known["bytes"] is not None else ""
            print(f"  {name:42} {found:8.3f} s   {found / ours:6.2f} × companion {size}", flush=True)
    if options.record and not options.toy:
        path = results.record(
            "kernel_benchmark",
            jax.default_backend(),
            values=table,
            config={name: list(case[1:]) for name, case in CASES.items()},
            dataset="random numbers in [0, 1]",
            seeds=[0],
            seconds=time.perf_counter() - start,
        )
        print(f"\nrecorded {path}")
    return None


if __name__ == "__main__":
    main()
