"""PyTorch modules as functions that JAX can differentiate."""

import contextlib
import functools
import itertools
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import jax
import numpy as np
from jax.tree_util import Partial

from companion._core.checks import count
from companion._core.extras import missing
from companion._core.types import Array
from companion._core.words import Unchecked

# PyTorch's own: it is not imported before a module of it is given.
Module = Callable
Tensor = Device = object


def from_torch(module: Unchecked, *, batch_size: int = 512) -> Partial:
    """A PyTorch module as a function of inputs that JAX differentiates, for every attack here.

    predict(x) = module(x), and ∂⟨v, predict(x)⟩/∂x by PyTorch's own autograd. It works inside `jax.jit`,
    loops and `jax.vmap`, and always has the weights that the module has when it is called.

    Only x has a derivative, and only a first one, in reverse mode: the empirical NTK and training of the
    module's weights are not for it. Compute those in PyTorch, or with a network of JAX.

    Args:
        module: a `torch.nn.Module` of float32, on the CPU or a GPU; from one tensor (n, ...) to one (n, k).
            It runs in evaluation mode, and is put back into its own mode, submodule by submodule. Gradients
            kept in its parameters stay as they are.
        batch_size: examples that it takes at once.

    Returns:
        A function of float32 x (n, ...), laid out as the module takes it (images of PyTorch have their
        channels first), with outputs (n, k), to be given to attacks and to `transfer` as `predict`.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: no module; parameters that are not float32. When called: inputs that are not float32,
            outputs that are not one tensor of float32.
        ValueError: when called: outputs that are not (n, k). NaN and infinity pass, as from every function of
            JAX, and attacks refuse them.

    Cost: the module's own forward pass, and for gradients one more with its backward pass; inputs and outputs
    go through the computer's memory.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise missing("torch") from error
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {module!r}")
    bridge = _Bridge(torch, module, count("batch_size", batch_size))
    _float32(bridge)

    @jax.custom_vjp
    def outputs(x: Array) -> Array:
        k = bridge.n_outputs(x.shape[1:])
        run = functools.partial(bridge.outputs, x.ndim - 1)
        shape = jax.ShapeDtypeStruct((x.shape[0], k), np.float32)
        return jax.pure_callback(run, shape, x, vmap_method="broadcast_all")

    def backward(x: Array, cotangent: Array) -> tuple[Array]:
        run = functools.partial(bridge.gradients, x.ndim - 1)
        shape = jax.ShapeDtypeStruct(x.shape, np.float32)
        return (jax.pure_callback(run, shape, x, cotangent, vmap_method="broadcast_all"),)

    outputs.defvjp(lambda x: (outputs(x), x), backward)

    def predict(x: Unchecked) -> Array:
        _check_inputs(x)
        return outputs(x)

    # A pytree without leaves: what attacks compile for it is kept, and asks the module anew at every call.
    return Partial(predict)


@dataclass(frozen=True)
class _Bridge:
    """NumPy arrays in, the module's outputs and gradients as NumPy arrays out."""

    torch: types.ModuleType
    module: Module
    batch_size: int
    # JAX may call from several threads, and each changes the module's mode for a moment.
    lock: contextlib.AbstractContextManager = field(default_factory=threading.RLock)

    def tensors(self) -> Iterator[Tensor]:
        return itertools.chain(self.module.parameters(), self.module.buffers())

    def n_outputs(self, shape: tuple[int, ...]) -> int:
        """k, which a single example of zeros tells while JAX traces."""
        return self.run(np.zeros((1, *shape), np.float32))[0].shape[1]

    def outputs(self, ndim: int, x: Array) -> np.ndarray:
        flat, lead = _flat(x, ndim)
        return _joined([self.run(part)[0] for part in self.parts(flat)], lead)

    def gradients(self, ndim: int, x: Array, cotangent: Array) -> np.ndarray:
        flat, lead = _flat(x, ndim)
        weights, _ = _flat(cotangent, 1)
        both = zip(self.parts(flat), self.parts(weights), strict=True)
        return _joined([self.run(*part)[1] for part in both], lead)

    def parts(self, array: np.ndarray) -> list[np.ndarray]:
        return [array[i : i + self.batch_size] for i in range(0, max(1, len(array)), self.batch_size)]

    def run(self, x: np.ndarray, cotangent: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Outputs of one batch, and the gradient of their product with the cotangent if there is one."""
        torch, backwards = self.torch, cotangent is not None
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.lock)
            stack.enter_context(_evaluating(self.module))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(backwards))
            device = next((tensor.device for tensor in self.tensors()), "cpu")
            point = self.tensor(x, device).requires_grad_(backwards)
            outputs = self.module(point.clone())  # PyTorch lets no layer write into a leaf
            _check_outputs(torch, outputs, len(x))
            gradient = None
            if outputs.requires_grad:
                weights = self.tensor(cotangent, device)
                (gradient,) = torch.autograd.grad(outputs, point, weights, allow_unused=True)
        return _array(outputs), np.zeros_like(x) if gradient is None else _array(gradient)

    def tensor(self, array: np.ndarray, device: Device) -> Tensor:
        # A copy, which PyTorch may write to. Older versions cannot talk to NumPy 2 but by DLPack.
        return self.torch.from_dlpack(np.array(array, np.float32, order="C")).to(device)


@contextlib.contextmanager
def _evaluating(module: Module) -> Iterator[None]:
    modes = [(one, one.training) for one in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for one, training in modes:
            one.training = training


def _float32(bridge: _Bridge) -> None:
    for tensor in bridge.tensors():
        if tensor.is_floating_point() and tensor.dtype != bridge.torch.float32:
            raise TypeError(f"module must hold float32, got {tensor.dtype}: module.float() makes it so")


def _check_inputs(x: Unchecked) -> None:
    dtype, shape = getattr(x, "dtype", None), np.shape(x)
    if dtype != np.float32:
        raise TypeError(f"x must be float32, as PyTorch's weights are, got {dtype or type(x).__name__}")
    if len(shape) < 2:
        raise ValueError(f"x must be a batch (n, ...), got shape {shape}")


def _check_outputs(torch: types.ModuleType, outputs: Unchecked, n: int) -> None:
    if not isinstance(outputs, torch.Tensor) or outputs.dtype != torch.float32:
        got = getattr(outputs, "dtype", type(outputs).__name__)
        raise TypeError(f"module must return one tensor of float32, got {got}")
    if outputs.ndim != 2 or len(outputs) != n:
        raise ValueError(f"module must return outputs (n, k), got {tuple(outputs.shape)} for {n} inputs")


def _flat(array: Array, ndim: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """A batch of all examples, and the axes that they came in: `vmap` puts its own before those."""
    array = np.asarray(array)
    lead = array.shape[: array.ndim - ndim]
    return array.reshape(-1, *array.shape[array.ndim - ndim :]), lead


def _joined(parts: list[np.ndarray], lead: tuple[int, ...]) -> np.ndarray:
    array = np.concatenate(parts)
    return array.reshape(*lead, *array.shape[1:])


def _array(tensor: Tensor) -> np.ndarray:
    return np.from_dlpack(tensor.detach().cpu().contiguous())
