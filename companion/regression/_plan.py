"""`plan`: what a fit is going to take, before it begins."""

import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from companion import kernels
from companion._core.amounts import duration, size
from companion._core.checks import count
from companion._core.compile import Kind
from companion._core.eigenpairs import eigenpairs
from companion._core.words import Unchecked
from companion.regression import _factor
from companion.regression._cholesky import Cholesky
from companion.regression._fit import Solver, checked_solver
from companion.regression._top import Top

_STEPS = 4  # of conjugate gradients, as seen with ridges of a thousandth of the mean diagonal
_SPACE = 3  # vectors for each eigenpair, as seen
_SIDE = 2048  # of the products that are timed


@dataclass(frozen=True)
class Plan:
    """What `fit` is going to do; `print` it.

    Attributes:
        gram: the plan of Θ(X, X).
        solver: in words.
        bytes: the most held at once for Θ(X, X) and the work on it, beside the inputs.
        operations: of the solver, in floating point.
        seconds: for Θ(X, X) and the solver; None if not timed.
    """

    gram: kernels.Plan
    solver: str
    bytes: int
    operations: float
    seconds: tuple[float, float] | None

    def __str__(self) -> str:
        """Both steps, a line each."""
        time = "" if self.seconds is None else f", about {duration(self.seconds[1])}"
        most = f"{size(self.bytes)} at most in all"
        return f"{self.gram}\n{self.solver}: {self.operations:.2g} operations{time}; {most}"


def plan(
    kernel: Unchecked,
    x: Float[Any, "n ..."],
    *,
    solver: Solver = "eigh",
    outputs: int = 1,
    kind: Kind = "ntk",
    memory: int | None = None,
    time: bool = False,
) -> Plan:
    """Say what `fit(kernel, x, targets, solver=solver)` would take, without the targets.

    Args:
        kernel: as for `fit`.
        x: training inputs X, (n, ...); `np.broadcast_to(image, (50_000, ...))` stands for many in no memory.
        solver: as for `fit`.
        outputs: columns of the targets.
        kind: as for `fit`.
        memory: as for `fit`.
        time: run a few tiles of the kernel and a few products, to estimate the seconds.

    Returns:
        The plan. Seconds are those of this machine as it is now, whatever else runs on it.

    Raises:
        TypeError, ValueError: as `fit` does.

    Costs a compilation, which `fit` does not repeat for an architecture; timed, some seconds.

    >>> from companion.architectures import fc
    >>> large = np.broadcast_to(np.float32(1), (50_000, 784))
    >>> round(plan(fc(1), large, solver="cholesky").bytes / 1e9)
    10
    """
    solver, outputs = checked_solver(solver), count("outputs", outputs)
    tiles = kernels.plan(kernel, x, kind=kind, memory=memory, time=time)
    n, item = tiles.shape[0], np.dtype(tiles.dtype).itemsize
    if isinstance(solver, Cholesky):
        precision = solver.precision or tiles.dtype
        refined = 4 * _STEPS * outputs * float(n) ** 2 if precision == "float32" else 0.0
        operations, rate = n**3 / 3 + refined, lambda: _product_rate(precision)
        space = n * _factor.BLOCK * np.dtype(precision).itemsize + 48 * n * outputs
        held = n * n * item + (0 if precision == tiles.dtype else n * n * np.dtype(precision).itemsize)
        name = f"Cholesky factorization in {precision}"
    elif isinstance(solver, Top):
        vectors = min(n, _SPACE * solver.k + solver.block)
        operations, rate = 2.0 * n * n * vectors, lambda: _product_rate("float64")
        held, space, name = n * n * item, 8 * n * (vectors + solver.k), f"{solver.k} leading eigenpairs"
    else:
        operations, rate = 10.0 * n**3, _eigh_rate
        held, space, name = n * n * (item + 24), 0, "eigendecomposition in float64"
    return Plan(
        gram=tiles,
        solver=name,
        bytes=max(held + space, tiles.output_bytes + tiles.tile_bytes),
        operations=float(operations),
        seconds=(float(tiles.seconds or 0.0), operations / rate()) if time else None,
    )


def _product_rate(precision: str) -> float:
    """Operations a second of a product of two matrices."""
    square = np.full((_SIDE, _SIDE), 0.5, precision)
    return 2 * _SIDE**3 / _least(lambda: square @ square)


def _eigh_rate() -> float:
    """Operations a second of a small eigendecomposition, counted as 10 n³."""
    side = _SIDE // 4
    square = np.random.default_rng(0).normal(size=(side, side))
    return 10 * side**3 / _least(lambda: eigenpairs(square + square.T))


def _least(work: Callable[[], Unchecked]) -> float:
    """The least seconds of three."""
    found = []
    for _ in range(3):
        start = clock.perf_counter()
        work()
        found.append(clock.perf_counter() - start)
    return min(found)
