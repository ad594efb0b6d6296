"""`poison`: training images moved a little, so that the kernel fitted to them generalizes badly."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core import geometry
from companion._core.checks import batch as examples
from companion._core.checks import class_labels, count, finite, number, random_key, same_inputs, within
from companion._core.compile import Kind, double
from companion._core.interrupt import deferred, safe_point
from companion._core.types import Kernel, Key, LossFunction
from companion.attacks import Loss, Threat, checked_threat, loss_named
from companion.guarantees._adjoint import fitted
from companion.guarantees._compiled import compiled_once
from companion.kernels import gram
from companion.regression import from_coefficients


@deferred()
def poison(
    kernel: Kernel,
    x: Float[Any, "n ..."],
    targets: Float[Any, "n k"],
    x_val: Float[Any, "m ..."],
    labels_val: Int[Any, " m"],
    threat: Threat,
    *,
    steps: int = 10,
    step_size: float | int | None = None,
    loss: Loss = "cross_entropy",
    ridge: float | int = 0.0,
    t: float | int = math.inf,
    kind: Kind = "ntk",
    key: Key | None = None,
    batch_size: int = 128,
    progress: bool = False,
) -> Float[np.ndarray, "n ..."]:
    """Move training images within a threat, so that the kernel fitted to them is wrong about other images.

    max_{x'_i in the threat of x_i} Σ_v loss(f(v), label of v), f the kernel regression on (x', Y) at time t
    with ridge ρ, by projected gradient ascent in all images at once; the labels stay. With G_v = ∂loss/∂f(v),
    α the coefficients and B = Θ(x', v) G, the gradient in an entry of the training kernel is

        M = −(Θ + ρI)⁻¹ B αᵀ,  at finite t  V [Φ ∘ (VᵀB)(VᵀY)ᵀ] Vᵀ,  Φ_ij = (g_i − g_j) / (λ_i − λ_j),

    g_i = (1 − e^{−(λ_i + ρ)t}) / (λ_i + ρ) and V the eigenvectors; in an entry of Θ(x', v) it is α Gᵀ.
    Both go through the kernel's own gradient for `batch_size` training images at a time:
    ∇_{x_i} = Σ_j (M + Mᵀ)_ij ∂Θ(x_i, x_j)/∂x_i + Σ_v (αGᵀ)_iv ∂Θ(x_i, v)/∂x_i.

    One step of size ε is what the authors' released code does, however many iterations it is told to do:
    each starts at the clean images. Many small steps are the ascent that the paper describes.

    Args:
        kernel: an `Architecture`, or a function kernel(x1, x2, get), compiled once for all steps. Its
            gradient must be finite at x1 = x2.
        x: clean training images (n, ...), within the threat's bounds.
        targets: Y, (n, k), as for `regression.fit`.
        x_val: images (m, ...) on which the attacker measures generalization; the more of them, the less the
            poison is a matter of these alone.
        labels_val: their classes (m,): 0 or 1 for one output, else in [0, k).
        threat: what may be done to every training image: norm, eps and bounds.
        steps: gradient steps, ≥ 1.
        step_size: in pixel units. None: 2.5 ε / steps, and ε for one step.
        loss: as for `attacks.pgd`; here it is climbed on the validation images.
        ridge: ρ ≥ 0 of the regression that is poisoned. Without one, and for large n, rounding decides the
            gradient: `regression.PrecisionWarning` says so.
        t: time of the regression that is poisoned.
        kind: "ntk" or "nngp".
        key: a JAX random key: start at a random point of the ball. None: at x itself.
        batch_size: training images of which the gradient is computed at once.
        progress: show a tqdm bar over the steps.

    Returns:
        Poisoned images in x's shape and precision, for the same targets: of all points that the ascent visits
        the one of largest loss, so that more steps of one size are never weaker on the validation images.
        Ball and bounds hold exactly.

    Raises:
        TypeError, ValueError: arguments that do not fit; pixels outside the bounds; a kernel that is not
            positive definite; NaN in its gradient.

    Cost of a step: n²/2 + n m kernel entries, the gradients of n (n + m) of them, and two Cholesky
    factorizations, 2n³/3; at finite t an eigendecomposition, 10 n³. Memory: an n² in x's precision and one in
    float64 (four at finite t), batch_size · (n + m) entries with their intermediate values, and a few copies
    of x; never a derivative of all entries in all pixels.
    Source: Yuan & Wu (2021), Neural Tangent Generalization Attacks; the ascent is their algorithm 1.

    >>> from companion.architectures import fc
    >>> from companion.attacks import Threat
    >>> x, y = np.array([[0.6, 0.2], [0.2, 0.6]], np.float32), np.array([[1.0], [-1.0]])
    >>> moved = poison(fc(1), x, y, x, np.array([1, 0]), Threat("linf", 0.25), steps=1, ridge=0.1)
    >>> moved - x  # away from the other class: the smallest f that fits Y is smaller now, on x too
    array([[ 0.25, -0.2 ],
           [-0.2 ,  0.25]], dtype=float32)
    """
    steps, batch_size = count("steps", steps), count("batch_size", batch_size)
    checked_threat(threat)
    if step_size is None:
        step_size = threat.eps * (2.5 / steps if steps > 1 else 1)
    step_size, ridge, t = (
        number("step_size", step_size),
        number("ridge", ridge),
        number("t", t, infinite=True),
    )
    kernel, score = compiled_once(kernel, kind), loss_named(loss)
    x, x_val = within("x", examples("x", x), threat.bounds), examples("x_val", x_val)
    same_inputs("x", x, "x_val", x_val)
    if np.ndim(targets) != 2 or len(targets) != len(x):
        raise ValueError(f"targets must have shape ({len(x)}, k), got {np.shape(targets)}")
    labels_val = class_labels("labels_val", labels_val, len(x_val), np.shape(targets)[-1])
    low, high = geometry.box(threat, x)
    bar = tqdm(total=steps, desc="poison", unit="step", disable=not progress)
    with double(x), bar:
        best, largest, now = x, -math.inf, x
        if key is not None:
            keys = jax.random.split(random_key("key", key), len(x))
            now = np.asarray(geometry.start(threat.norm, threat.eps, keys, x, low, high))
        for step in range(steps + 1):
            value, gradient = loss_and_gradient(
                kernel, now, targets, x_val, labels_val, loss=score, ridge=ridge, t=t, kind=kind
            )
            if value > largest:
                best, largest = now, value
            if step < steps:
                slope = gradient(batch_size)
                moved = geometry.step(threat.norm, slope, now, x, low, high, step_size, threat.eps)
                now = np.asarray(moved, x.dtype)
                bar.update()
                safe_point()
        return geometry.inside(threat, x, best) if threat.norm != "linf" else best


def loss_and_gradient(
    kernel: Kernel,
    x: np.ndarray,
    targets: np.ndarray,
    x_val: np.ndarray,
    labels_val: np.ndarray,
    *,
    loss: LossFunction,
    ridge: float,
    t: float,
    kind: Kind,
) -> tuple[float, Callable[[int], np.ndarray]]:
    """The mean loss on the validation images, and its gradient in x as a function of a batch's size."""
    k_val = gram(kernel, x_val, x, kind=kind).astype(np.float64)
    alpha, entries_of = fitted(gram(kernel, x, kind=kind), targets, ridge=ridge, t=t)
    outputs = finite("the outputs on x_val", k_val @ alpha)
    with double(outputs):
        value, slope = jax.value_and_grad(lambda out: loss(out, labels_val).mean())(jnp.asarray(outputs))
        slope = np.asarray(slope)

    def gradient(batch_size: int) -> np.ndarray:
        rows = entries_of(k_val.T @ slope)
        points = np.concatenate([x, x_val.astype(x.dtype)])
        found, size = np.empty_like(x), min(batch_size, len(x))
        for first in range(0, len(x), size):
            # The last batch overlaps the one before: one shape to compile.
            some = np.arange(first, first + size) - max(0, first + size - len(x))
            weights = np.concatenate([rows(some), alpha[some] @ slope.T], axis=1)
            # One function for each image of the batch, asked for its gradient at this image alone.
            each = from_coefficients(kernel, points, weights.T, kind=kind)
            found[some] = each.gradient(x[some], np.eye(size, dtype=x.dtype))
            safe_point()
        return found

    return float(value), gradient
