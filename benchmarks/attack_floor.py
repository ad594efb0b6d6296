"""PGD on a kernel predictor against the products it cannot do without: `python benchmarks/attack_floor.py`.

A gradient of f(x) = Θ(x, X) α takes two matrix products, x Xᵀ and one with X, whatever the kernel is. Ten
steps of L∞ PGD on 256 inputs are compared with twenty such products in one jit (the floor), and told apart:
the gradient and its sign in one jit is what the kernel's entries and their slopes take above the floor;
`attacks.pgd` adds a ball that holds to the last bit, the best point so far and a last look. neural-tangents'
kernel, differentiated by JAX in one jit, is beside them: the same steps, last point, rounded ball. Ratios are
of processor time within one turn, since the machine may have other work: median, least and largest.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from _ratios import show, times_the_first  # beside this file

from companion import regression, results
from companion.architectures import fc
from companion.attacks import Threat, pgd
from companion.neural_tangents import stax

M, STEPS, EPS = 256, 10, 0.03
CASES = {
    f"FC-{depth} {activation}, n = {n}, d = {d}": (depth, activation, n, d)
    for depth, activation, sizes in (
        (1, "relu", ((500, 784), (2000, 784), (500, 3072))),
        (3, "relu", ((500, 784), (500, 3072))),
        (1, "erf", ((500, 784),)),
    )
    for n, d in sizes
}


def ascent(f):
    """Ten steps up the margin of f(x, X, α), in one jit."""

    @jax.jit
    def run(x, sign, x_train, alpha):
        low, high = jnp.maximum(x - EPS, 0), jnp.minimum(x + EPS, 1)

        def step(_, now):
            gradient = jax.grad(lambda x: (-sign * f(x, x_train, alpha)[:, 0]).sum())(now)
            return jnp.clip(now + 2.5 * EPS / STEPS * jnp.sign(gradient), low, high)

        with jax.default_matmul_precision("highest"):
            return jax.lax.fori_loop(0, STEPS, step, x)

    return run


@jax.jit
def products(x, x_train):
    """The products of ten gradients, each of what the one before gave."""

    def step(_, now):
        entries = jnp.matmul(now, x_train.T, precision="highest")
        return 1e-6 * jnp.matmul(entries, x_train, precision="highest")

    return jax.lax.fori_loop(0, STEPS, step, x)


def ways(depth, activation, n, d):
    """What is timed in a case; the floor first."""
    rng = np.random.default_rng(0)
    x, x_train = (rng.random((rows, d), np.float32) for rows in (M, n))
    labels, alpha = rng.integers(0, 2, M), rng.standard_normal((n, 1)).astype(np.float32)
    f = regression.from_coefficients(fc(depth, activation=activation), x_train, alpha)
    layer = {"relu": stax.Relu, "erf": stax.Erf}[activation]
    dense = lambda: stax.Dense(1, W_std=2**0.5, b_std=0.1)  # noqa: E731
    kernel_fn = stax.serial(*[part() for _ in range(depth) for part in (dense, layer)], dense())[2]
    theirs = ascent(lambda x, x_train, alpha: kernel_fn(x, x_train, "ntk") @ alpha)
    ours = ascent(lambda x, f, _: f(x))
    arrays = jnp.asarray(x), jnp.asarray(2.0 * labels - 1, jnp.float32)
    columns, weights = jnp.asarray(x_train), jnp.asarray(alpha)
    return {
        "two products a step": lambda: products(arrays[0], columns),
        "companion's gradient and its sign, one jit": lambda: ours(*arrays, f, weights),
        "attacks.pgd": lambda: pgd(f, x, labels, Threat("linf", EPS), steps=STEPS, batch_size=M),
        "neural-tangents, one jit": lambda: theirs(*arrays, columns, weights),
    }


def main():
    """All cases, a line for each way, and the record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write book/results/attack_floor/<device>.json")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    begin, table = time.perf_counter(), {}
    cases = {"FC-1 relu, toy": (1, "relu", 4, 8)} if options.toy else CASES
    for case, sizes in cases.items():
        print(case, flush=True)
        table[case] = times_the_first(ways(*sizes), 1 if options.toy else options.turns)
        show(table[case])
    if options.record and not options.toy:
        path = results.record(
            "attack_floor",
            jax.default_backend(),
            values=table,
            config={"inputs": M, "steps": STEPS, "eps": EPS, "turns": options.turns},
            dataset="uniform random pixels",
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
