"""A fault of jaxlib before 0.8.2, kept away: on a CPU, matrix products with the wrong weights.

There XLA gives large products whose right factor is an argument of the compiled function to XNNPACK, which
keeps the packed weights and finds them again by their address. New weights that were put where freed ones
lay are taken for the old ones: in `for w in ...: f(w, x)` nearly every product may be that of an earlier
`w`, with no error. Measured with 150 products each at 100 × 784 × 320 to 256 × 1024 × 256: on jaxlib 0.7.2
99 % were wrong, on 0.8.0 and 0.8.1 15 to 99 %, on 0.8.2 and later none; without XNNPACK none anywhere
(benchmarks/weights_by_address.py counts them on any version).
"""

import importlib.metadata
import os
import re
import sys
from collections.abc import Mapping, MutableMapping

FLAG = "--xla_cpu_use_xnnpack"
MENDED = (0, 8, 2)


def avoid(
    version: str | None = None,
    environ: MutableMapping[str, str] = os.environ,
    modules: Mapping[str, object] = sys.modules,
) -> None:
    """Switch XNNPACK off in XLA's flags where jaxlib has the fault; flags of the user's stay.

    Args:
        version: of jaxlib; the installed one by default.
        environ: holds XLA_FLAGS, which XLA reads when the first computation starts.
        modules: the imported ones.

    Raises:
        ImportError: when JAX has already started on the CPU of this process, so that it is too late.
    """
    version = version or importlib.metadata.version("jaxlib")
    flags = environ.get("XLA_FLAGS", "")
    if tuple(map(int, re.findall(r"\d+", version)[:3])) >= MENDED or FLAG in flags:
        return
    bridge = modules.get("jax._src.xla_bridge")
    if set(getattr(bridge, "_backends", ())) == {"cpu"}:
        raise ImportError(
            f"jaxlib {version} multiplies matrices on a CPU with the wrong weights, and JAX has started "
            f"already: import companion before anything runs on JAX, or set XLA_FLAGS={FLAG}=false before "
            f"Python starts, or install jax >= {'.'.join(map(str, MENDED))}"
        )
    environ["XLA_FLAGS"] = f"{flags} {FLAG}=false".strip()
