"""Functions under attack: checked_inputs, compiled where JAX can, and evaluated in batches."""

import collections
import functools
from collections.abc import Iterator

import jax
import numpy as np
from jax.tree_util import Partial

from companion._core.checks import batch as examples
from companion._core.checks import class_labels, count, finite, within
from companion._core.compile import double, is_kept, refuse_mixing
from companion._core.interrupt import safe_point
from companion._core.types import Array, LossFunction, Predict
from companion._core.words import Unchecked
from companion.architectures import Architecture
from companion.attacks._losses import loss_named
from companion.regression import KernelPredictor


def has_kept_code(predict: Unchecked) -> bool:
    """Whether compiled code is kept for a function: it was marked so, or JAX sees into it.

    That is a kernel predictor, a `Partial`, a module that is a pytree.
    """
    return is_kept(predict) or not jax.tree_util.all_leaves([predict])


def as_partial(predict: Predict) -> Partial:
    """A pytree function, with compiled code of its own where none is to be kept."""
    if isinstance(predict, Partial):
        return predict
    if is_kept(predict):
        return Partial(predict)
    return Partial(_call, predict) if has_kept_code(predict) else Partial(lambda x: predict(x))


def _call(predict: Predict, x: Array) -> Array:
    return predict(x)


def checked_inputs(
    predict: Unchecked,
    x: Unchecked,
    labels: Unchecked,
    bounds: tuple[float, float] | None = None,
    *,
    loss: Unchecked = "margin",
    name: str = "predict",
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and int32 labels that fit each other, the function and the bounds; or an error.

    The functions are asked for shapes, and `predict` whether an example's outputs are its own: all attacks
    rely on it.
    """
    if not callable(predict):
        got = repr(predict) if isinstance(predict, int | float | str) else type(predict).__name__
        inside = f": give {name}.predictor" if hasattr(type(predict), "predictor") else ""
        if hasattr(predict, "init") and hasattr(predict, "apply"):
            inside = f": give networks.predict_fn({name}, variables)"
        raise TypeError(f"{name} must be a function of inputs (m, ...), got {got}{inside}")
    if any(kind.__module__.startswith("torch.") for kind in type(predict).__mro__):
        raise TypeError(
            f"{name} is a module of PyTorch: give networks.from_torch({name}), which JAX sees into"
        )
    if hasattr(type(predict), "bind") and getattr(predict, "scope", predict) is None:
        raise TypeError(
            f"{name} is a Flax module without variables: give "
            f"networks.predict_fn(networks.from_flax({name}), variables)"
        )
    x = examples("x", x)
    if bounds is not None:
        within("x", x, bounds)
    labels = class_labels("labels", labels, len(x))
    with double(x, predict):
        spec = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
        try:
            outputs = jax.eval_shape(predict, spec)
        except jax.errors.TracerArrayConversionError as error:
            raise TypeError(
                f"{name} computes with NumPy, which JAX cannot see into: write it with jax.numpy. Where no "
                "gradient is taken (square), jax.pure_callback makes a function of it"
            ) from error
        shape = getattr(outputs, "shape", None)
        if shape is None or len(shape) != 2 or shape[0] != 1:
            raise ValueError(
                f"{name} must return outputs (m, k) for inputs (m, ...), got {shape} for one input"
                f"{': add an axis, outputs[:, None]' * (shape == (1,))}"
            )
        if not jax.numpy.issubdtype(outputs.dtype, jax.numpy.floating):
            raise TypeError(f"{name} must return outputs of floating point, got {outputs.dtype}")
        values = jax.eval_shape(loss_named(loss), outputs, jax.ShapeDtypeStruct((1,), np.int32))
        if getattr(values, "shape", None) != (1,):
            raise ValueError(f"loss must return values (m,) for outputs (m, k), got {values} for one input")
        _refuse_mixing(name, predict, x)
    return x, class_labels("labels", labels, len(x), shape[1])


def _refuse_mixing(name: str, predict: Predict, x: np.ndarray) -> None:
    """Ask a function once, of two inputs; one that JAX knows as the same is not asked again.

    Nor is a predictor with a kernel of ours, whose examples are their own.
    """
    if isinstance(getattr(predict, "kernel", None), Architecture):
        return
    kept = has_kept_code(predict)
    known = (jax.tree.structure(as_partial(predict)), x.shape[1:], x.dtype) if kept else None
    if len(x) < 2 or known in _ASKED:
        return
    together, alone = (np.asarray(_outputs(predict, two)) for two in (x[:2], x[[0, 0]]))
    refuse_mixing(
        name,
        together[0],
        alone[0],
        cure="An attack on one example would move by another: use a network in evaluation mode",
    )
    if known is not None:
        _ASKED.append(known)


_ASKED: collections.deque[tuple] = collections.deque(maxlen=256)


def some_at_once(batch_size: int | None) -> int:
    """Examples at once of an attack whose examples drop out: small batches have little to fill up."""
    if batch_size is None:
        return 64 if jax.default_backend() == "cpu" else 256
    return count("batch_size", batch_size)


def in_batches(index: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Parts of `size`, one shape to compile: what the last lacks is filled up with its own first entry.

    Ctrl-C ends between two of them, where the caller keeps it from ending elsewhere.
    """
    for first in range(0, len(index), size):
        part = index[first : first + size]
        yield np.concatenate([part, np.repeat(part[:1], size - len(part))])
        safe_point()


def outputs_of(predict: Predict, x: Unchecked, batch_size: int) -> np.ndarray:
    """Outputs (m, k) of any function of arrays, in "highest" matmul precision; a kept one is compiled."""
    x = examples("x", x)
    with double(x, predict):
        parts = [
            (some, np.asarray(_outputs(predict, x[some])))
            for some in in_batches(np.arange(len(x)), min(batch_size, len(x)))
        ]
    for some, values in parts:
        if values.ndim != 2 or len(values) != len(some):
            raise ValueError(
                f"predict must return outputs (m, k) for inputs (m, ...), got {values.shape} for {len(some)}"
            )
    outputs = np.empty((len(x), *parts[0][1].shape[1:]), parts[0][1].dtype)
    for some, values in parts:
        outputs[some] = values
    return finite("predict's outputs", outputs)


def _outputs(predict: Predict, x: np.ndarray) -> Array:
    if has_kept_code(predict):
        return compiled_outputs(as_partial(predict), x)
    with jax.default_matmul_precision("highest"):
        return predict(x)


def compiled_outputs(predict: Partial, x: Array | np.ndarray) -> Array:
    """Outputs in "highest" matmul precision; of one shape all that ask for them share the compiled code.

    A kernel predictor has its own, in this precision, which it shares with whoever calls it.
    """
    if predict.func is _call and isinstance(predict.args[0], KernelPredictor):
        return predict.args[0](x)
    with jax.default_matmul_precision("highest"):
        return _compiled(predict, x)


@functools.partial(jax.jit, static_argnames="loss")
def loss_gradient(predict: Partial, x: Array, labels: Array, *, loss: LossFunction) -> Array:
    """∇ₓ of the loss at every input."""
    with jax.default_matmul_precision("highest"):
        return jax.grad(lambda x: loss(predict(x), labels).sum())(x)


@jax.jit
def _compiled(predict: Predict, x: Array) -> Array:
    return predict(x)
