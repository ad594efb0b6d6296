"""Certificates under fire, and what they cost: `python benchmarks/guarantees.py`.

Attacks: digits, Fashion-MNIST and CIFAR-10 where they are on this machine, pairs of classes and all ten,
kernels, ridges and times; every test image is certified, then attacked from its own class at each of several
ε by L2 PGD with restarts, and AutoAttack (without Square's queries) has what is certified. Counted: pairs of
an image and an ε, those certified, and those of these whose class an attack changed, which must be none.

Cost: certificates of 10,000 images against n = 10,000 (random pixels, 784 each; coefficients that are given,
so that the norm is a pass of its own), as multiples of the product x x_trainᵀ alone, in processor time.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from _ratios import show, times_the_first  # beside this file

from companion import data, guarantees, regression, results
from companion.architectures import conv, fc
from companion.attacks import Threat, autoattack, outputs_of, pgd

N, IMAGES, FEW, STEPS, RESTARTS = 400, 200, 30, 20, 2
EPS = (0.1, 0.25, 0.5, 1.0, 2.0)
SETS = (
    ("mnist5k", (0, 1)),
    ("mnist5k", (4, 9)),
    ("mnist5k", None),
    ("fashion_mnist", (0, 6)),
    ("cifar10", (0, 1)),
)
KERNELS = (
    (fc(1), "nngp"),
    (fc(3), "nngp"),
    (fc(1, activation="erf"), "ntk"),
    (fc(1), "ntk"),
    (conv(1), "nngp"),
)
# Ridge as a multiple of the mean eigenvalue, and time as one of its inverse.
FITS = ((1.0, np.inf), (0.0, 3.0))


def images_of(name, classes, toy):
    """The set's images, or None where it is not on this machine."""
    try:
        sizes = {"n_train": 40, "n_test": 20} if toy else {"n_train": N, "n_test": IMAGES}
        options = {} if classes is None else {"classes": classes}
        extra = {} if name == "mnist5k" else {"download": False}
        return data.load(name, **options, **sizes, **extra)
    except FileNotFoundError:
        return None


def predicted(f, x):
    """Classes by the sign of one output, or the largest."""
    outputs = outputs_of(f, x, 256)
    return (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def under_fire(f, x, key, *, toy):
    """Pairs, certified pairs and broken ones of a predictor, for PGD and for AutoAttack."""
    radii, before = guarantees.radius(f, x), predicted(f, x)
    found = np.zeros(4, int)
    for eps in EPS[:2] if toy else EPS:
        inside, threat = radii > eps, Threat("l2", eps)
        attacked = pgd(f, x, before, threat, steps=STEPS, restarts=RESTARTS, key=key)
        moved = predicted(f, attacked) != before
        found += [len(x), inside.sum(), (inside & moved).sum(), 0]
    # The radii nearest to an ε are the ones that an attack would break first.
    eps = float(np.median(radii)) * 0.98
    some = np.flatnonzero(radii > eps)[np.argsort(radii[radii > eps])][: 8 if toy else 20]
    if eps > 0 and len(some):
        names = ("apgd-ce", "fab-t") if toy else ("apgd-ce", "apgd-t", "fab-t")
        attack = autoattack(f, x[some], before[some], Threat("l2", eps), key=key, version=names)
        found += [len(some), len(some), (attack.fooled_by > 0).sum(), len(some)]
    return found


def fire(toy):
    """All cases; a line for each."""
    cases = []
    for name, classes in SETS[:1] if toy else SETS:
        images = images_of(name, classes, toy)
        if images is None:
            print(f"{name} is not on this machine")
            continue
        for kernel, kind in KERNELS[:1] if toy else KERNELS:
            if kernel.pixel_power and classes != (4, 9):
                continue
            x = images.x_test[: FEW if kernel.pixel_power else None]  # convolutions take their time
            targets = data.targets(images.y_train)
            whole = regression.fit(kernel, images.x_train, targets, kind=kind)
            mean = whole.eigenvalues.mean()
            for number, (ridge, t) in enumerate(FITS[:1] if toy else FITS):
                f = whole.with_ridge(ridge * mean).at(t / mean)
                found = under_fire(f, x, jax.random.key(number), toy=toy)
                case = f"{name} {classes or 'all'} {kernel.name} {kind} ridge {ridge:g} t {t:g}"
                cases.append([case, *map(int, found)])
                print(f"  {case:60} pairs {found[0]:5} certified {found[1]:5} broken {found[2]}", flush=True)
    return cases


def cost(toy):
    """Multiples of the matrix product: one evaluation of f, and the whole certificate with its norm."""
    m = n = 64 if toy else 10_000
    rng = np.random.default_rng(0)
    x, x_train = (rng.uniform(size=(size, 784)).astype(np.float32) for size in (m, n))
    alpha = (rng.normal(size=(n, 1)) / n).astype(np.float32)
    f = regression.from_coefficients(fc(1), x_train, alpha, kind="nngp")
    product = jax.jit(lambda a, b: jnp.matmul(a, b.T, precision="highest"))
    columns = jnp.asarray(x_train)

    def products():
        for first in range(0, m, 256):
            jax.block_until_ready(product(x[first : first + 256], columns))

    works = {
        "product x x_trainᵀ, 256 rows at once": products,
        "f at all inputs": lambda: outputs_of(f, x, 256),
        "certificates, norm included": lambda: guarantees.radius(f, x),
    }
    ratios = times_the_first(works, 1 if toy else 3)
    show(ratios)
    return ratios


def main():
    """Attack, count, time, and record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--record", action="store_true", help="write book/results/guarantee_benchmark/<device>.json"
    )
    parser.add_argument("--cost", action="store_true", help="the costs alone; recorded beside the attacks")
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    begin = time.perf_counter()
    ratios = cost(options.toy)
    if options.record and not options.toy:
        path = results.record(
            "guarantee_benchmark",
            f"{jax.default_backend()}_cost",
            values=ratios,
            config={"images": 10_000, "n_train": 10_000, "pixels": 784, "kernel": "FC-1, nngp", "turns": 3},
            dataset="uniform random pixels",
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")
    if options.cost:
        return
    cases = fire(options.toy)
    pairs, certified, broken, auto = np.sum([case[1:] for case in cases], axis=0).tolist()
    print(f"{pairs} pairs, {certified} certified, {auto} of them under AutoAttack; {broken} broken")
    if options.record and not options.toy:
        path = results.record(
            "guarantee_benchmark",
            jax.default_backend(),
            values={
                "cases": {case: found for case, *found in cases},
                "pairs": pairs,
                "certified": certified,
                "under_autoattack": auto,
                "broken": broken,
            },
            config={
                "n_train": N,
                "images": IMAGES,
                "few": FEW,
                "eps": list(EPS),
                "steps": STEPS,
                "restarts": RESTARTS,
            },
            dataset="mnist5k, fashion_mnist, cifar10 where they are",
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")
    if broken:
        raise SystemExit(f"{broken} certificates were broken")


if __name__ == "__main__":
    main()
