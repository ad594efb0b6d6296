"""PGD on a kernel predictor, side by side with the straightforward way: `python benchmarks/attacks.py`.

Ten steps of L∞ PGD at ε = 8/255 on 1,000 test images against FC-1 kernel regression on 5,000 training
images. Straightforward: JAX differentiates a predictor written with neural-tangents' own `kernel_fn`, (a)
with the linear system solved inside it at every step, as in the notebook of Tsilivis & Kempe (2022), timed on
one step and multiplied; (b) with the coefficients solved once. Ours: the same ten steps for every image; with
`early_stop`, which leaves images alone once they are fooled; and with ten steps that fall from ε to ε/10,
which fool most images at the first. The accuracies say whether all fool the same share.

Real images, because early stopping depends on them: CIFAR-10 airplanes and automobiles where they are on this
machine, else the embedded digits (ten classes, 4,000 of them, ε = 0.1).
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from companion import data, regression, results
from companion.architectures import fc
from companion.attacks import Threat, pgd, robust_accuracy
from companion.neural_tangents import stax

SCALES = {"W_std": 2**0.5, "b_std": 0.1}
STEPS, BATCHES = 10, (250, 1000)


def load(toy):
    """Images, targets and the size of the perturbation."""
    if toy:
        images = data.load("mnist5k", n_train=60, n_test=20)
        return images, data.targets(images.y_train), 0.1
    try:
        pair = ("airplane", "automobile")
        images = data.load("cifar10", classes=pair, n_train=5000, n_test=1000, download=False)
    except FileNotFoundError:
        images = data.load("mnist5k")
        return images, data.targets(images.y_train), 0.1
    return images, data.targets(images.y_train), 8 / 255


def straightforward(images, targets, eps, *, fixed):
    """PGD by differentiating neural-tangents' predictor: a function of a batch and its number of steps."""
    kernel_fn = stax.serial(stax.Dense(1, **SCALES), stax.Relu(), stax.Dense(1, **SCALES))[2]
    x_train = jnp.asarray(images.x_train.reshape(len(images.x_train), -1))
    k_train = jax.jit(lambda x: kernel_fn(x, None, "ntk"))(x_train)
    targets = jnp.asarray(targets)
    alpha = jnp.linalg.solve(k_train, targets)

    def loss(x, y, x_train, k_train, alpha):
        if not fixed:
            alpha = jnp.linalg.solve(k_train, targets)
        outputs = kernel_fn(x, x_train, "ntk") @ alpha
        if outputs.shape[1] == 1:
            return jnp.sum(-(2 * y - 1) * outputs[:, 0])
        own = jnp.arange(outputs.shape[1]) == y[:, None]
        return jnp.sum(jnp.where(own, -jnp.inf, outputs).max(1) - jnp.where(own, outputs, 0).sum(1))

    @jax.jit
    def attack(x, y, x_train, k_train, alpha, steps):
        low, high = jnp.maximum(x - eps, 0), jnp.minimum(x + eps, 1)

        def step(_, now):
            gradient = jax.grad(loss)(now, y, x_train, k_train, alpha)
            return jnp.clip(now + 2.5 * eps / STEPS * jnp.sign(gradient), low, high)

        return jax.lax.fori_loop(0, steps, step, x)

    x, y = images.x_test.reshape(len(images.x_test), -1), images.y_test

    def run(batch, steps=STEPS):
        parts = [
            np.asarray(attack(x[i : i + batch], y[i : i + batch], x_train, k_train, alpha, steps))
            for i in range(0, len(x), batch)
        ]
        return np.concatenate(parts).reshape(images.x_test.shape)

    return run


def least(work, repeats):
    """The least time of some runs after one that compiles, and the last value."""
    value, seconds = work(), []
    for _ in range(repeats):
        start = time.perf_counter()
        value = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), value


def main():
    """Time all ways, print ratios, and record them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--record", action="store_true", help="write book/results/attack_benchmark/<device>.json"
    )
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    begin = time.perf_counter()
    images, targets, eps = load(options.toy)
    repeats = 1 if options.toy else 3
    print(images)
    x, y, threat = images.x_test, images.y_test, Threat("linf", eps)
    f = regression.fit(fc(1), images.x_train, targets, solver="cholesky")
    falling = np.linspace(eps, eps / STEPS, STEPS)
    fixed, solving = (straightforward(images, targets, eps, fixed=fixed) for fixed in (True, False))
    ways = {
        "companion, early stop, falling steps": lambda: pgd(
            f, x, y, threat, steps=STEPS, step_size=falling, early_stop=True
        ),
        "companion, early stop": lambda: pgd(f, x, y, threat, steps=STEPS, early_stop=True),
        "companion": lambda: pgd(f, x, y, threat, steps=STEPS, batch_size=max(BATCHES)),
        **{
            f"neural-tangents, coefficients fixed, batches of {batch}": lambda batch=batch: fixed(batch)
            for batch in BATCHES
        },
    }
    found = {name: least(work, repeats) for name, work in ways.items()}
    seconds, _ = least(lambda: solving(max(BATCHES), 1), repeats=1)
    table = {}
    for name, (time_taken, attacked) in found.items():
        robust = robust_accuracy(f, attacked, y)
        table[name] = {"seconds": time_taken, "accuracy": [robust.value, robust.low, robust.high]}
    table["neural-tangents, solved at every step"] = {"seconds": STEPS * seconds, "accuracy": None}
    ours = min(row["seconds"] for row in table.values())
    for name, row in table.items():
        accuracy = "" if row["accuracy"] is None else f"accuracy {row['accuracy'][0]:.3f}"
        print(f"  {name:58} {row['seconds']:8.3f} s {row['seconds'] / ours:7.2f} ×   {accuracy}", flush=True)
    if options.record and not options.toy:
        path = results.record(
            "attack_benchmark",
            jax.default_backend(),
            values=table,
            config={"steps": STEPS, "eps": eps, "n_train": len(images.x_train), "n_test": len(x)},
            dataset=images.source,
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
