"""AutoAttack beside its reference, PyPI's pyautoattack, on networks with the same weights: `make autoattack`.

Five classifiers of 15 × 15 digits (`_two_frameworks.py`), each within an L∞ and an L2 ball; `--norms l1`
within an L1 ball instead, a record of its own. Both run the standard version on the same test images in one
process, one after the other: ours with an empty cache of compiled code, the reference, ours again. PyTorch
has one thread, with which it is faster than with two where the cores are shared. Recorded of each stage:
robust accuracy, seconds, and seconds of processor time, which other work on the machine changes less.
`--train` makes the weights again; else they are those of the record.
"""

import argparse
import logging
import re
import time

import jax
import numpy as np
from _two_frameworks import KINDS, digits, in_jax, in_torch, trained  # beside this file

from companion import results
from companion.attacks import STANDARD, Threat, autoattack

NORMS = ("linf", "l2", "l1")
EPS = {
    "mlp": (0.03, 0.3, 1.0),
    "mlp_pgd": (0.12, 0.7, 1.5),
    "cnn": (0.06, 0.4, 1.5),
    "cnn_pgd": (0.15, 0.8, 2.0),
    "kernel": (0.06, 0.4, 1.5),
}
STAGES = ("clean", *STANDARD)


def clocks():
    """Seconds on the wall and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def ours(predict, x, y, threat, version):
    """Accuracy and seconds after each stage, of all together, and who is fooled."""
    start = clocks()
    found = autoattack(predict, x, y, threat, key=jax.random.key(0), version=version)
    wall, processor = clocks() - start
    row = {
        "accuracy": [found.accuracy[name].value for name in found.attacks],
        "seconds": list(found.seconds.values()),
        "total": float(wall),
        "processor": float(processor),
    }
    return row, found.fooled_by >= 0


class Stages(logging.Handler):
    """Accuracy and time after each stage, from what the reference logs."""

    def __init__(self):
        super().__init__()
        self.accuracy, self.at = [], []

    def emit(self, record):
        """Keep what a line says of accuracy."""
        if found := re.match(
            r"(?:initial|robust) accuracy(?: after [\w-]+)?: ([\d.]+)%", record.getMessage()
        ):
            self.accuracy.append(float(found[1]) / 100)
            self.at.append(time.perf_counter())


def reference(module, x, y, threat, version):
    """The same of the reference."""
    import torch
    from pyautoattack import AutoAttack

    torch.set_num_threads(1)
    images, labels = torch.tensor(x).permute(0, 3, 1, 2).contiguous(), torch.tensor(y).long()
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[threat.norm]
    logger, stages = logging.getLogger("auto-attack"), Stages()
    logger.handlers, logger.propagate = [stages], False
    logger.setLevel(logging.DEBUG)
    attack = AutoAttack(module, norm=norm, eps=threat.eps, version="standard", device="cpu", seed=0)
    attack.attacks_to_run = list(version)
    start = clocks()
    attacked, _ = attack.run_standard_evaluation(images, labels)
    wall, processor = clocks() - start
    with torch.no_grad():
        fooled = (module(attacked).argmax(1) != labels).numpy()
    number = len(version) + 1  # the last line repeats the one before; after 0 % there are no more
    accuracy = (stages.accuracy[:number] + number * [0.0])[:number]
    seconds = (np.diff([start[0], *stages.at[:number]]).tolist() + number * [0.0])[:number]
    return {
        "accuracy": accuracy,
        "seconds": seconds,
        "total": float(wall),
        "processor": float(processor),
    }, fooled


def weights_of(kinds, train):
    """Weights of the record, or trained now; with the names of their networks before theirs."""
    try:
        arrays = {} if train else results.load("autoattack", "cpu").arrays
    except FileNotFoundError:
        arrays = {}
    made = {kind: trained(kind, 1 if train == "toy" else 30) for kind in kinds if not arrays}
    return arrays or {f"{kind}__{name}": one for kind, these in made.items() for name, one in these.items()}


def record_of(norms):
    """The record's name: "cpu" for the usual two, which has the weights for all."""
    return "cpu" if tuple(norms) == NORMS[:2] else f"cpu_{'_'.join(norms)}"


def main():
    """Run both on every case, print a line of each, and record them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write book/results/autoattack")
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=NORMS[:2], help="of the balls")
    parser.add_argument("--train", action="store_true", help="train the networks again")
    parser.add_argument("--images", type=int, default=1000, help="of the test set")
    parser.add_argument("--toy", action="store_true", help="our side alone, of the smallest case")
    options = parser.parse_args()
    begin, table = time.perf_counter(), {}
    version, n = (STANDARD[:1], 20) if options.toy else (STANDARD, options.images)
    kinds = KINDS[-1:] if options.toy else KINDS
    arrays = weights_of(kinds, "toy" if options.toy else options.train)
    _, _, x, y = digits()
    jax.config.update("jax_enable_compilation_cache", False)
    for kind in kinds:
        weights = {
            name.split("__", 1)[1]: one for name, one in arrays.items() if name.startswith(f"{kind}__")
        }
        f, module = in_jax(kind, weights), None if options.toy else in_torch(kind, weights)
        for norm in options.norms:
            eps = EPS[kind][NORMS.index(norm)]
            work = x[:n], y[:n], Threat(norm, eps), version
            jax.clear_caches()
            cold, _ = ours(f, *work)
            row, fooled = (None, None) if options.toy else reference(module, *work)
            warm, ours_fooled = ours(f, *work)
            table[f"{kind} {norm}"] = {
                "eps": eps, "ours": warm, "with_compilation": cold, "reference": row,
                "both_decide_alike": None if options.toy else float((fooled == ours_fooled).mean()),
            }  # fmt: skip
            print(
                kind,
                norm,
                {name: table[f"{kind} {norm}"][name] for name in ("ours", "reference")},
                flush=True,
            )
            if options.record and not options.toy:
                results.record(
                    "autoattack",
                    record_of(options.norms),
                    values={"stages": list(STAGES), "cases": table},
                    arrays={} if record_of(options.norms) != "cpu" else arrays,
                    config={"images": n, "threads_of_pytorch": 1},
                    dataset="mnist5k, means over 2 x 2 pixels",
                    seeds=[0],
                    seconds=time.perf_counter() - begin,
                )


if __name__ == "__main__":
    main()
