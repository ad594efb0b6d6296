"""Words for signatures: what an argument is, where no shape need be said; more of them in `words`."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PyTree

Array = jax.Array | np.ndarray  # here or on a device, or being traced
Scalar = Array | np.generic | float | int  # one number, which may be traced
Key = Array  # a JAX random key

Params = PyTree  # what is trained in a network, of any library: arrays in containers of any kind
State = PyTree  # what a network or an optimizer carries along, such as running statistics
Variables = tuple[Params, State]
Init = Callable[[Key, Array], Variables]  # inputs like those to come
# of params, state, inputs, and whether in training mode
ApplyModel = Callable[[Params, State, Array, bool], tuple[Array, State]]

Layer = Callable[[Array], Array]  # activations (m, ..., c) to activations
Predict = Callable[[Array], Array]  # inputs (m, ...) to outputs (m, k)
Apply = Callable[[Params, Array], Array]  # a network: what it is made of, and inputs
LossFunction = Callable[[Array, Array], Array]  # outputs (m, k) and labels (m,) to values (m,)
# Of predict, inputs, labels, a key and the epoch: attacked inputs, or what a penalty adds to the loss.
InLoop = Callable[[Predict, Array, Array, Key, Scalar], Array]
NetworkKernel = Callable[..., np.ndarray]  # kernel_fn(params, x1, x2=None), as `empirical_ntk_fn` makes it
KernelFunction = Callable[..., Array | tuple[Array, ...]]  # kernel(x1, x2, get), get "ntk", "nngp" or both


@runtime_checkable
class WithKernel(Protocol):
    """An `Architecture`, or anything else with a kernel of its own."""

    kernel: KernelFunction


Kernel = WithKernel | KernelFunction
