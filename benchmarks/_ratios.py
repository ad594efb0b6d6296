"""Times as multiples of a floor that is measured beside them."""

import time

import jax
import numpy as np


def times_the_first(works, turns):
    """Processor time of each work as a multiple of the first one's of the same turn: median, least, largest.

    Other work lengthens seconds on the wall, not these. A first turn compiles and does not count.
    """
    seconds = {name: [] for name in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            start = time.process_time()
            jax.block_until_ready(work())
            if turn:
                seconds[name].append(time.process_time() - start)
    first = np.array(next(iter(seconds.values())))
    return {
        name: [float(f(np.array(values) / first)) for f in (np.median, np.min, np.max)]
        for name, values in seconds.items()
    }


def show(ratios):
    """A line for each."""
    for name, (median, low, high) in ratios.items():
        print(f"  {name:44} {median:6.2f} × [{low:.2f}, {high:.2f}]", flush=True)
