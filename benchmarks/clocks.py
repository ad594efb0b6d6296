"""What a gradient in the clocks costs: `python benchmarks/clocks.py`.

One predictor and the gradient of ⟨G, α⟩ in n clocks, ten outputs, random positive definite matrices with a
falling spectrum: in closed form, by Chebyshev polynomials, and by JAX through its matrix exponential as the
authors' code has it. Processor times are multiples of one eigendecomposition of n, taken in the same turn:
median, least and largest. Errors are against the closed form.

A whole run: `python benchmarks/clocks.py --run 2000`: the fit to so many images of CIFAR-10 and 50 steps on
their clocks, begun at a good time for all, each with an attack on 128 validation images. Seconds on the wall,
processor seconds of all threads, and the most memory that the process ever held. `--steps` takes fewer.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from _ratios import show, times_the_first  # beside this file

from companion import clocks, data, regression, results
from companion._core.compile import double
from companion.architectures import fc
from companion.attacks import Threat, training_attack
from companion.clocks._flow import flow
from companion.experiments._shared import peak_memory

BEST, LARGE, VALIDATION = 0.05, 4000, 400  # time in units of one over the mean eigenvalue; n from which
OUTPUTS, LENGTH = 10, 30.0  # the largest eigenvalue times the mean clock is LENGTH · n / 100


def problem(n):
    """Θ, Y, clocks and G."""
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = LENGTH * n / 100 / np.arange(1, n + 1) + 0.1
    theta = (vectors * values) @ vectors.T
    y, weights = rng.normal(size=(2, n, OUTPUTS))
    return (theta + theta.T) / 2, y, rng.uniform(0, 2, n), weights


@jax.jit
def through_expm(theta, inverse, y, clocks, weights):
    """The gradient of ⟨G, Θ⁻¹ (I − e^{−Θ diag ϖ}) Y⟩, by JAX."""

    def value(clocks):
        left = jnp.eye(len(theta)) - jax.scipy.linalg.expm(-theta * clocks)
        return (weights * (inverse @ (left @ y))).sum()

    return jax.grad(value)(clocks)


def measured(n, turns):
    """Times the eigendecomposition, and errors, by method."""
    theta, y, clocks, weights = problem(n)
    ways = {
        "closed form": lambda: flow(theta, y, clocks, "eigh")[1](weights),
        "through expm": lambda: through_expm(theta, np.linalg.inv(theta), y, clocks, weights),
        "by polynomials": lambda: flow(theta, y, clocks, "chebyshev")[1](weights),
    }
    with double(theta):
        exact = ways["closed form"]()
        errors = {
            name: float(np.abs(np.asarray(work()) - exact).max() / np.abs(exact).max())
            for name, work in ways.items()
        }
        eigen = {"eigendecomposition": lambda: scipy.linalg.eigh(theta, driver="evd")[0]}
        ratios = times_the_first(eigen | ways, turns)
    print(f"n = {n:,}; errors {', '.join(f'{name} {error:.0e}' for name, error in errors.items())}")
    show(ratios)
    return {"times": ratios, "errors": errors}


def whole_run(n, steps, toy):
    """Seconds, processor seconds and memory of the fit and of learning clocks."""
    name, eps, validation = ("digits", 0.1, 40) if toy else ("cifar10", 8 / 255, VALIDATION)
    d = data.load(name, n_train=n + validation, n_test=100)
    targets, threat = data.targets(d.y_train, 10), Threat("linf", eps)
    found, marks = {"solver": "eigh" if n < LARGE else "chebyshev"}, []

    def mark(part):
        marks.append((time.perf_counter(), time.process_time()))
        if len(marks) > 1:
            found[part] = [float(x) for x in np.subtract(*marks[:-3:-1])]
            print(f"  {part:8} {found[part][0]:8.1f} s, {found[part][1]:8.1f} processor s", flush=True)

    mark("")
    f = regression.fit(fc(3, w_std=1.76, b_std=0.18), d.x_train[:n], targets[:n])
    best = BEST / float(f.eigenvalues.mean())
    mark("fit")
    learned = clocks.learn(
        f, d.x_train[n:], d.y_train[n:], threat, steps=steps, rate=2 * best / 50, start=best,
        attack=training_attack(threat), solver=found["solver"], key=jax.random.key(0), progress=not toy,
    )  # fmt: skip
    mark("learn")
    found |= {"steps": steps, "losses": learned.losses.tolist(), "memory": peak_memory()}
    print(f"n = {n:,}, {found['solver']}, {steps} steps; {found['memory'] / 1e9:.1f} GB")
    return found


def main():
    """Measure all sizes, and record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--record", action="store_true", help="write book/results/clock_benchmark/<device>.json"
    )
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    parser.add_argument("--run", type=int, metavar="N", help="a whole run with N images instead")
    parser.add_argument("--steps", type=int, default=50, help="of the run")
    options = parser.parse_args()
    if options.run or options.toy:
        n, steps = (60, 2) if options.toy else (options.run, options.steps)
        begin, values = time.perf_counter(), whole_run(n, steps, options.toy)
        if options.record and not options.toy:
            path = results.record(
                "clock_benchmark",
                f"{jax.default_backend()}_run_{n}",
                values=values,
                config={"n": n, "best": BEST, "validation": VALIDATION, "kernel": "FC-3, ntk"},
                dataset="cifar10",
                seeds=[0],
                seconds=time.perf_counter() - begin,
            )
            print(f"recorded {path}")
        if options.run:
            return
    begin, sizes = time.perf_counter(), (16, 32) if options.toy else (250, 500, 1000)
    values = {str(n): measured(n, 1 if options.toy else 3) for n in sizes}
    if options.record and not options.toy:
        path = results.record(
            "clock_benchmark",
            jax.default_backend(),
            values=values,
            config={"outputs": OUTPUTS, "length": LENGTH},
            dataset="random matrices",
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
