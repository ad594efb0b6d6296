"""What each trick for XLA and processors is worth: `python benchmarks/tricks.py`.

One line for each: our code, and the same work with the straightforward code in the trick's place. Rounds are
interleaved after one that compiles, and a ratio is the median of the rounds' ratios: of time, of processor
time, which other work on the machine does not change, and of the bytes that XLA plans for temporaries. A
trick worth less than 1.2 of time goes, unless it is there for exactness, to bound memory, or because without
it other numbers would come out. `--record` writes the numbers with their environment into book/results.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import numpy as np
from _tricks import (  # beside this file
    ALL_SAVED,
    BY_SUMS,
    CNN,
    LARGE,
    NONE_SAVED,
    all_channels,
    arccosine,
    ball_step,
    by_a_sort,
    by_einsum,
    conv,
    dense,
    image_length,
    images,
    jacobian,
    logits,
    matrix,
    mirrored,
    one_tile,
    outside_loops,
    padded,
    rare_looks,
    shared_root,
    single_step,
    slope,
    tile,
    training,
    unrolled,
    verdicts,
)  # fmt: skip

from companion import results
from companion.networks import _layers

LEAST = 1.2


@dataclass(frozen=True)
class Trick:
    """A trick: where it is, and `build(toy) -> (with it, without)`, two ways of the same work.

    `kept` says what it is there for besides time; nothing where it must be worth its time.
    """

    place: str
    build: Callable
    kept: str = ""


TRICKS = {
    "one layer apart from the rest, Conv-2": Trick(
        "architectures._conv._repeat", tile(conv(2), 32, 32, 32, 3, instead={"conv._repeat": unrolled})
    ),
    "the same, input gradient": Trick(
        "architectures._conv._repeat", slope(conv(2), 32, 64, 28, 28, 1, instead={"conv._repeat": unrolled})
    ),
    "a loop over layers, Conv-4": Trick(
        "architectures._conv._repeat", tile(conv(4), 32, 32, 32, 3, instead={"conv._repeat": unrolled})
    ),
    "windows by slices": Trick(
        "architectures._conv.box", tile(conv(3), 32, 32, 32, 3, instead={"conv.box": padded})
    ),
    "channels one after the other": Trick(
        "architectures._conv._channel_sum",
        tile(conv(3), 32, 32, 32, 3, instead={"conv._channel_sum": all_channels}),
        "memory",
    ),
    "two roots, conv": Trick(
        "architectures._arccosine.angle_and_rest",
        tile(conv(3), 32, 32, 32, 3, instead={"conv.angle_and_rest": shared_root}),
        "memory",
    ),
    "two roots, fc": Trick(
        "architectures._arccosine.angle_and_rest",
        tile(dense, 592, 784, instead={"dense.angle_and_rest": shared_root}),
        "memory",
    ),
    "polynomials, fc": Trick(
        "architectures._arccosine",
        tile(dense, 592, 784, instead={"dense.angle_and_rest": arccosine}),
        "exactness",
    ),
    "polynomials, conv": Trick(
        "architectures._arccosine",
        tile(conv(3), 32, 32, 32, 3, instead={"conv.angle_and_rest": arccosine}),
        "exactness",
    ),
    "forward mode, input gradient": Trick(
        "architectures._dense.entries",
        slope(dense, 500, 2000, 784, instead={"dense.entries": lambda f, *args: f(*args)}),
    ),
    "sums by products, input gradient": Trick(
        "architectures._dense._entries_jvp", slope(dense, 500, 2000, 784, instead={"dense.jnp": BY_SUMS})
    ),
    "tiles that fit into the cache": Trick("kernels._plan._SIDE", one_tile),
    "tiles in threads": Trick(
        "kernels._plan._by_threads", matrix(3000, 784, instead={"plan._by_threads": lambda _: False})
    ),
    "transposed in pieces": Trick("kernels._tiles._mirror", mirrored),
    "products kept, fc": Trick(
        "regression._evaluate.compiled", slope(dense, 500, 4000, 3072, instead=NONE_SAVED)
    ),
    "the rest not kept, fc": Trick(
        "regression._evaluate.compiled", slope(dense, 500, 4000, 784, instead=ALL_SAVED), "memory"
    ),
    "the rest not kept, conv": Trick(
        "regression._evaluate.compiled", slope(conv(2), 32, 64, 28, 28, 1, instead=ALL_SAVED), "memory"
    ),
    "small blocks, conv": Trick(
        "regression._evaluate.default_batch", slope(conv(2), 32, 200, 28, 28, 1, instead=200)
    ),
    "convolutions as products in loops": Trick(
        "networks._layers.Conv",
        training(CNN, 40, 28, 28, 1, instead={"layers._product": _layers._convolution}),
    ),
    "pooling by reshape": Trick(
        "networks._layers.max_pool",
        training(
            LARGE, 40, 16, 16, 1, instead={"modules.max_pool": lambda x: nn.max_pool(x, (2, 2), (2, 2))}
        ),
        "other numbers where pixels tie",
    ),
    "convolutions outside loops": Trick("networks._models.outside_loops", outside_loops),
    "patches for each example": Trick(
        "empirical._conv", jacobian(20, 32, 32, 3, instead={"methods.with_patches": lambda f, *_: f})
    ),
    "products of rows": Trick(
        "empirical._methods._contract_rows",
        jacobian(20, 32, 32, 3, instead={"methods._contract_rows": by_einsum}),
        "memory",
    ),
    "one step outside a loop": Trick("attacks._ascent._advance", single_step),
    "sums by a product, features": Trick("features._attack._own", verdicts),
    "pixels in rows, L2": Trick(
        "_core.geometry.rows",
        ball_step("l2", instead={"geometry.rows": images, "geometry._length": image_length}),
    ),
    "rare looks at who is fooled": Trick("attacks._apgd._FEW", rare_looks),
    "the largest logits without a sort": Trick(
        "attacks._losses._largest", logits(instead={"losses._largest": by_a_sort})
    ),
}


def measured(trick, toy, rounds):
    """Medians of the rounds' ratios, the least seconds of both ways, and the ratio of planned bytes."""
    ways, clocks = trick.build(toy), (time.perf_counter, time.process_time)
    taken = np.empty((rounds + 1, len(ways), len(clocks)))
    for number in range(rounds + 1):
        for which, way in enumerate(ways):
            start = [clock() for clock in clocks]
            jax.block_until_ready(way())
            taken[number, which] = [clock() - begin for clock, begin in zip(clocks, start, strict=True)]
    ratios = np.median(taken[1:, 1] / taken[1:, 0], axis=0)
    planned = [getattr(way, "bytes", None) for way in ways]
    return {
        "place": trick.place,
        "ratio": float(ratios[0]),
        "processor_ratio": float(ratios[1]),
        "seconds": taken[1:, :, 0].min(axis=0).tolist(),
        "bytes": planned[1] / planned[0] if all(planned) else None,
        "kept": trick.kept,
    }


