"""Functions given by the user: checked, compiled, kept compiled where that is safe, in which precision."""

import collections
import contextlib
import functools
import inspect
import math
import os
from collections.abc import Callable, Hashable
from typing import Literal, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jaxtyping import PyTree

from companion._core.types import Array, Kernel, KernelFunction, Scalar
from companion._core.words import Function, Unchecked

Kind = Literal["ntk", "nngp"]
Made = TypeVar("Made")


@runtime_checkable
class Device(Protocol):
    """A `jax.Device`, as far as its memory goes."""

    platform: str

    def memory_stats(self) -> dict[str, int] | None:
        """Bytes by what they are: in use, the limit and others; None where it does not tell."""


def keep_compiled(function: Function) -> Function:
    """Promise that a function always computes the same, so that what is compiled of it is kept.

    For a kernel or a network of your own: `gram`, `regression.fit`, `empirical_ntk` and the attacks compile
    a function anew at every call, since it may read a variable that changed in between. One that was marked
    is compiled once for each shape, and what it reads besides its arguments is *frozen* at its first use.
    Architectures, networks of `companion.networks` and pytrees such as `Partial(apply, params)` need no mark.

    Args:
        function: a kernel(x1, x2, get), a network apply(params, x), or a function of inputs alone, of
            differentiable JAX operations without side effects. Also as a decorator.

    Returns:
        The function itself, marked; a function that calls it where it takes no mark (a bound method).

    Raises:
        TypeError: no function, or one that has no hash.

    >>> @keep_compiled
    ... def kernel(x1, x2, get):
    ...     return jnp.exp(x1 @ x2.T)
    """
    if not callable(function):
        raise TypeError(f"function must be one, got {function!r}")
    try:
        hash(function)
    except TypeError:
        raise TypeError(f"function must have a hash, for its code to be found again: {function!r}") from None
    try:
        function.compiled_form_is_kept = True
    except AttributeError:
        return _marked(function)
    return function


@functools.lru_cache
def _marked(method: Function) -> Function:
    return keep_compiled(functools.wraps(method)(lambda *arguments: method(*arguments)))


def is_kept(function: Unchecked) -> bool:
    """Whether a function was marked by `keep_compiled`."""
    return getattr(function, "compiled_form_is_kept", False)


def made_once(make: Callable[..., Made]) -> Callable[..., Made]:
    """Call `make(function, ...)` once for each marked function and precision, every time for any other.

    A foreign function may read a variable that changes between two calls. The compiled form would not
    notice. Nor would it notice JAX's precision, which it depends on unseen.
    """

    @functools.lru_cache(maxsize=64)
    def kept(x64: bool, function: Callable, *options: Hashable) -> Made:  # noqa: ARG001
        return make(function, *options)

    @functools.wraps(make)
    def compiled(function: Callable, *options: Hashable) -> Made:
        if is_kept(function):
            return kept(jax.config.jax_enable_x64, function, *options)
        return make(function, *options)

    return compiled


def double(*trees: PyTree) -> contextlib.AbstractContextManager:
    """Float64 inside the block where an array is float64: JAX would cut it to float32 without a word.

    For functions that run code of the user's, which may rely on what JAX is set to; see `precision`.
    """
    return _x64(True) if _is_double(trees) else contextlib.nullcontext()


def double_where(*names: str) -> Callable[[Function], Function]:
    """Decorate a function: inside it float64 is on where one of these arguments is float64."""

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def run(*arguments: Unchecked, **options: Unchecked) -> PyTree:
            given = signature.bind_partial(*arguments, **options).arguments
            with double(*(given.get(name) for name in names)):
                return function(*arguments, **options)

        return run

    return decorate


def precision(*trees: PyTree) -> contextlib.AbstractContextManager:
    """Float64 inside the block where an array is float64, and float32 where none is, whatever JAX is set to.

    For code of ours alone. What is being traced has the precision of its trace, which is not raised.
    """
    leaves = [leaf for leaf in jax.tree.leaves(trees) if hasattr(leaf, "dtype")]
    wide = _is_double(leaves)
    if not leaves or (wide and any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)):
        return contextlib.nullcontext()
    return _x64(wide)


def _is_double(trees: PyTree) -> bool:
    return any(getattr(leaf, "dtype", None) == np.float64 for leaf in jax.tree.leaves(trees))


def _x64(wide: bool) -> contextlib.AbstractContextManager:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(wide)
    # Its place before JAX 0.8.
    from jax.experimental import enable_x64

    return enable_x64(wide)


def kernel_entries(kernel: KernelFunction, x1: Array, x2: Array, kind: Kind) -> Array:
    """kernel(x1, x2, kind), of the right shape, in the inputs' precision whatever the kernel computes in."""
    try:
        values = kernel(x1, x2, kind)
    except TypeError as error:
        if "positional argument" not in str(error):
            raise
        raise TypeError(
            "kernel must be an architecture, such as fc(1) with its parentheses, a matrix, or a function "
            f"kernel(x1, x2, get): {error}"
        ) from error
    wanted, got = (len(x1), len(x2)), getattr(values, "shape", values)
    if got != wanted:
        raise ValueError(f"kernel must return shape {wanted} for so many inputs, got {got}")
    return values.astype(jnp.result_type(x1, x2))


