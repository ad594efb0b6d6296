"""What a stored Gram matrix is of: everything that decides its bytes but for the tiles."""

import jax
import numpy as np

from companion._core.compile import Kind, is_ours, local_devices
from companion._core.types import Kernel
from companion.kernels._plan import compiled
from companion.storage import compared, fingerprint

# To be raised when the same call would give another matrix, or the files another form.
FORMAT = 2
_FINGERPRINT_INPUTS = 4


def identity_of(
    kernel: Kernel, kind: Kind, x1: np.ndarray, x2: np.ndarray | None, dtype: np.dtype
) -> dict[str, object]:
    """Everything that decides the bytes of the matrix, but for the tiles."""
    function, devices = getattr(kernel, "kernel", kernel), local_devices()
    other = x1 if x2 is None else x2
    few = [np.ascontiguousarray(x[:_FINGERPRINT_INPUTS]) for x in (x1, other)]
    specs = [(x.shape, x.dtype.name) for x in few]
    block = compiled(function, kind, *specs, devices[:1])
    values = np.asarray(block(*(jax.device_put(x, devices[0]) for x in few)))
    # A function of the user's may differ from another where these few inputs are not.
    code = {} if is_ours(function) else {"kernel's code": compared("the kernel", function, stacklevel=5)}
    return {
        "format": FORMAT,
        "kind": kind,
        "shape": [len(x1), len(other)],
        "dtype": dtype.name,
        "x1": fingerprint(x1),
        "x2": None if x2 is None else fingerprint(x2),
        "kernel": getattr(kernel, "name", None) or getattr(kernel, "__qualname__", type(kernel).__name__),
        "devices": f"{len(devices)} × {devices[0].device_kind}",
        "kernel's values": fingerprint(values),
        **code,
    }
