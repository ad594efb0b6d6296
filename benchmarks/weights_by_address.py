"""Products with weights of an earlier call, on this jaxlib's CPU: `python benchmarks/weights_by_address.py`.

New weights for each of 150 products, freed before the next, with XNNPACK as XLA's default has it and without.
`companion/_core/weights_by_address.py` says what was found on which version. It needs JAX alone, so that any
environment can run it.
"""

import argparse
import os
import subprocess
import sys

FLAG = "--xla_cpu_use_xnnpack=false"
COUNT = """
import jax, jax.numpy as jnp, numpy as np
product = jax.jit(lambda w, x: x @ w)
for rows, inner, columns in SIZES:
    x, wrong = jnp.ones((rows, inner)), 0
    for value in range(NUMBER):
        w = jnp.full((inner, columns), float(value))
        wrong += np.abs(np.array(product(w, x)) - inner * value).max() > 1e-3 * inner * max(1, value)
        del w
    print(f"jaxlib {jax.lib.__version__}, {rows} x {inner} x {columns}: {wrong} of {NUMBER} wrong")
"""


def main():
    """Count them, in a process of its own for each setting of XLA."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="the smallest sizes once, to see that it runs")
    toy = parser.parse_args().toy
    sizes, number = ([(8, 8, 8)], 3) if toy else ([(100, 784, 320), (128, 512, 512), (256, 1024, 256)], 150)
    for flags in ("", FLAG):
        print(f"XLA_FLAGS={flags}", flush=True)
        code = COUNT.replace("SIZES", repr(sizes)).replace("NUMBER", str(number))
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)


if __name__ == "__main__":
    main()
