"""All eigenfeatures attacked at once, beside one after the other: `python benchmarks/features.py`.

One FGSM step at ε = 8/255 on every one of the 2,000 features of FC-1 kernel regression, and its check, in
seconds per test image. All at once: `features.correct_under_attack`. One after the other: our `fgsm` and
`robust_accuracy` on each feature's predictor, and the same with neural-tangents' `kernel_fn` differentiated
by JAX; both timed on some features and on a batch of images, and multiplied. The floor is two products of
2,000 × 2,000 by 2,000 × 3,072 numbers. The share of equal verdicts says whether all ways find the same.

CIFAR-10 airplanes and automobiles where they are on this machine, else the embedded digits (all ten classes
against each other in two groups, ε = 0.1).
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from companion import data, features, regression, results
from companion.architectures import fc
from companion.attacks import Threat, fgsm
from companion.neural_tangents import stax

SCALES = {"W_std": 2**0.5, "b_std": 0.1}
N, IMAGES, BATCH, SAMPLE = 2000, 16, 256, 16


def load(toy):
    """Images, labels 0 or 1, and the size of the perturbation."""
    try:
        if toy:
            raise FileNotFoundError
        pair = ("airplane", "automobile")
        images = data.load("cifar10", classes=pair, n_train=N, n_test=BATCH, download=False)
        return images, images.y_train, images.y_test, 8 / 255
    except FileNotFoundError:
        images = data.load("mnist5k", n_train=30 if toy else N, n_test=8 if toy else BATCH)
        return images, images.y_train // 5, images.y_test // 5, 0.1


def straightforward(x_train, alphas, eps):
    """FGSM and its check with neural-tangents' kernel: verdicts of one feature on a batch."""
    kernel_fn = stax.serial(stax.Dense(1, **SCALES), stax.Relu(), stax.Dense(1, **SCALES))[2]
    x_train = jnp.asarray(x_train.reshape(len(x_train), -1))

    @jax.jit
    def verdicts(x_train, alpha, x, sign):
        def signed(x):
            return sign * (kernel_fn(x, x_train, "ntk") @ alpha)[:, 0]

        attacked = jnp.clip(x - eps * jnp.sign(jax.grad(lambda x: signed(x).sum())(x)), 0, 1)
        return (signed(x) > 0) & (signed(attacked) > 0)

    return lambda i, x, sign: verdicts(x_train, alphas[i], x.reshape(len(x), -1), sign)


def least(work, repeats):
    """The least time of some runs after one that compiles, and the last value."""
    value, seconds = jax.block_until_ready(work()), []
    for _ in range(repeats):
        start = time.perf_counter()
        value = jax.block_until_ready(work())
        seconds.append(time.perf_counter() - start)
    return min(seconds), np.asarray(value)


def main():
    """Time all ways, print ratios, and record them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--record", action="store_true", help="write book/results/feature_benchmark/<device>.json"
    )
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    begin = time.perf_counter()
    images, y_train, y, eps = load(options.toy)
    n, images_at_once, batch, repeats = (30, 2, 8, 1) if options.toy else (N, IMAGES, BATCH, 2)
    print(images)
    x, threat, sign = images.x_test, Threat("linf", eps), jnp.asarray(2.0 * y - 1, jnp.float32)
    found = regression.fit(fc(1), images.x_train, data.targets(y_train))
    modes = np.unique(np.geomspace(1, n, 2 if options.toy else SAMPLE).astype(int)) - 1
    each = {i: features.classifier(found, [i]) for i in modes}
    alphas = {
        i: jnp.asarray(
            np.outer(found.eigenvectors[:, i] / found.eigenvalues[i], found.projections[i]).astype(np.float32)
        )
        for i in modes
    }
    theirs = straightforward(images.x_train, alphas, eps)

    def one_by_one():
        parts = []
        for f in each.values():
            attacked = fgsm(f, x, y, threat)
            clean, after = (np.asarray(f(points))[:, 0] * np.asarray(sign) > 0 for points in (x, attacked))
            parts.append(clean & after)
        return np.stack(parts, axis=1)

    a, b = jnp.ones((n, n)), jnp.asarray(images.x_train.reshape(n, -1))
    product = jax.jit(lambda a, b: a @ b)
    floor, _ = least(lambda: product(a, b), repeats + 1)
    seconds, verdicts = {"floor, two matrix products": 2 * floor}, {}
    taken, verdicts["all"] = least(
        lambda: features.correct_under_attack(found, x[:images_at_once], y[:images_at_once], threat), repeats
    )
    seconds["companion, all features at once"] = taken / images_at_once
    taken, verdicts["each"] = least(one_by_one, repeats)
    seconds["companion, one after the other"] = taken / batch * n / len(modes)
    taken, verdicts["theirs"] = least(lambda: np.stack([theirs(i, x, sign) for i in modes], axis=1), repeats)
    seconds["neural-tangents, one after the other"] = taken / batch * n / len(modes)
    ours = seconds["companion, all features at once"]
    for name, value in seconds.items():
        print(f"  {name:40} {1e3 * value:9.1f} ms an image {value / ours:6.2f} ×", flush=True)
    same = {
        name: float((verdicts[name][:images_at_once] == verdicts["all"][:, modes]).mean())
        for name in ("each", "theirs")
    }
    print(f"  equal verdicts: {same}")
    if options.record and not options.toy:
        path = results.record(
            "feature_benchmark",
            jax.default_backend(),
            values={"seconds": seconds, "same": same},
            config={
                "n_train": n,
                "images": images_at_once,
                "batch": batch,
                "features": len(modes),
                "eps": eps,
            },
            dataset=images.source,
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
