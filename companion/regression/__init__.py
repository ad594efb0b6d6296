"""Kernel regression under gradient flow: f_t in closed form from one eigendecomposition.

Time is the gradient flow's own, for the loss ½ Σ_i ‖f(x_i) − y_i‖² (a sum, not a mean), plus ½ ρ ‖f‖² in the
kernel's norm where there is a ridge ρ. Gradient descent with learning rate η has reached t = η · steps.

`fit` decomposes once; everything after it is cheap for any time and ridge. `solve` is for t = ∞ alone, some
six times faster. Gradients in the inputs are in `companion.regression`.
"""

from companion.regression._checks import PrecisionWarning
from companion.regression._cholesky import solve
from companion.regression._flow import coefficient_matrix, coefficients, fit, predict, with_ridge
from companion.regression._modes import (
    KernelRegression,
    condition_number,
    contributions,
    learned_fraction,
    rounding_error,
    target_energy,
)

# For other rooms.
from companion.regression._modes import checked as checked
from companion.regression._modes import finite_gains as finite_gains
from companion.regression._modes import mode_indices as mode_indices
from companion.regression._predictor import input_gradient, predictor

__all__ = [
    "KernelRegression",
    "PrecisionWarning",
    "coefficient_matrix",
    "coefficients",
    "condition_number",
    "contributions",
    "fit",
    "input_gradient",
    "learned_fraction",
    "predict",
    "predictor",
    "rounding_error",
    "solve",
    "target_energy",
    "with_ridge",
]
