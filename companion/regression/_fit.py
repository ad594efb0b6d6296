"""`fit`: from a kernel and data, or from a Gram matrix, to the predictor."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from companion._core.checks import batch as examples
from companion._core.checks import count, finite, number, one_of
from companion._core.compile import Kind, kernel_function, refuse_mixed_entries
from companion._core.eigenpairs import eigenpairs
from companion._core.types import Array, Kernel
from companion._core.words import Unchecked
from companion.kernels import gram
from companion.regression._checks import kernel_and_targets, rounding, targets_of
from companion.regression._cholesky import Cholesky, solve
from companion.regression._predictor import KernelPredictor
from companion.regression._spectrum import refuse_negative
from companion.regression._top import Top, at_most, leading

Solver = Literal["eigh", "cholesky"] | Cholesky | Top


def fit(
    kernel: Kernel | Array,
    x: Float[Any, "n ..."] | None = None,
    targets: Float[Any, "n k"] | None = None,
    *,
    ridge: float = 0.0,
    solver: Solver = "eigh",
    kind: Kind = "ntk",
    k_train_train: Float[Any, "n n"] | None = None,
    resolution: float | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
    progress: bool = False,
) -> KernelPredictor:
    """Kernel regression under gradient flow: f_t(x) = Θ(x, X) Θ(X, X)⁻¹ (I − e^{−tΘ(X, X)}) Y for any time t.

    Time is the gradient flow's own, for the loss ½ Σ_i ‖f(x_i) − y_i‖² (a sum, not a mean), plus ½ ρ ‖f‖² in
    the kernel's norm where there is a ridge ρ: then both Θ(X, X) become Θ(X, X) + ρI.

    Args:
        kernel: an `Architecture`, or a function kernel(x1, x2, get) such as neural-tangents' `kernel_fn`; or
            a Gram matrix Θ(X, X), (n, n), by itself: `fit(matrix, targets=y)`. An architecture's predictors
            share their compiled code; a function of your own is compiled for every one, or once for all after
            `kernels.keep_compiled`.
        x: training inputs X, (n, ...), float32 or float64; None beside a matrix.
        targets: Y, (n, k): ±1 for two classes, centered one-hot for k classes (`data.targets`).
        ridge: ρ, added to the diagonal, ≥ 0, in the kernel's units. `with_ridge` changes it later.
        solver: "eigh" decomposes once, for every time and ridge, and for features; "cholesky" solves for
            t = ∞ and this ridge alone, some ten times faster, in one n² array of the kernel's precision.
            `Cholesky(...)` says more: precision, tolerance, whether a matrix may be overwritten.
            `Top(k, key=...)` finds the k leading eigenpairs alone: f is then the sum of their features, at
            every time and ridge. `plan` says what each takes.
        kind: "ntk", or "nngp" for regression with the covariance at initialization.
        k_train_train: Θ(X, X) where it exists already, such as what `kernels.gram(kernel, x, out=...)` keeps.
        resolution: rounding error of the kernel, in its units, for the warnings. None: √ε times the largest
            diagonal entry, ε of the precision that came in: what an arccosine near 1 costs the diagonal of a
            ReLU kernel in neural-tangents. Of a kernel whose entries are all right to about ε,
            2 ε ‖Θ‖_F / √n is a good estimate (`rounding_error` says what was measured).
        batch_size: training points in a block of the predictor; see `KernelPredictor`.
        memory: bytes for the work on Θ(X, X), as for `kernels.gram`.
        progress: show the kernel's tqdm bar.

    Returns:
        The predictor: call it on inputs, differentiate it, attack it. Decomposed in float64 whatever came in,
        and solved to float64 residuals.

    Raises:
        TypeError: another precision; arguments that do not belong together.
        ValueError: NaN or infinity, a matrix that is not square or not symmetric, rows that do not match, a
            negative ridge or resolution, a kernel that is not positive semi-definite ("cholesky": not
            positive definite in float64, or in float32 where float64 has no room, with a ridge that does).

    Warns:
        PrecisionWarning: from "cholesky" when r ‖α‖ > 0.1 ‖Θ α‖ for the resolution r, or when Θ + ρI is
            singular to float64; from "eigh" the predictor warns where its coefficients are first needed.

    Cost: Θ(X, X); then about 10 n³ operations and 3 n² float64 of memory beside the matrix with "eigh", on a
    GPU where it has room for 6 n² float64; n³/3 with "cholesky", in the matrix that `fit` computed, or in a
    copy of a given one (10 GB at n = 50,000); with `Top` 6 n² k.
    Source: Jacot et al. (2018), arXiv 1806.07572, section 5; Lee et al. (2019), arXiv 1902.06720, eqs. 10-11.

    >>> from companion.architectures import fc
    >>> x = np.eye(3, dtype=np.float32)
    >>> f = fit(fc(1), x, np.array([[1.0], [-1.0], [1.0]]))
    >>> f(x).round(3).ravel().tolist(), f.at(0.0)(x).ravel().tolist()
    ([1.0, -1.0, 1.0], [0.0, 0.0, 0.0])
    >>> fit(np.diag([4.0, 1.0]), targets=np.ones((2, 1)), solver="cholesky").coefficients.ravel()
    array([0.25, 1.  ])
    """
    # All that can be known before Θ(X, X), which may take hours.
    solver, ridge = checked_solver(solver), number("ridge", ridge)
    if resolution is not None:
        resolution = number("resolution", resolution)
    if isinstance(solver, Top) and np.ndim(x):
        at_most(solver, len(x))
    options = {"kind": kind, "batch_size": batch_size, "memory": memory, "progress": progress}
    matrix, targets, inputs, ours = training_problem(kernel, x, targets, k_train_train, **options)
    resolution = rounding(matrix, resolution)
    inputs |= {"ridge": ridge, "resolution": resolution}
    if isinstance(solver, Cholesky):
        options = {"ridge": ridge, "resolution": resolution, "ours": ours, "progress": progress}
        return KernelPredictor(**inputs, given=solve(matrix, targets, how=solver, **options))
    if isinstance(solver, Top):
        values, vectors = leading(matrix, solver, resolution=resolution, progress=progress)
    else:
        values, vectors = _decomposed(matrix, resolution)
    return KernelPredictor(
        **inputs, eigenvalues=values, eigenvectors=vectors, projections=vectors.T @ targets
    )


def checked_solver(solver: Unchecked) -> Cholesky | Top | Literal["eigh"]:
    """How to solve, or "eigh"; or an error."""
    if isinstance(solver, Cholesky | Top):
        return solver
    return Cholesky() if one_of("solver", solver, ("eigh", "cholesky")) == "cholesky" else "eigh"


def from_coefficients(
    kernel: Kernel,
    x_train: Float[Any, "n ..."],
    coefficients: Float[Any, "n k"],
    *,
    kind: Kind = "ntk",
    batch_size: int | None = None,
) -> KernelPredictor:
    """The predictor f(x) = Θ(x, X) α of coefficients found elsewhere.

    Args:
        kernel: an `Architecture`, or a function kernel(x1, x2, get).
        x_train: training inputs X, (n, ...), finite. Their precision is that of f; float64 needs JAX's x64
            mode.
        coefficients: α, (n, k), float32 or float64.
        kind: "ntk" or "nngp".
        batch_size: training points in a block, as for `fit`.

    Returns:
        A predictor without a spectrum: `at`, `with_ridge` and all that needs one refuse it.

    Raises:
        TypeError: inputs or coefficients that are no floating point numbers; a kernel that is no function.
        ValueError: NaN or infinity, rows that do not match, batch_size < 1, an unknown kind, float64 inputs
            where JAX computes in float32.

    >>> x = np.eye(2, dtype=np.float32)
    >>> f = from_coefficients(lambda a, b, get: a @ b.T, x, np.array([[2.0], [3.0]]))
    >>> f(np.ones((1, 2), np.float32))
    Array([[5.]], dtype=float32)
    """
    kernel_function(kernel, kind)
    x, alpha = _own(examples("x_train", x_train)), _own(np.asarray(coefficients))
    if alpha.dtype not in (np.float32, np.float64):
        raise TypeError(f"coefficients must be float32 or float64, got {alpha.dtype}")
    if alpha.ndim != 2 or len(alpha) != len(x):
        raise ValueError(f"coefficients must have shape ({len(x)}, k), got {alpha.shape}")
    finite("coefficients", alpha)
    if batch_size is not None:
        count("batch_size", batch_size)
    f = KernelPredictor(kernel, x, kind, batch_size=batch_size, given=alpha)
    f._arrays  # noqa: B018  (an error belongs here, not to the first call)
    refuse_mixed_entries(kernel, kind, x, x)
    return f


def _own(array: np.ndarray) -> np.ndarray:
    """A copy that cannot be written to: what the caller does to theirs afterwards is not the predictor's."""
    if array.flags.writeable:
        array = array.copy()
        array.setflags(write=False)
    return array


