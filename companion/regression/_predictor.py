"""A kernel fitted to data: one object for outputs, gradients, times, ridges and the spectrum."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from companion._core.checks import count, finite, number
from companion._core.compile import Kind, double, kernel_function
from companion._core.types import Kernel
from companion._core.words import Unchecked
from companion.regression._checks import cross_kernel
from companion.regression._evaluate import (
    Evaluate,
    all_gradients,
    compiled,
    default_batch,
    in_blocks,
    weighted_gradient,
)
from companion.regression._spectrum import finite_gains, warn_if_lost


@dataclass(frozen=True, eq=False)
class KernelPredictor:
    """f_t(x) = Θ(x, X) α_t, from `fit`: a function of inputs (m, ...) with outputs (m, k).

    Call it, differentiate it, attack it; `at` and `with_ridge` give the same fit at another time and with
    another ridge, and share everything with it. To JAX it is a pytree of X and α: inside `jax.jit`, pass it
    as an argument, `jax.jit(lambda f, x: f(x))(f, x)`; there it can be called, and has no spectrum. The sum
    over training points runs in blocks, forwards and backwards: of a block's part of Θ(x, X) only matrix
    products are kept for the gradient, and the rest is computed again, in "highest" matmul precision.

    Attributes:
        kernel: an `Architecture`, a function kernel(x1, x2, get), or None for a fit of a matrix alone.
        x_train: training inputs X, (n, ...); their precision is that of the outputs; float64 needs JAX's x64
            mode. None for a fit of a matrix alone.
        kind: "ntk", or "nngp" for regression with the covariance at initialization.
        ridge: ρ ≥ 0, in the kernel's units, added to every eigenvalue wherever the kernel is inverted.
        t: time of the gradient flow, ∞ where it has ended.
        eigenvalues: λ_i of Θ(X, X), without the ridge, descending, (q,), float64: all n, or the leading ones
            that `Top` found, and then f is the sum of their features. None, as the next two, where
            coefficients were given or solved for.
        eigenvectors: v_i in the columns, (n, q).
        projections: v_iᵀ Y, (q, k).
        resolution: rounding error of Θ(X, X) in the units of λ (`fit` says how it is estimated).
        batch_size: training points in a block; None for at most 1,024, and fewer where a kernel entry takes
            memory for every pixel or pair of pixels.
        given: coefficients that were given, solved for, or of some features alone; None where those of all of
            the spectrum at this time and ridge are meant.

    Cost: O(m n d) time for outputs with a fully connected kernel, about twice that with a gradient. Memory: X
    once on the device, m · batch_size kernel entries with their intermediate values, and with a gradient
    m · n numbers.
    Source: Lee et al. (2019), arXiv 1902.06720, eqs. 10-11.

    >>> from companion.regression import fit
    >>> x = np.eye(2, dtype=np.float32)
    >>> f = fit(lambda a, b, get: a @ b.T, x, np.array([[2.0], [3.0]]))
    >>> f(jnp.ones((1, 2))), f.at(np.log(2)).coefficients.ravel()
    (Array([[5.]], dtype=float32), array([1. , 1.5]))
    """

    kernel: Kernel | None = None
    x_train: Float[np.ndarray, "n ..."] | None = None
    kind: Kind = "ntk"
    ridge: float = 0.0
    t: float = math.inf
    eigenvalues: Float[np.ndarray, " q"] | None = None
    eigenvectors: Float[np.ndarray, "n q"] | None = None
    projections: Float[np.ndarray, "q k"] | None = None
    resolution: float = 0.0
    batch_size: int | None = None
    given: Float[np.ndarray, "n k"] | None = None

    def __post_init__(self) -> None:
        """Hand out no array that could be written to: all times and ridges of a fit share them."""
        for name in ("eigenvalues", "eigenvectors", "projections", "given"):
            array = getattr(self, name)
            if isinstance(array, np.ndarray):
                object.__setattr__(self, name, _fixed(array))

    def __getstate__(self) -> dict[str, PyTree]:
        """All but what is compiled or lies on a device, which is made again when it is needed."""
        made = "_evaluate", "_x_blocks", "_arrays"
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __call__(self, x: Float[Any, "m ..."]) -> Float[jax.Array, "m k"]:
        """f_t(x), (m, k).

        Raises:
            TypeError: inputs that are neither float32 nor float64 (float64 ones are rounded to a float32 f's
                precision); a fit of a matrix alone, which knows no inputs.
            ValueError: inputs of another shape; float64 X where JAX computes in float32.
        """
        return self._evaluate(*self._arrays, x)

    def __repr__(self) -> str:
        """Say what it is in a line; the arrays are its attributes."""
        if self.kernel is None and self.given is None and self.eigenvalues is None:
            return "KernelPredictor(inside JAX)"
        k = (self.given if self.given is not None else self.projections).shape[1]
        n = len(self.given if self.given is not None else self.eigenvectors)
        name = getattr(self.kernel, "name", None) or getattr(self.kernel, "__qualname__", "a matrix")
        return f"KernelPredictor({name}, {self.kind}, n={n}, outputs={k}, ridge={self.ridge:g}, t={self.t:g})"

    def at(self, t: float) -> "KernelPredictor":
        """The same fit at another time.

        Args:
            t: time ≥ 0 of the gradient flow for ½ Σ_i ‖f(x_i) − y_i‖²; infinity is the end. Gradient descent
                with learning rate η has reached t = η · steps.

        Returns:
            A predictor that shares all arrays with this one. No cost until it is used.

        Raises:
            TypeError, ValueError: t that is no number ≥ 0; coefficients without a spectrum.

        Source: Jacot et al. (2018), arXiv 1806.07572, section 5.
        """
        return self._again(t=number("t", t, infinite=True))

    def with_ridge(self, ridge: float) -> "KernelPredictor":
        """The same fit with another ridge in place of the old one: f_∞ solves (Θ(X, X) + ρI) α = Y.

        Args:
            ridge: ρ ≥ 0, in the kernel's units; 0 takes it away.

        Returns:
            A predictor that shares all arrays with this one. No cost until it is used.

        Raises:
            TypeError, ValueError: a ridge that is no finite number ≥ 0; coefficients without a spectrum.
        """
        return self._again(ridge=number("ridge", ridge))

    def _again(self, **changes: float) -> "KernelPredictor":
        """The same decomposition, its X on the device included where it is there already."""
        other = dataclasses.replace(decomposed(self), given=None, **changes)
        if "_x_blocks" in self.__dict__:
            other.__dict__["_x_blocks"] = self._x_blocks
        return other

    @functools.cached_property
    def coefficients(self) -> Float[np.ndarray, "n k"]:
        """α_t = Σ_i v_i (1 − e^{−(λ_i + ρ)t}) / (λ_i + ρ) · v_iᵀ Y, float64, so that f_t(x) = Θ(x, X) α_t.

        Where λ_i + ρ is below n ε λ_max, with ε of float64, it is rounding: it counts as 0, and at t = ∞ such
        modes are left out, as in a pseudo-inverse. Cost O(n² k), once.

        Warns:
            PrecisionWarning: where `rounding_error` passes 0.1: the second digit is not certain.
        """
        if self.given is not None:
            return self.given
        gain = finite_gains(decomposed(self))
        warn_if_lost(self, stacklevel=3)
        return _fixed(self.eigenvectors @ (gain[:, None] * self.projections))

    def from_kernel(self, k_test_train: Float[np.ndarray, "m n"]) -> Float[np.ndarray, "m k"]:
        """f_t(x) = Θ(x, X) α_t in float64, from a cross-kernel that exists already.

        Args:
            k_test_train: Θ(x, X), (m, n), as `kernels.gram(kernel, x, x_train)` gives it.

        Returns:
            Outputs (m, k), float64.

        Raises:
            ValueError: a kernel matrix whose columns are not the training points.

        Warns:
            PrecisionWarning: as `coefficients`.

        Cost: O(n² k) once, and O(m n k).
        """
        alpha = self.coefficients
        return cross_kernel(k_test_train, len(alpha)) @ alpha

    def gradient(
        self, x: Float[Any, "m ..."], weights: Float[Any, "m k"] | None = None
    ) -> Float[jax.Array, "m ..."]:
        """Gradients of the outputs in the inputs: of one combination for each input, or of all outputs.

        With weights, ∇_x Σ_c w_c f_c(x) at every input, which is all that a gradient of a loss needs
        (w_c = ∂loss/∂f_c). Without, ∇_x f_c(x) for every output c.

        Args:
            x: inputs (m, ...).
            weights: w, (m, k), or None.

        Returns:
            With weights the shape of x; without, (m, k, ...): x's shape with an axis of outputs after the
            first.

        Raises:
            ValueError: weights that are not (m, k).

        Cost: with weights about two evaluations of f. Without, the kernel's part once and k backward passes
        at once, in k times the memory.

        >>> from companion.regression import fit
        >>> f = fit(lambda a, b, get: a @ b.T, np.eye(2, dtype=np.float32), np.array([[2.0], [3.0]]))
        >>> f.gradient(jnp.ones((1, 2)))
        Array([[[2., 3.]]], dtype=float32)
        """
        # For derivatives that a kernel defines by itself: JAX calls them after f has set the precision back.
        with double(self), jax.default_matmul_precision("highest"):
            found = all_gradients(self, x) if weights is None else weighted_gradient(self, x, weights)
        if not isinstance(found, jax.core.Tracer) and not jnp.isfinite(found).all():
            finite("f's gradient in its inputs", np.asarray(found))
        return found

    @functools.cached_property
    def _evaluate(self) -> Evaluate:
        if self.kernel is None:
            raise TypeError(
                "this fit is of a matrix alone and knows no inputs: give fit the kernel and x too, "
                "fit(kernel, x, targets, k_train_train=matrix), or use from_kernel(k_test_train)"
            )
        return compiled(kernel_function(self.kernel, self.kind), self.kind)

    @functools.cached_property
    def _x_blocks(self) -> jax.Array:
        """X in blocks, on the device."""
        if self.x_train is None:
            raise TypeError("this fit is of a matrix alone and knows no inputs")
        if self.x_train.dtype == np.float64 and not jax.config.jax_enable_x64:
            raise ValueError(
                "x_train is float64, and JAX computes in float32: pass x_train.astype(np.float32), or switch "
                'float64 on with jax.config.update("jax_enable_x64", True)'
            )
        given = self.batch_size
        limit = default_batch(self.kernel, self.x_train) if given is None else given
        with jax.ensure_compile_time_eval():  # kept, so no part of a trace that closes over f
            return jnp.asarray(in_blocks(self.x_train, count("batch_size", limit), fill=self.x_train[-1]))

    @functools.cached_property
    def _arrays(self) -> tuple[jax.Array, jax.Array]:
        """X and α in blocks, on the device."""
        x, alpha = self._x_blocks, self.coefficients.astype(self.x_train.dtype)
        with jax.ensure_compile_time_eval():
            return x, jnp.asarray(in_blocks(alpha, x.shape[1], fill=0))


def _fixed(array: np.ndarray) -> np.ndarray:
    """The same numbers, not to be written to."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.setflags(write=False)
    return view


