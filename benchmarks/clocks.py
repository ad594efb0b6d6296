"""What a gradient in the clocks costs: `python benchmarks/clocks.py`.

One predictor and the gradient of ⟨G, α⟩ in n clocks, ten outputs, random positive definite matrices with a
falling spectrum: in closed form, by Runge-Kutta steps, and by JAX through its matrix exponential as the
authors' code has it. Times are multiples of one eigendecomposition of n; errors are against the closed form.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

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


def seconds_of(work, repeats):
    """The least time of some calls after a first one, and what it gives."""
    found, least = work(), np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        found = work()
        least = min(least, time.perf_counter() - start)
    return least, np.asarray(found)


def measured(n, repeats):
    """A row for each method: name, seconds, error."""
    theta, y, clocks, weights = problem(n)
    least, _ = seconds_of(lambda: scipy.linalg.eigh(theta, driver="evd")[0], repeats)
    rows = [("eigendecomposition", least, 0.0)]
    least, exact = seconds_of(lambda: flow(theta, y, clocks, "eigh")[1](weights), repeats)
    rows.append(("closed form", least, 0.0))
    with double(theta):
        works = {
            "through expm": lambda: through_expm(theta, np.linalg.inv(theta), y, clocks, weights),
            "by steps": lambda: flow(theta, y, clocks, "steps")[1](weights),
        }
        for name, work in works.items():
            least, found = seconds_of(lambda work=work: jax.block_until_ready(work()), repeats)
            rows.append((name, least, float(np.abs(found - exact).max() / np.abs(exact).max())))
    for name, least, error in rows:
        print(
            f"  n = {n:5,} {name:20} {least:8.3f} s {least / rows[0][1]:6.2f} ×  error {error:.0e}",
            flush=True,
        )
    return [[n, *row] for row in rows]


def main():
    """Measure all sizes, and record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--record", action="store_true", help="write book/results/clock_benchmark/<device>.json"
    )
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    begin, rows = time.perf_counter(), []
    for n in (16, 32) if options.toy else (250, 500, 1000):
        rows += measured(n, 1 if options.toy else 3)
    if options.record and not options.toy:
        path = results.record(
            "clock_benchmark",
            jax.default_backend(),
            values={"rows": rows},
            config={"outputs": OUTPUTS, "length": LENGTH},
            dataset="random matrices",
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
