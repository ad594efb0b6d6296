"""Time to import companion against jax + flax: `python benchmarks/import_time.py`.

Fresh processes, interleaved; the least of several runs, and its ratio to jax + flax alone.
"""

import argparse
import subprocess
import sys
import time

ROUNDS = 7
CASES = {
    "jax + flax": "import jax, flax",
    "companion": "import companion",
    "companion, kernels to training": (
        "from companion import data, empirical, kernels, neural_tangents, regression, results, training"
    ),
    "companion, everything": (
        "from companion import data, interactive, plots, results, statistics;"
        "from companion.experiments import convergence"
    ),
}


def main():
    """Run every case in turn, several times, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="one round, to see that it runs")
    least = dict.fromkeys(CASES, float("inf"))
    for _ in range(1 if parser.parse_args().toy else ROUNDS):
        for name, code in CASES.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            least[name] = min(least[name], time.perf_counter() - start)
    for name, seconds in least.items():
        print(f"{name:32} {seconds:6.2f} s   {seconds / least['jax + flax']:5.2f} × jax + flax")


if __name__ == "__main__":
    main()
