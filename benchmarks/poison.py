"""What a poison does, against its controls, over draws of the data: `python benchmarks/poison.py`.

Digits 4 and 9, training images moved by at most 0.1 in every pixel so that FC-1 regression fails: by random
signs, by one step of `guarantees.poison` (what the authors' code takes), and by PGD. Accuracy on clean test
images of the kernel that was attacked, of a deeper one, and of a finite network trained on the same images.
Each draw has its own training and validation images, its own random signs and its own initialization, and the
same test images; draws overlap, as the embedded digits are few. Intervals are Student's over draws, and
differences are taken draw by draw.
"""

import argparse
import time

import jax
import numpy as np

from companion import attacks, data, guarantees, regression, results, statistics
from companion.architectures import fc
from companion.training import train_to_residual

EPS, WIDTH = 0.1, 256
CONTRASTS = (("one step", "random signs"), ("PGD", "random signs"), ("PGD", "one step"))


def on_kernel(depth, images, targets, x, y):
    """Accuracy of the regression of a fully connected kernel."""
    f = regression.fit(fc(depth), images, targets, solver="cholesky")
    return statistics.accuracy(f(x), y).value


def on_network(images, targets, x, y, key):
    """Accuracy of a finite network of one hidden layer, trained to a tenth of its residual."""
    net = fc(1, width=WIDTH)
    rate = 0.5 / regression.fit(fc(1), images, targets).eigenvalues[0]
    done = train_to_residual(
        net.apply, net.init(key, images), images, targets, learning_rate=rate, momentum=0.98
    )
    return statistics.accuracy(done[0].predict(x), y).value


def draw(seed, images, sizes, steps):
    """Accuracies (training images, models) of one draw."""
    n, m = sizes
    order = np.random.default_rng(seed).permutation(len(images.x_train))
    train, own = order[:n], order[n : n + m]
    x, targets = images.x_train[train], data.targets(images.y_train)[train]
    threat, key = attacks.Threat("linf", EPS), jax.random.key(seed)
    hers = images.x_train[own], images.y_train[own], threat
    sets = {
        "clean": x,
        "random signs": attacks.random_sign(x, threat, key=key),
        "one step": guarantees.poison(fc(1), x, targets, *hers, steps=1),
        "PGD": guarantees.poison(fc(1), x, targets, *hers, steps=steps),
    }
    test = images.x_test, images.y_test
    return {
        name: {
            "FC-1": on_kernel(1, some, targets, *test),
            "FC-3": on_kernel(3, some, targets, *test),
            "network": on_network(some, targets, *test, key),
        }
        for name, some in sets.items()
    }


def main():
    """All draws, means with intervals, and the record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--record", action="store_true", help="write book/results/poison_benchmark/<device>.json"
    )
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    draws, sizes, steps = (2, (20, 10), 2) if options.toy else (options.draws, (200, 200), 20)
    begin = time.perf_counter()
    images = data.load("mnist5k", classes=(4, 9), n_test=20 if options.toy else 190)
    found = []
    for seed in range(draws):
        found.append(draw(seed, images, sizes, steps))
        print(f"draw {seed}: {time.perf_counter() - begin:.0f} s", flush=True)
    models = list(found[0]["clean"])
    values = {
        name: {model: [float(one[name][model]) for one in found] for model in models} for name in found[0]
    }
    for name, row in values.items():
        print(f"{name:14}", *(f"{model} {statistics.mean(np.array(row[model]))}  " for model in models))
    for first, second in CONTRASTS:
        gaps = [np.subtract(values[first][model], values[second][model]) for model in models]
        print(f"{first} less {second}:", *(f"{statistics.mean(gap)}  " for gap in gaps))
    if options.record and not options.toy:
        path = results.record(
            "poison_benchmark",
            jax.default_backend(),
            values=values,
            config={"n_train": sizes[0], "n_val": sizes[1], "eps": EPS, "steps": steps, "width": WIDTH},
            dataset=images.source,
            seeds=list(range(draws)),
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
