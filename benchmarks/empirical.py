"""Which implementation of the empirical kernel is fast where: `python benchmarks/empirical.py`.

The measurement behind the rule of "auto" in `companion.empirical`. For each network and number of images: a
run after compilation, and intermediates as XLA plans them. "structured" in one block is
neural-tangents' best call. Only ratios within a line are meant.
"""

import argparse
import time

import flax.linen as nn
import jax
import numpy as np

from companion import empirical
from companion.architectures import conv, fc
from companion.empirical import _ntk
from companion.empirical._blocks import make_plan

IMPLEMENTATIONS = ("auto", "jacobian", "structured", "vector_products")


class PaperCNN(nn.Module):
    """32-32-maxpool-64-64-128-128-avgpool-dense, 3×3 convolutions."""

    n_outputs: int

    @nn.compact
    def __call__(self, x):
        """Logits (n, k) of images (n, 32, 32, 3)."""
        for channels in (32, 32):
            x = nn.relu(nn.Conv(channels, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        for channels in (64, 64, 128, 128):
            x = nn.relu(nn.Conv(channels, (3, 3))(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(self.n_outputs)(x.reshape(len(x), -1))


def toys():
    """One small case of `cases` for each network."""
    key = jax.random.key(0)
    for net, shape in ((fc(1, width=4, n_outputs=2), (3, 8)), (PaperCNN(2), (2, 4, 4, 3))):
        x = np.ones(shape, np.float32)
        yield f"toy of shape {shape}", net.apply, net.init(key, x[:1]), x, "trace", IMPLEMENTATIONS


def cases():
    """Name, network, parameters, images, reduce, implementations that end in reasonable time."""
    rng = np.random.default_rng(0)
    key = jax.random.key(0)
    for n, k, reduce in ((20, 1, "trace"), (20, 10, "full"), (250, 1, "trace"), (250, 10, "full")):
        net, x = fc(2, width=512, n_outputs=k), rng.uniform(size=(n, 784)).astype(np.float32)
        # The Jacobian of 250 images x 10 outputs would take 7 GB.
        names = IMPLEMENTATIONS if n == 20 else ("auto", "structured")
        yield f"fc, {n} x {k}, {reduce}", net.apply, net.init(key, x), x, reduce, names
    for n, k, reduce in ((20, 1, "trace"), (20, 10, "full"), (100, 10, "trace")):
        net, x = conv(2, width=32, n_outputs=k), rng.uniform(size=(n, 16, 16, 3)).astype(np.float32)
        names = IMPLEMENTATIONS if k == 1 else IMPLEMENTATIONS[:3]
        yield f"small conv, {n} x {k}, {reduce}", net.apply, net.init(key, x), x, reduce, names
    for n, k, reduce in ((20, 1, "trace"), (20, 10, "full"), (60, 10, "trace"), (60, 10, "full")):
        net, x = PaperCNN(k), rng.uniform(size=(n, 32, 32, 3)).astype(np.float32)
        names = IMPLEMENTATIONS if k == 1 else IMPLEMENTATIONS[:3]
        yield f"paper's CNN, {n} x {k}, {reduce}", net.apply, net.init(key, x[:1]), x, reduce, names


def measure(apply_fn, params, x, reduce, implementation):
    """Seconds after compilation, and planned bytes."""
    plans = []

    def recorded(*args, **options):
        plans.append(make_plan(*args, **options))
        return plans[-1]

    _ntk.make_plan = recorded
    kernel_fn = empirical.empirical_ntk_fn(apply_fn, reduce=reduce, implementation=implementation)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        kernel_fn(params, x)
        seconds.append(time.perf_counter() - start)
    return seconds[-1], max(plan.bytes for plan in plans)


def main():
    """Print a line for each case whose name contains the given text: seconds and intermediates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="", help="run only cases whose name contains this")
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    options = parser.parse_args()
    print(f"{'images x outputs':32}" + "".join(f"{name:>22}" for name in IMPLEMENTATIONS))
    for title, apply_fn, params, x, reduce, names in toys() if options.toy else cases():
        if options.only in title:
            measured = {name: measure(apply_fn, params, x, reduce, name) for name in names}
            cells = (
                f"{measured[name][0]:9.3f} s {measured[name][1] / 2**20:6.0f} MiB" if name in measured else ""
                for name in IMPLEMENTATIONS
            )
            print(f"{title:32}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