def _flatten(f: KernelPredictor) -> tuple[Sequence[PyTree], Evaluate]:
    return f._arrays, f._evaluate


def _unflatten(evaluate: Evaluate, arrays: Sequence[PyTree]) -> KernelPredictor:
    f = KernelPredictor()
    f.__dict__.update(_arrays=tuple(arrays), _evaluate=evaluate)
    return f


jax.tree_util.register_pytree_node(KernelPredictor, _flatten, _unflatten)


def checked(f: Unchecked, name: str = "f") -> KernelPredictor:
    """A predictor as `fit` gives it, or a TypeError."""
    if not isinstance(f, KernelPredictor):
        got = getattr(getattr(f, "func", f), "__qualname__", type(f).__name__)
        raise TypeError(f"{name} must come from regression.fit, got {got}")
    return f


def decomposed(f: Unchecked, name: str = "f") -> KernelPredictor:
    """A predictor that has a spectrum, or an error that says how to have one."""
    if checked(f, name).eigenvalues is None:
        raise TypeError(
            f"{name} has coefficients and no spectrum: fit with solver='eigh', outside of jax.jit"
        )
    return f


def whole(f: Unchecked, name: str = "f") -> KernelPredictor:
    """A predictor that has all of its spectrum, or an error that says how to have it."""
    n, found = decomposed(f, name).eigenvectors.shape
    if found < n:
        raise TypeError(f"{name} has {found} of {n} eigenpairs: fit with solver='eigh'")
    return f
