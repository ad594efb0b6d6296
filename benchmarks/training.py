"""One epoch of adversarial training, beside loops in Python: `python benchmarks/training.py`.

PGD training (from a random start) of the small CNN on embedded digits, seconds per epoch after compilation,
as chapter 4 does it (width 8, minibatches of 40, four steps) and larger (width 16, minibatches of 100, ten
steps):

- `training.train`: the epoch is one compiled loop, convolutions are products of matrices on a CPU;
- "one call per minibatch": the same network of Flax's own layers; attack and update compiled together, with
  the attack's steps unrolled, called from a Python loop;
- "one call per gradient": as most published code does: gradients and update are compiled, the loops over
  minibatches and attack steps are Python's.

The empirical kernel of the paper's CNN at 250 images × 10 outputs is in benchmarks/kernels.py. All ways start
from the same parameters; their losses differ by the order of the minibatches alone.
"""

import argparse
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from companion import data, networks, results
from companion.attacks import Threat, training_attack
from companion.training import train

EPS, EPOCHS = 0.1, 3
CASES = {
    "chapter 4": {"width": 8, "batch_size": 40, "steps": 4, "n_train": 800},
    "larger": {"width": 16, "batch_size": 100, "steps": 10, "n_train": 2000},
}


TOY = {"toy": {"width": 1, "batch_size": 10, "steps": 1, "n_train": 20}}


class Plain(nn.Module):
    """The small CNN of Flax's own layers."""

    width: int

    @nn.compact
    def __call__(self, x):
        """Logits (n, 10)."""
        for channels in (self.width, 2 * self.width):
            x = nn.avg_pool(nn.relu(nn.Conv(channels, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


def loops(x, labels, optimizer, *, width, batch_size, steps):
    """Epochs in two ways: `one(params, state, key)` for each."""
    net, size = Plain(width), 2.5 * EPS / steps

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(net.apply({"params": params}, x), y).mean()

    def start(x, key):
        return jnp.clip(x + EPS * jax.random.uniform(key, x.shape, minval=-1.0, maxval=1.0), 0, 1)

    def climb(now, x, gradient):
        return jnp.clip(now + size * jnp.sign(gradient), jnp.maximum(x - EPS, 0), jnp.minimum(x + EPS, 1))

    def update(params, state, gradient):
        changes, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, changes), state

    @jax.jit
    def minibatch(params, state, x, y, key):
        now = start(x, key)
        for _ in range(steps):
            now = climb(now, x, jax.grad(loss, 1)(params, now, y))
        value, gradient = jax.value_and_grad(loss)(params, now, y)
        return *update(params, state, gradient), value

    by_x, by_params = jax.jit(jax.grad(loss, 1)), jax.jit(jax.value_and_grad(loss))
    start, climb, update = jax.jit(start), jax.jit(climb), jax.jit(update)

    def epoch(kind):
        def one(params, state, key):
            order, total = np.asarray(jax.random.permutation(key, len(x))).reshape(-1, batch_size), 0.0
            for i, rows in enumerate(order):
                here, y, step_key = x[rows], labels[rows], jax.random.fold_in(key, i)
                if kind == "minibatch":
                    params, state, value = minibatch(params, state, here, y, step_key)
                else:
                    now = start(here, step_key)
                    for _ in range(steps):
                        now = climb(now, here, by_x(params, now, y))
                    value, gradient = by_params(params, now, y)
                    params, state = update(params, state, gradient)
                total += float(value)
            return params, state, total / len(order)

        return one

    return epoch("minibatch"), epoch("gradient")


def measured(width, batch_size, steps, n_train):
    """Seconds of an epoch and the losses of some, of every way."""
    images = data.load("mnist5k", n_train=n_train)
    x, labels = images.x_train, images.y_train
    model, optimizer = networks.small_cnn(10, width=width), optax.sgd(0.05, momentum=0.9)
    variables = model.init(jax.random.key(0), x)
    run = train(
        model, x, labels, epochs=EPOCHS, optimizer=optimizer, key=jax.random.key(1), batch_size=batch_size,
        attack=training_attack(Threat("linf", EPS), steps=steps, step_size=2.5 * EPS / steps),
        start=variables,
    )  # fmt: skip
    seconds = {"companion": float(np.diff(run.seconds).min())}
    losses = {"companion": run.loss[1:].tolist()}
    both = loops(x, labels, optimizer, width=width, batch_size=batch_size, steps=steps)
    for name, one in zip(("one call per minibatch", "one call per gradient"), both, strict=True):
        params, state, taken, losses[name] = variables[0], optimizer.init(variables[0]), [], []
        one(params, state, jax.random.key(9))  # compiles
        for epoch in range(EPOCHS):
            start = time.perf_counter()
            params, state, value = one(params, state, jax.random.key(epoch))
            taken.append(time.perf_counter() - start)
            losses[name].append(value)
        seconds[name] = min(taken)
    return seconds, losses


def main():
    """Time all ways, print ratios, and record them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--record", action="store_true", help="write book/results/training_benchmark/<device>.json"
    )
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    begin, values = time.perf_counter(), {}
    for case, sizes in (TOY if options.toy else CASES).items():
        seconds, losses = measured(**sizes)
        values[case] = {"seconds": seconds, "losses": losses}
        print(f"{case}: {sizes}")
        for name, value in seconds.items():
            ratio = value / seconds["companion"]
            print(f"  {name:24} {value:7.2f} s an epoch {ratio:6.2f} ×   losses {np.round(losses[name], 3)}")
    if options.record and not options.toy:
        path = results.record(
            "training_benchmark",
            jax.default_backend(),
            values=values,
            config={"cases": CASES, "epochs": EPOCHS, "eps": EPS},
            dataset=data.load("mnist5k", n_train=10).source,
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
