"""Eigenpairs of a symmetric matrix in float64: by LAPACK, or on an accelerator that has room for them."""

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from companion._core.compile import Device, free_memory, local_devices, precision

# Above, the fast driver's n² of work space does not fit the 32 bits in which it is counted.
MOST = 32_000
_SPACE = 6  # times 8 n² bytes: the matrix, its eigenvectors, twice for the layout, and the work space


def eigenpairs(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending, (n,), and eigenvectors in columns, (n, n).

    Args:
        matrix: (n, n), symmetric, float64. It may be overwritten.

    Cost: about 10 n³ operations; on a GPU whose memory has room for them, else on the processor.
    """
    if _has_room(local_devices()[0], len(matrix)):
        return on_device(matrix)
    # The transpose of a symmetric matrix is itself, laid out as LAPACK wants it to work in place.
    return scipy.linalg.eigh(
        np.ascontiguousarray(matrix).T,
        driver="evd" if len(matrix) < MOST else "evr",
        overwrite_a=True,
        check_finite=False,
    )


def on_device(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, where JAX computes."""
    with precision(matrix):
        values, vectors = jnp.linalg.eigh(jnp.asarray(matrix), symmetrize_input=False)
        return np.asarray(values), np.asarray(vectors)


def _has_room(device: Device, n: int) -> bool:
    """Whether that is a GPU with room; other accelerators have no float64."""
    return device.platform == "gpu" and n < MOST and free_memory(device) > 8 * _SPACE * n * n
