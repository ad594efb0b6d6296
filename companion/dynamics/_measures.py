"""What one kernel looks like: where its mass is, and what it knows of the labels."""

from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float

from companion._core.checks import count, finite
from companion._core.krylov import krylov
from companion.storage import matrix, norm_of


def concentration(kernel: Float[Any, "n n"], *, top: int = 20) -> float:
    """Σ_{i < top} λ_i² / Σ_i λ_i²: how much of ‖K‖² lies in the eigenspaces of the largest eigenvalues.

    Args:
        kernel: (n, n), symmetric.
        top: 1 to n.

    Returns:
        A number in [0, 1].

    Raises:
        TypeError, ValueError: a matrix or a top that does not fit; a kernel that is zero.

    Cost: `top` eigenvalues by a block Krylov method, O(n² top), or all of them where that is cheaper.
    Source: Tsilivis & Kempe (2022), arXiv 2210.05577, section 5.

    >>> round(concentration(np.diag([3.0, 1.0]), top=1), 6)
    0.9
    """
    kernel = matrix("kernel", kernel).astype(float)
    values = largest(kernel, top)[0]
    return min(1.0, float((values**2).sum() / norm_of(kernel, None) ** 2))


def effective_rank(kernel: Float[Any, "n n"]) -> float:
    """(Σ λ_i)² / Σ λ_i² = (tr K)² / ‖K‖²: r for r equal eigenvalues. It has no cut to choose.

    Args:
        kernel: (n, n), symmetric.

    Returns:
        A number in [1, n] for a positive semi-definite kernel.

    Raises:
        TypeError, ValueError: a matrix that does not fit; a kernel that is zero.

    >>> round(effective_rank(np.diag([2.0, 2.0, 0.0])), 6)
    2.0
    """
    kernel = matrix("kernel", kernel).astype(float)
    return float(np.trace(kernel) ** 2 / norm_of(kernel, None) ** 2)


def alignment(kernel: Float[Any, "n n"], targets: Float[Any, "m k"]) -> float:
    """⟨K, Y Yᵀ⟩ / (‖K‖ ‖Y Yᵀ‖): how much the kernel looks like the labels' own.

    Args:
        kernel: (n, n), symmetric.
        targets: Y, (n, k), such as `data.targets`.

    Returns:
        A number in [0, 1] for a positive semi-definite kernel.

    Raises:
        TypeError, ValueError: arrays that do not fit, or are zero.

    Cost: O(n² k), no n × n array. Source: Cristianini et al. (2001), On kernel-target alignment.

    >>> alignment(np.ones((2, 2)), np.ones((2, 1)))
    1.0
    """
    kernel = matrix("kernel", kernel).astype(float)
    targets = finite("targets", np.asarray(targets, float))
    if targets.ndim != 2 or len(targets) != len(kernel) or not targets.any():
        raise ValueError(f"targets must be ({len(kernel)}, k) and not all zero, got shape {targets.shape}")
    inside = float(((kernel @ targets) * targets).sum())
    return inside / (norm_of(kernel, None) * float(np.linalg.norm(targets.T @ targets)))


def per_output(kernel: Float[Any, "m m"], k: int) -> Float[np.ndarray, "k n n"]:
    """Θ̂_aa for every output a: the diagonal blocks of the full kernel of k outputs, `reduce="full"`.

    Args:
        kernel: (n·k, n·k), row i·k + a for output a of input i.
        k: outputs.

    Returns:
        (k, n, n); their mean is the kernel of `reduce="trace"`.

    Raises:
        TypeError, ValueError: a matrix whose size is no multiple of k.

    >>> per_output(np.diag([1.0, 2.0, 1.0, 2.0]), 2)[1].tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    kernel, k = matrix("kernel", kernel), count("k", k)
    if len(kernel) % k:
        raise ValueError(f"kernel must have a multiple of {k} rows, got {len(kernel)}")
    n = len(kernel) // k
    return np.einsum("iaja->aij", kernel.reshape(n, k, n, k))


def specialization(
    kernels: Float[Any, "k n n"], targets: Float[Any, "m c"]
) -> tuple[float, Float[np.ndarray, "k k"]]:
    """How much the kernel of each output aligns with its own class above the others'.

    A_cd = alignment of output c's kernel with class d's labels, and the specialization is the mean over c of
    A_cc / mean_d A_dc: 1 where all outputs have one kernel, up to k where each sees its own class alone.

    Args:
        kernels: one for each output, (k, n, n). `empirical_ntk(..., reduce="class")` is (n, n, k):
            `np.moveaxis` takes its last axis to the front.
        targets: (n, k); column d is class d's labels.

    Returns:
        The specialization, and A (k, k).

    Raises:
        TypeError, ValueError: arrays that do not fit; a class that aligns with no kernel.

    Source: Shan & Bordelon (2021), arXiv 2105.14301; used by Loo et al. (2022), arXiv 2210.12030.

    >>> specialization(np.stack([np.diag([1.0, 0.0]), np.diag([0.0, 1.0])]), np.eye(2))[0]
    2.0
    """
    targets = finite("targets", np.asarray(targets, float))
    if targets.ndim != 2 or len(kernels) != targets.shape[1]:
        raise ValueError(f"kernels must be one for each target, {targets.shape[1]}, got {len(kernels)}")
    aligned = np.array([[alignment(kernel, column[:, None]) for column in targets.T] for kernel in kernels])
    means = aligned.mean(axis=0)
    if (means <= 0).any():
        raise ValueError(f"class {int(np.argmin(means))} aligns with no kernel: its share has no meaning")
    return float((np.diag(aligned) / means).mean()), aligned


def largest(kernel: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` largest eigenvalues and their eigenvectors."""
    n = len(kernel)
    if count("top", top) > n:
        raise ValueError(f"top must be at most {n}, got {top}")
    kernel = kernel.astype(float)
    if n > 500 and top < n // 10:
        # Blocks find equal eigenvalues too, and a fixed start the same numbers on every run.
        chance = np.random.default_rng(0)
        values, vectors = krylov(lambda block: kernel @ block, n, top, chance=chance, tolerance=1e-10)
        return values[::-1], vectors[:, ::-1]
    return scipy.linalg.eigh(kernel, subset_by_index=(n - top, n - 1))