def main():
    """Measure the tricks whose name or place contains the given text, print them, record them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "only", nargs="?", default="", help="run only those whose name or place contains this"
    )
    parser.add_argument("--rounds", type=int, default=9, help="of each (9)")
    parser.add_argument("--toy", action="store_true", help="one round at the smallest sizes, to see it run")
    parser.add_argument("--record", action="store_true", help="write book/results/trick_benchmark/cpu.json")
    options = parser.parse_args()
    # What is measured compiles anew: nothing may come from a disk.
    jax.config.update("jax_enable_compilation_cache", options.toy)
    jax.config.update("jax_disable_most_optimizations", options.toy)
    begin, table = time.perf_counter(), {}
    for name, trick in TRICKS.items():
        if options.only in f"{name} {trick.place}":
            row = table[name] = measured(trick, options.toy, 1 if options.toy else options.rounds)
            planned = "" if row["bytes"] is None else f"{row['bytes']:5.2f} × bytes"
            ratios = f"{row['ratio']:6.2f} × {row['processor_ratio']:6.2f} × processor"
            verdict = row["kept"] or ("" if row["ratio"] >= LEAST else "not worth it")
            seconds = 1e3 * row["seconds"][0]
            print(
                f"{name:38} {trick.place:34} {seconds:9.1f} ms {ratios} {planned:13} {verdict}",
                flush=True,
            )
    if options.record and not options.toy:
        path = results.record(
            "trick_benchmark",
            jax.default_backend(),
            values=table,
            config={"rounds": options.rounds},
            dataset="random numbers in [0, 1]",
            seeds=[0],
            seconds=time.perf_counter() - begin,
        )
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
