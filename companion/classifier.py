"""Kernel classification for scikit-learn: its pipelines, searches and cross-validation, on kernels of here.

`NTKClassifier` is thin: `regression.fit` on ±1 or centered one-hot targets, and the class of the largest
output. It needs scikit-learn, which nothing else in the package imports.
"""

import math

import jax
import numpy as np

from companion._core.checks import predicted
from companion._core.compile import Kind
from companion._core.extras import missing
from companion._core.types import Kernel
from companion._core.words import Unchecked
from companion.architectures import fc
from companion.data import targets
from companion.kernels import gram
from companion.regression import KernelPredictor, fit, from_coefficients

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ModuleNotFoundError as error:
    raise missing("scikit-learn", "data") from error

__all__ = ["NTKClassifier"]


class NTKClassifier(ClassifierMixin, BaseEstimator):
    """Kernel regression on the classes, as a scikit-learn classifier.

    f_t(x) = Θ(x, X) α_t as for `regression.fit`, one output for two classes and k for k > 2; the class is the
    sign or the largest. There is no `predict_proba`: outputs of a squared loss are no probabilities.

    Args:
        kernel: an `Architecture`, or a function kernel(x1, x2, get); None for `fc(1)`.
        ridge: ρ ≥ 0, added to the kernel's diagonal, in its units.
        kind: "ntk" or "nngp".
        t: time of the gradient flow; infinity is the end.

    After `fit` it has `classes_`, the labels (k,), sorted; `x_train_`, the inputs X (n, ...), flat or images
    (n, h, w, c); `coefficients_`, α_t, (n, 1) or (n, k) in float64; and `n_features_in_`, of X's second axis.

    Pickled, copied and sent to other processes as any estimator; with an `Architecture` or a function defined
    in another one as `kernel` that takes cloudpickle, as joblib has it.

    Cost: `regression.fit`'s, O(n³); every prediction computes Θ(x, X).

    >>> x, y = np.array([[0.0], [1.0], [2.0]]), np.array(["low", "low", "high"])
    >>> NTKClassifier(ridge=1e-3).fit(x, y).predict([[3.0]])
    array(['high'], dtype='<U4')
    """

    def __init__(
        self,
        kernel: Kernel | None = None,
        *,
        ridge: float = 0.0,
        kind: Kind = "ntk",
        t: float = math.inf,
    ) -> None:
        self.kernel = kernel
        self.ridge = ridge
        self.kind = kind
        self.t = t

    def fit(self, X: Unchecked, y: Unchecked) -> "NTKClassifier":
        """Find the coefficients.

        Args:
            X: inputs (n, ...), finite; what is neither float32 nor float64 becomes float64.
            y: labels (n,), of two classes or more.

        Returns:
            Itself.

        Raises:
            TypeError, ValueError: arrays that do not fit, one class alone, and what `regression.fit` refuses.

        Warns:
            regression.PrecisionWarning: where the kernel's rounding spoils the solution.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], allow_nd=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have two classes or more, got 1 class, {self.classes_[0]}")
        f = fit(self._kernel, X, targets(labels, len(self.classes_)), ridge=float(self.ridge), kind=self.kind)
        self.x_train_, self.coefficients_ = X, f.at(float(self.t)).coefficients
        return self

    def decision_function(self, X: Unchecked) -> np.ndarray:
        """Outputs f_t(x), float64: (m,) for two classes, positive for the second; else (m, k).

        Args:
            X: inputs (m, ...), like those of `fit`.

        Raises:
            TypeError, ValueError: inputs that do not fit; no `fit` before (sklearn's NotFittedError).
        """
        outputs = self._outputs(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def predict(self, X: Unchecked) -> np.ndarray:
        """Labels (m,) of inputs (m, ...); arguments and errors are those of `decision_function`."""
        classes = predicted(self._outputs(X))
        return self.classes_[classes]

    @property
    def predictor(self) -> KernelPredictor:
        """The same function for JAX, to differentiate and attack; its labels are indices of `classes_`.

        In float32 where JAX computes in no more, whatever the precision of the inputs of `fit`.
        """
        check_is_fitted(self)
        x = self.x_train_ if jax.config.jax_enable_x64 else self.x_train_.astype(np.float32)
        return from_coefficients(self._kernel, x, self.coefficients_, kind=self.kind)

    @property
    def _kernel(self) -> Kernel:
        return fc(1) if self.kernel is None else self.kernel

    def _outputs(self, X: Unchecked) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], allow_nd=True, reset=False)
        return gram(self._kernel, X, self.x_train_, kind=self.kind) @ self.coefficients_
