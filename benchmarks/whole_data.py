"""Kernel regression on whole data sets, precision against time: `python benchmarks/whole_data.py`.

One Gram matrix (FC-1, 10,000 images of CIFAR-10 or as many digits as there are, ten classes), solved by a
Cholesky factor in float64 and by one in float32 with conjugate gradients to several residuals, at several
ridges: seconds, the rate of the factorization beside that of a matrix product, the residual in float64, and
the distance to the float64 solution. Then the leading eigenpairs: seconds and their residuals.

Seconds of the processor stand beside those of the clock: where other work goes on, only they can be compared.
The whole set, from images to attacks, is `python -m companion.experiments scale --profile paper`; from images
to coefficients in a folder, where a run that was killed goes on to the same bytes,
`python benchmarks/whole_data.py --n 50000 --out FOLDER`.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from companion import data, regression, results
from companion.architectures import fc
from companion.kernels import gram

RIDGES = (1e-3, 1e-5, 0.0)  # in units of the mean diagonal
TOLERANCES = (1e-6, 1e-10)
PAIRS = (100, 1000)


def images_of(n):
    """Images of CIFAR-10, or digits where it is not on this machine."""
    try:
        return data.load("cifar10", n_train=n, n_test=100, download=False)
    except FileNotFoundError:
        return data.load("mnist5k", n_train=min(n, 4000), n_test=100)


def timed(work):
    """What the work gives, and its seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    value = work()
    return value, (time.perf_counter() - clock, time.process_time() - processor)


def product_rate(side, dtype):
    """Operations a processor second of a product of two matrices, the best of three."""
    square = np.full((side, side), 0.5, dtype)
    return 2 * side**3 / min(timed(lambda: square @ square)[1][1] for _ in range(3))


def solved(kernel, targets):
    """A row for each ridge and solver."""
    n, rows = len(kernel), {}
    rates = {name: product_rate(min(n, 4096), name) for name in ("float32", "float64")}
    ways = {"float64": regression.Cholesky("float64")}
    ways |= {f"float32 to {each:g}": regression.Cholesky("float32", tolerance=each) for each in TOLERANCES}
    for ridge in RIDGES:
        shift, wanted = ridge * float(np.diag(kernel).mean()), None
        for name, how in ways.items():
            try:
                f, seconds = timed(
                    lambda how=how, shift=shift: regression.fit(
                        kernel, targets=targets, ridge=shift, solver=how, resolution=0.0
                    )
                )
            except ValueError as error:
                print(f"  ridge {ridge:<7g} {name:16} {error}", flush=True)
                continue
            alpha = f.coefficients
            wanted = alpha if wanted is None else wanted
            left = residual(kernel, alpha, shift, targets)
            apart = float(np.linalg.norm(alpha - wanted) / np.linalg.norm(wanted))
            share = n**3 / 3 / seconds[1] / rates[name[:7]]
            rows[f"{name}, ridge {ridge:g}"] = [*seconds, share, left, apart]
            print(
                f"  ridge {ridge:<7g} {name:16} {seconds[0]:8.1f} s {seconds[1]:8.1f} s of the processor "
                f"{share:5.2f} of the product's rate, residual {left:.1e}, apart {apart:.1e}",
                flush=True,
            )
    return rows


def residual(kernel, alpha, shift, targets):
    """‖(Θ + ρI) α − Y‖ / ‖Y‖ in float64, some rows at a time."""
    left = np.empty_like(targets)
    for first in range(0, len(kernel), 500):
        rows = slice(first, first + 500)
        left[rows] = kernel[rows].astype(np.float64) @ alpha + shift * alpha[rows] - targets[rows]
    return float(np.linalg.norm(left) / np.linalg.norm(targets))


def leading(kernel, targets, pairs):
    """A row for each number of eigenpairs."""
    rows = {}
    for k in pairs:
        how = regression.Top(k, key=jax.random.key(0))
        f, seconds = timed(lambda how=how: regression.fit(kernel, targets=targets, solver=how))
        values, vectors = f.eigenvalues, f.eigenvectors
        left = np.concatenate(
            [
                kernel[i : i + 500].astype(np.float64) @ vectors - vectors[i : i + 500] * values
                for i in range(0, len(kernel), 500)
            ]
        )
        worst = float((np.linalg.norm(left, axis=0) / values).max())
        rows[str(k)] = [*seconds, worst, float(values[0]), float(values[-1])]
        print(
            f"  {k:5} eigenpairs {seconds[0]:8.1f} s {seconds[1]:8.1f} s of the processor, "
            f"λ {values[0]:.4g} to {values[-1]:.4g}, residuals {worst:.1e} at most",
            flush=True,
        )
    return rows


def kept(images, folder):
    """Kernel and factor in a folder: seconds of this process alone, and the residual."""
    targets = data.targets(images.y_train, 10)
    kernel, seconds = timed(lambda: gram(fc(1), images.x_train, out=folder / "gram", progress=True))
    print(f"  kernel {seconds[0]:.1f} s, {seconds[1]:.1f} s of the processor", flush=True)
    shift, how = RIDGES[0] * float(np.diag(kernel).mean()), regression.Cholesky(out=folder / "factor")
    options = {"targets": targets, "ridge": shift, "solver": how, "progress": True}
    f, seconds = timed(lambda: regression.fit(kernel, **options))
    print(f"  solution {seconds[0]:.1f} s, {seconds[1]:.1f} s of the processor", flush=True)
    np.save(folder / "coefficients.npy", f.coefficients)
    print(f"  residual {residual(kernel, f.coefficients, shift, targets):.1e}")


def main():
    """Measure, and record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000, help="images (10000)")
    parser.add_argument(
        "--record", action="store_true", help="write book/results/whole_data_benchmark/<device>.json"
    )
    parser.add_argument("--out", type=Path, help="folder for kernel, factor and coefficients; no table")
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    begin = time.perf_counter()
    images = images_of(60 if options.toy else options.n)
    print(regression.plan(fc(1), images.x_train, solver="cholesky", outputs=10))
    if options.out:
        kept(images, options.out)
        return
    kernel, seconds = timed(lambda: gram(fc(1), images.x_train))
    targets = data.targets(images.y_train, 10)
    print(f"  {len(kernel)} images of {images.source}: kernel {seconds[0]:.1f} s", flush=True)
    rows = solved(kernel, targets)
    pairs = leading(kernel, targets, (5,) if options.toy else [k for k in PAIRS if k < len(kernel)])
    if options.record and not options.toy:
        path = results.record(
            "whole_data_benchmark",
            jax.default_backend(),
            values={"gram": list(seconds), "solved": rows, "leading": pairs},
            config={"n": len(kernel), "kernel": "FC-1", "ridges": list(RIDGES), "pairs": list(PAIRS)},
            dataset=images.source,
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
