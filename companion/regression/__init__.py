"""Kernel regression under gradient flow: one object that is called, differentiated, stopped early, attacked.

`fit(kernel, x, targets)` gives a `KernelPredictor` f: `f(x)`, `f.at(t)`, `f.with_ridge(ρ)`, `f.gradient(x)`,
`f.coefficients`, and its spectrum. Attacks, features and transfer take it. The functions here say
what of the targets is learned when, what each eigenvector brings, and what the kernel's rounding spoils.
"""

from companion.regression._checks import PrecisionWarning
from companion.regression._cholesky import Cholesky
from companion.regression._fit import fit, from_coefficients
from companion.regression._logistic import fit_logistic
from companion.regression._modes import (
    coefficient_matrix,
    condition_number,
    contributions,
    learned_fraction,
    rounding_error,
    target_energy,
)
from companion.regression._modes import mode_indices as mode_indices
from companion.regression._plan import Plan, plan
from companion.regression._predictor import KernelPredictor
from companion.regression._predictor import checked as checked
from companion.regression._predictor import decomposed as decomposed
from companion.regression._predictor import whole as whole
from companion.regression._robust import fit_robust
from companion.regression._spectrum import finite_gains as finite_gains
from companion.regression._spectrum import shifted as shifted
from companion.regression._spectrum import warn_if_lost as warn_if_lost
from companion.regression._top import Top

# What is imported and not listed here is for other packages of companion.
__all__ = [
    "Cholesky",
    "KernelPredictor",
    "Plan",
    "PrecisionWarning",
    "Top",
    "coefficient_matrix",
    "condition_number",
    "contributions",
    "fit",
    "fit_logistic",
    "fit_robust",
    "from_coefficients",
    "learned_fraction",
    "plan",
    "rounding_error",
    "target_energy",
]