def refuse_mixed_entries(
    kernel: Kernel, kind: Kind, x1: np.ndarray, x2: np.ndarray, *, symmetric: bool = False
) -> None:
    """Ask a kernel of the user's: an entry is of two inputs alone, in whatever tile it is computed.

    `symmetric`: the first pair has its mirror, too, for tiles off the diagonal are computed on one side.
    """
    function = kernel_function(kernel, kind)
    asked = (
        (function, kind, symmetric, *((x.shape[1:], x.dtype) for x in (x1, x2)))
        if is_kept(function)
        else None
    )
    if is_ours(function) or asked in _ASKED or min(len(x1), len(x2)) < 2:
        return
    pair, first, second = [0, 1], [0, 0], [1, 1]
    with double(x1, x2):
        together, alone = (
            kernel_entries(function, x1[rows], x2[columns], kind)
            for rows, columns in ((pair, pair), (first, second))
        )
    # Off the diagonal, where a kernel may be 1 whatever it mixes; by the size of both, for it may be 0 there.
    together, cure = np.asarray(together), "An entry must depend on its own two inputs alone"
    refuse_mixing("kernel", together[0], [together[0, 0], alone[0, 0]], cure=cure)
    if symmetric:
        refuse_asymmetry(together)
    if asked is not None:
        _ASKED.append(asked)


def refuse_asymmetry(entries: np.ndarray) -> None:
    """Raise where a square of entries is not its mirror image, up to rounding; NaN is left to others."""
    apart, size = np.abs(entries - entries.T).max(), np.abs(entries).max()
    if apart > np.sqrt(np.finfo(entries.dtype).eps) * size:
        raise ValueError(
            "kernel must be symmetric where x2 is None: entries differ from their mirror by up to "
            f"{apart:.3g}"
        )


def is_ours(function: Unchecked) -> bool:
    """Whether a kernel's function is of this package or of neural-tangents, and not the user's."""
    return (getattr(function, "__module__", None) or "").startswith(("companion.", "neural_tangents"))


_ASKED: collections.deque[tuple] = collections.deque(maxlen=256)


def refuse_mixing(name: str, together: Scalar, alone: Scalar | list[Scalar], *, cure: str) -> None:
    """Raise where the outputs for x[0] in the company of x[1] are not those without it.

    NaN and infinity are left to who counts them in all outputs.
    """
    together, alone = np.asarray(together), np.asarray(alone)
    if not (np.isfinite(together).all() and np.isfinite(alone).all()):
        return
    if not np.allclose(together, alone, rtol=1e-2, atol=1e-3 * np.abs(together).max()):
        raise ValueError(f"{name} mixes examples: its output for x[0] changes with x[1]. {cure}")


def kernel_function(kernel: Unchecked, kind: Unchecked) -> KernelFunction:
    """The function kernel(x1, x2, get) of an Architecture, or the one given; `kind` is checked too."""
    function = getattr(kernel, "kernel", kernel)
    if not callable(function):
        raise TypeError(f"kernel must be an Architecture or a function kernel(x1, x2, get), got {kernel!r}")
    if kind not in ("ntk", "nngp"):
        raise ValueError(f"kind must be 'ntk' or 'nngp', got {kind!r}")
    return function


def pixels(kernel: Kernel, x: np.ndarray) -> int:
    """Numbers that a kernel keeps for each entry, from the rule of Architecture.pixel_power."""
    power = getattr(kernel, "pixel_power", 1 if x.ndim == 4 else 0)
    return math.prod(x.shape[1:3]) ** power


def local_devices() -> tuple[jax.Device, ...]:
    """Every device of the default backend, or the one that `jax.default_device` names."""
    chosen = jax.config.jax_default_device
    if isinstance(chosen, jax.Device):
        return (chosen,)
    return tuple(jax.local_devices(backend=chosen))


def free_memory(device: Device) -> int:
    """Bytes free where a device computes: in its own memory, or in the computer's."""
    stats = (device.memory_stats() or {}) if device.platform != "cpu" else {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def network(name: str, apply_fn: Unchecked, params: PyTree, x: np.ndarray) -> tuple[int, int]:
    """The output shape (n, k) of a network on a batch, without running it; or an error."""
    if not callable(apply_fn):
        raise TypeError(f"{name} must be a function apply(params, x), got {apply_fn!r}")
    for leaf in jax.tree.leaves(params):
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        if kind not in (np.float32, np.float64):
            raise TypeError(f"params must be float32 or float64, got a leaf of {kind}")
    outputs = jax.eval_shape(apply_fn, params, x)
    if getattr(outputs, "ndim", None) != 2 or outputs.shape[0] != len(x):
        raise ValueError(f"{name}(params, x) must return one array (n, k), got {outputs}")
    return outputs.shape
