"""Words for signatures: what an argument is, where no shape need be said."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PyTree

Array = jax.Array | np.ndarray  # here or on a device, or being traced
Scalar = Array | np.generic | float | int  # one number, which may be traced
Key = Array  # a JAX random key
Variables = tuple[PyTree, PyTree]  # parameters and state of a network

Predict = Callable[[Array], Array]  # inputs (m, ...) to outputs (m, k)
Apply = Callable[[PyTree, Array], Array]  # a network: what it is made of, and inputs
LossFunction = Callable[[Array, Array], Array]  # outputs (m, k) and labels (m,) to values (m,)
# Of predict, inputs, labels, a key and the epoch: attacked inputs, or what a penalty adds to the loss.
InLoop = Callable[[Predict, Array, Array, Key, Scalar], Array]
KernelFunction = Callable[..., Array | tuple[Array, ...]]  # kernel(x1, x2, get), get "ntk", "nngp" or both


@runtime_checkable
class WithKernel(Protocol):
    """An `Architecture`, or anything else with a kernel of its own."""

    kernel: KernelFunction


Kernel = WithKernel | KernelFunction
