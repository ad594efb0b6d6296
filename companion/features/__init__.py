"""Eigenfeatures of a kernel: which are useful or robust, how they look, and what two kernels share.

Kernel regression is a sum of features, f_∞ = Σ_i f⁽ⁱ⁾ with f⁽ⁱ⁾(x) = λ_i⁻¹ Θ(x, X) v_i v_iᵀ Y, one for each
eigenvector of the training kernel. Each is a classifier of its own, with an accuracy ρ_i (its usefulness) and
an accuracy γ_i under an attack of its own (its robustness). Chapter 3 uses all of it.

All functions take the predictor of `regression.fit`, at its own time and ridge; `classifier` makes one of
some of its features, which `companion.attacks` takes as any other.
"""

from companion.features._attack import correct_under_attack
from companion.features._classifier import attack_shares, class_difference, classifier, exciting
from companion.features._determined import determined_dataset
from companion.features._means import mean_accuracy, mean_correlation
from companion.features._modes import correct, outputs
from companion.features._overlap import match, principal_angles
from companion.features._tests import Correlation, Usefulness, correlation, holm, usefulness

__all__ = [
    "Correlation",
    "Usefulness",
    "attack_shares",
    "class_difference",
    "classifier",
    "correct",
    "correct_under_attack",
    "correlation",
    "determined_dataset",
    "exciting",
    "holm",
    "match",
    "mean_accuracy",
    "mean_correlation",
    "outputs",
    "principal_angles",
    "usefulness",
]
