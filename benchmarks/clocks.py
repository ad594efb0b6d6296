"""What a gradient in the clocks costs: `python benchmarks/clocks.py`.

One predictor and the gradient of ⟨G, α⟩ in n clocks, ten outputs, random positive definite matrices with a
falling spectrum: in closed form, by Runge-Kutta steps, and by JAX through its matrix exponential as the
authors' code has it. Processor times are multiples of one eigendecomposition of n, taken in the same turn:
median, least and largest. Errors are against the closed form.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from _ratios import show, times_the_first  # beside this file

from companion import results
from companion._core.compile import double
from companion.clocks._flow import flow

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
        "by steps": lambda: flow(theta, y, clocks, "steps")[1](weights),
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


def main():
    """Measure all sizes, and record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--record", action="store_true", help="write book/results/clock_benchmark/<device>.json"
    )
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
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
