"""Certificates under fire, and what they cost: `python benchmarks/guarantees.py`.

Attacks: digits, Fashion-MNIST and CIFAR-10 where they are on this machine, pairs of classes and all ten,
kernels, ridges and times. Every image that has a certified radius is attacked from the class that it has, by
L2 AutoAttack: Auto-PGD with ten restarts, targeted Auto-PGD and targeted FAB, and Square's 5,000 queries for
some. Images of about the same radius are attacked together, within the smallest of their radii less a
millionth: every pair of an image and an ε lies inside its certificate. Counted: pairs, and those whose class
an attack changed, which must be none. As a control, beside it, how many change at four times that ε.

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
from companion.architectures import fc
from companion.attacks import Threat, apgd, autoattack, outputs_of

N, GROUP, RESTARTS, QUERIES = 160, 64, 10, 5000
# With test images, kernels, and how many pixels along a side become one: fewer and smaller images, less time.
SETS = (
    ("digits", (4, 9), 64, 4, 1),
    ("fashion_mnist", ("pullover", "coat"), 640, 4, 2),
    ("digits", None, 320, 4, 1),
    ("fashion_mnist", ("sneaker", "ankle boot"), 640, 4, 2),
    ("digits", (3, 8), 64, 4, 1),
    ("mnist5k", (4, 9), 128, 1, 1),
    ("cifar10", ("airplane", "automobile"), 64, 1, 1),
)
# The last is chosen to be hard: wide weights and biases, so that constant and norms are large.
KERNELS = (
    (fc(1), "nngp"),
    (fc(1, activation="erf"), "ntk"),
    (fc(1), "ntk"),
    (fc(3, w_std=3.0, b_std=1.0), "nngp"),
)
# Ridge as a multiple of the mean eigenvalue, and time as one of its inverse.
FITS = ((1.0, np.inf), (1e-3, np.inf), (0.0, 3.0))


def images_of(name, classes, n_test, toy):
    """The set's images, or None where it is not on this machine."""
    try:
        sizes = {"n_train": 40, "n_test": 20} if toy else {"n_train": N, "n_test": n_test}
        options = {} if classes is None else {"classes": classes}
        extra = {} if name in ("digits", "mnist5k") else {"download": False}
        return data.load(name, **options, **sizes, **extra)
    except FileNotFoundError:
        return None


def pooled(x, block):
    """Means of blocks of pixels."""
    n, height, width, channels = x.shape
    parts = x.reshape(n, height // block, block, width // block, block, channels)
    return parts.mean(axis=(2, 4), dtype=np.float32)


def predicted(f, x):
    """Classes by the sign of one output, or the largest."""
    outputs = outputs_of(f, x, 256)
    return (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def under_fire(f, x, key, *, restarts=RESTARTS, group=GROUP, queries=0):
    """Pairs, those that an attack broke, the median of ε over the radius, and how many four times ε fool."""
    radii, before = guarantees.radius(f, x), predicted(f, x)
    order = np.argsort(radii)
    order = order[radii[order] > 0]
    broken, beyond, shares = 0, 0, []
    for number, first in enumerate(range(0, len(order), group)):
        some = order[first : first + group]
        eps = float(radii[some].min()) * (1 - 1e-6)
        shares.append(eps / radii[some])
        some = np.resize(some, group)  # one shape for all; an image that comes twice counts once
        own, options = x[some], {"key": jax.random.fold_in(key, number), "batch_size": group}
        moved = predicted(f, apgd(f, own, before[some], Threat("l2", eps), restarts=restarts, **options))
        names = ("apgd-t", "fab-t", "square") if queries and not number else ("apgd-t", "fab-t")
        rest = autoattack(
            f, own, before[some], Threat("l2", eps), version=names, queries=max(queries, 1), **options
        )
        far = predicted(f, apgd(f, own, before[some], Threat("l2", 4 * eps), **options))
        once = slice(len(shares[-1]))
        broken += int(((moved != before[some]) | (rest.fooled_by > 0))[once].sum())
        beyond += int((far != before[some])[once].sum())
    return len(order), broken, float(np.median(np.concatenate(shares))) if shares else np.nan, beyond


def fire(toy, only=None):
    """Case after case, with a line for each; `only` of one data set."""
    first = set()
    for name, classes, n_test, n_kernels, block in SETS[:1] if toy else SETS:
        if only not in (None, name):
            continue
        images = images_of(name, classes, n_test, toy)
        if images is None:
            print(f"{name} is not on this machine")
            continue
        targets = data.targets(images.y_train, len(images.classes))
        x_train, x = (pooled(part, block) for part in (images.x_train, images.x_test))
        for kernel, kind in KERNELS[: 1 if toy else n_kernels]:
            whole = regression.fit(kernel, x_train, targets, kind=kind)
            mean = whole.eigenvalues.mean()
            for number, (ridge, t) in enumerate(FITS[:1] if toy else FITS):
                f = whole.with_ridge(ridge * mean).at(t / mean)
                # Square asks for outputs alone: once a set, of the first group.
                queries = 0 if (name, classes) in first else 20 if toy else QUERIES
                first.add((name, classes))
                sizes = {"restarts": 1, "group": 10} if toy else {}
                found = under_fire(f, x, jax.random.key(number), queries=queries, **sizes)
                own = "all" if classes is None else "/".join(map(str, classes))
                scales = ", σ 3, 1" if kernel.w_std == 3 else ""
                case = f"{name} {own}, {kernel.name} {kind}{scales}, ridge {ridge:g}, t {t:g}"
                print(
                    f"  {case:66} pairs {found[0]:4} broken {found[1]} ε {found[2]:.2f} beyond {found[3]:4}",
                    flush=True,
                )
                yield case, found


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
    parser.add_argument("--attacks", action="store_true", help="the attacks alone")
    parser.add_argument(
        "--only", metavar="SET", help="attack this data set alone, and add it to what is recorded"
    )
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    if not options.attacks and not options.only:
        record_cost(options)
    if not options.cost:
        record_attacks(options)


def record_cost(options):
    """What certificates cost."""
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


def record_attacks(options):
    """Whether an attack breaks a certificate; an error if one does. Recorded after every case."""
    begin, processor = time.perf_counter(), time.process_time()
    cases, pairs, broken, beyond, used = {}, 0, 0, 0, 0.0
    if options.only:
        before = results.load("guarantee_benchmark", jax.default_backend())
        cases = dict(before.values["cases"])
        begin -= before.provenance["seconds"]
        processor -= before.values["processor"]
    for case, found in fire(options.toy, options.only):
        cases[case] = list(found)
        pairs, broken, beyond = (sum(row[i] for row in cases.values()) for i in (0, 1, 3))
        used = time.process_time() - processor
        if options.record and not options.toy:
            results.record(
                "guarantee_benchmark",
                jax.default_backend(),
                values={
                    "cases": cases,
                    "pairs": pairs,
                    "broken": broken,
                    "beyond": beyond,
                    "processor": used,
                },
                config={
                    "n_train": N,
                    "group": GROUP,
                    "restarts": RESTARTS,
                    "queries": QUERIES,
                    "sets": [[name, classes, n_test, block] for name, classes, n_test, _, block in SETS],
                },
                dataset="digits, fashion_mnist, mnist5k, cifar10 where they are",
                seeds=[0],
                seconds=time.perf_counter() - begin,
            )
    print(f"{pairs} pairs, {broken} broken; {beyond} changed at four times ε; {used:.0f} processor s")
    if broken:
        raise SystemExit(f"{broken} certificates were broken")


if __name__ == "__main__":
    main()