def training_problem(
    kernel: Unchecked,
    x: Unchecked,
    targets: Unchecked,
    k_train_train: Unchecked,
    *,
    kind: Kind,
    batch_size: int | None,
    memory: int | None,
    progress: bool,
    check: Callable[[np.ndarray], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, Kernel | np.ndarray | Kind | int | None], bool]:
    """Θ(X, X), Y in float64, fields of the predictor, and whether Θ(X, X) was computed here; or an error.

    Targets are looked at, by `check` too, before Θ(X, X) is computed.
    """
    if targets is None:
        raise TypeError("targets must be given: fit(kernel, x, targets), or fit(matrix, targets=targets)")
    if batch_size is not None:
        count("batch_size", batch_size)
    inputs = {"kind": kind, "batch_size": batch_size}
    if callable(getattr(kernel, "kernel", kernel)):
        kernel_function(kernel, kind)
        if x is None:
            raise TypeError("x must be given beside a kernel: fit(kernel, x, targets)")
        x = _own(examples("x", x))
        _looked_at(targets_of(targets, len(x)), check)
        inputs |= {"kernel": kernel, "x_train": x}
        if k_train_train is None:
            matrix = gram(kernel, x, kind=kind, memory=memory, progress=progress)
        else:
            if np.shape(k_train_train) != 2 * (len(x),):
                got = np.shape(k_train_train)
                raise ValueError(f"k_train_train must have shape ({len(x)}, {len(x)}), got {got}")
            refuse_mixed_entries(kernel, kind, x, x)
            matrix = k_train_train
    else:
        if x is not None or k_train_train is not None:
            raise TypeError("kernel must be an Architecture or a function kernel(x1, x2, get) beside x")
        matrix = kernel
    ours = matrix is not kernel and matrix is not k_train_train
    matrix, targets = kernel_and_targets(matrix, targets, symmetric=ours)
    _looked_at(targets, check)
    return matrix, targets, inputs, ours


def _looked_at(targets: np.ndarray, check: Callable[[np.ndarray], None] | None) -> None:
    if check is not None:
        check(targets)


def _decomposed(kernel: np.ndarray, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, descending, and eigenvectors in columns; or an error where one is clearly negative."""
    values, vectors = eigenpairs(np.array(kernel, dtype=np.float64, order="C"))
    values, vectors = values[::-1].copy(), np.ascontiguousarray(vectors[:, ::-1])
    refuse_negative(values, len(kernel), resolution)
    return values, vectors
