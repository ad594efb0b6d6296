"""`Architecture`: a finite network and its kernel behind one interface, with their checks."""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from companion._core.checks import channels_last, precise, random_key, same_inputs
from companion._core.compile import double, keep_compiled, precision
from companion._core.types import Array, KernelFunction, Key
from companion._core.words import Unchecked
from companion.architectures._finite import Layer


@dataclass(frozen=True)
class Architecture:
    """A network family of given depth, finite at any `width` and infinite as a kernel.

    Attributes:
        name: short label for figures, such as "FC-2 relu".
        width: hidden units (channels) of the finite network; the kernel does not depend on it.
        n_outputs: outputs of the finite network.
        pixel_power: 0 where images are flattened, 1 where the kernel works on every pixel, 2 where it
            works on every pair of pixels: memory of a kernel entry is pixels to this power.
        activation: "relu" or "erf".
        hidden: layers with an activation.
        w_std: standard deviation of the weights before the 1/√fan_in factor.
        b_std: standard deviation of the biases.
        init: `init(key, x) -> params` for a batch x like those to come, of which only the shape counts (a
            `jax.ShapeDtypeStruct` will do).
        apply: `apply(params, x) -> (n, n_outputs)`, for images or flat inputs.
        kernel: `kernel(x1, x2=None, get="ntk") -> (n1, n2)`, the infinite-width kernel; `get` may be
            "ntk", "nngp", or a tuple of both. Differentiable in x1 and x2.
        bias: B where the hidden biases start at −B, None where they are random.
    """

    name: str
    width: int
    n_outputs: int
    pixel_power: Literal[0, 1, 2]
    activation: Literal["relu", "erf"]
    hidden: int
    w_std: float
    b_std: float
    init: Callable[[Key, Sequence[int]], PyTree]
    apply: Callable[..., Float[Any, "n k"]]
    kernel: KernelFunction
    bias: float | None = None

    def __reduce_ex__(self, protocol: int) -> str | tuple:
        """Pickle how it was made: its functions have no names to be found by in another process."""
        return getattr(self, "recipe", None) or super().__reduce_ex__(protocol)


def build(
    name: str,
    network: Layer,
    kernels: Callable[[Array, Array], tuple[Array, Array]],
    width: int,
    n_outputs: int,
    *,
    pixel_power: Literal[0, 1, 2],
    halvings: int = 0,
    **drawn: str | float | int | None,
) -> Architecture:
    # Compiled also where a user calls the kernel by itself: its loops would be compiled anew at every call.
    kernels = jax.jit(kernels)

    flat = functools.partial(_flat, name, pixel_power, halvings)

    def prepare(argument: str, x: Unchecked) -> Float[Any, "n ..."]:
        x = jnp.asarray(x)
        precise(argument, x.dtype)
        return x.reshape(flat(argument, x.shape))

    def init(key: Key, x: Array | jax.ShapeDtypeStruct) -> PyTree:
        if not hasattr(x, "shape"):
            raise TypeError(f"x must be a batch of inputs, got {x!r}")
        # One example decides the shape of the parameters; the batch size does not. Of float32 inputs weights
        # are the same whatever JAX is set to.
        shape = (1, *flat("x", x.shape)[1:])
        with contextlib.nullcontext() if x.dtype == np.float64 else precision(np.float32(0)):
            return network.init(random_key("key", key), shape)[1]

    @keep_compiled
    def apply(params: PyTree, x: Float[Any, "n ..."]) -> Float[Any, "n k"]:
        with double(params, x):
            return network.apply(params, prepare("x", x))

    @keep_compiled
    def kernel(
        x1: Float[Any, "n1 ..."], x2: Float[Any, "n2 ..."] | None = None, get: str | Sequence[str] = "ntk"
    ) -> Array | tuple[Array, ...]:
        wanted = (get,) if isinstance(get, str) else tuple(get)
        if not wanted or not {"ntk", "nngp"} >= set(wanted):
            raise ValueError(f"get must be 'ntk', 'nngp' or a tuple of both, got {get!r}")
        if pixel_power == 2:
            from companion import neural_tangents  # noqa: F401  (loaded before anything is traced)
        with precision(x1, x2):
            x1 = prepare("x1", x1)
            x2 = x1 if x2 is None else prepare("x2", x2)
            same_inputs("x1", x1, "x2", x2)
            dtype = jnp.result_type(x1, x2)
            if halvings and dtype == np.float64:
                _refuse_crash(name)
            values = kernels(x1.astype(dtype), x2.astype(dtype))
            found = {one: value.astype(dtype) for one, value in zip(("nngp", "ntk"), values, strict=True)}
        return found[get] if isinstance(get, str) else tuple(found[one] for one in wanted)

    made = {"init": init, "apply": apply, "kernel": kernel}
    return Architecture(name, width, n_outputs, pixel_power, **drawn, **made)


def _flat(name: str, pixel_power: int, halvings: int, argument: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape that a network takes: images as they are, or flattened; or an error."""
    shape = tuple(shape)
    if pixel_power and len(shape) != 4:
        raise ValueError(f"{name} wants {argument} as images (n, h, w, c), got shape {shape}")
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"{argument} must be a batch (n, ...) of at least one example, got shape {shape}")
    if pixel_power and argument != "x2":  # which has x1's shape, or is refused
        channels_last(argument, shape)
    if halvings and (shape[1] % 2**halvings or shape[2] % 2**halvings):
        raise ValueError(
            f"{name} wants {argument} with a height and a width that are multiples of {2**halvings}, "
            f"{2**halvings} at least, got {shape[1]} × {shape[2]}"
        )
    return shape if pixel_power else (shape[0], math.prod(shape[1:]))


def _refuse_crash(name: str) -> None:
    """XLA's code of this kernel for AVX-512 ends Python with a segmentation fault, at some shapes."""
    # jaxlib 0.10.2, myrtle(5) at 3 images of 8 × 8, myrtle(7) at 2 of 16 × 16; not with plain pooling.
    from numpy._core._multiarray_umath import __cpu_features__ as features

    if jax.default_backend() != "cpu" or not features.get("AVX512F"):
        return
    if "--xla_cpu_max_isa=" not in os.environ.get("XLA_FLAGS", ""):
        raise ValueError(
            f"{name} in float64 can end Python with a segmentation fault on this processor (XLA's code for "
            "AVX-512): pass x.astype(np.float32), or start Python with XLA_FLAGS=--xla_cpu_max_isa=AVX2"
        )
