"""The classifier for scikit-learn keeps its rules, and is kernel regression."""

import pickle
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from companion import data, regression
from companion.architectures import fc
from companion.attacks import Threat, pgd
from companion.classifier import NTKClassifier
from companion.kernels import gram, keep_compiled

DIGITS = data.load("digits", n_train=60, n_test=40)
X, Z = (x.reshape(len(x), -1) for x in (DIGITS.x_train, DIGITS.x_test))


@keep_compiled
def gaussian(a, b, get):
    return jnp.exp(-((a[:, None] - b) ** 2).sum(-1) / (2 * a.shape[1]))


@pytest.mark.usefixtures("as_users_run")
def test_scikit_learns_own_checks():
    # A kernel that compiles quickly: the checks have some sixty shapes. Each applies; that of other array
    # libraries is skipped where SCIPY_ARRAY_API is not set, as for scikit-learn's own estimators.
    found = check_estimator(NTKClassifier(gaussian, ridge=1e-2), on_skip=None)
    assert {check["check_name"] for check in found if check["status"] != "passed"} == {
        "check_array_api_input"
    }


@pytest.mark.parametrize("classes", [(3, 8), (1, 4, 7)], ids=["two", "three"])
def test_it_is_the_kernel_predictor_of_these_targets(classes):
    rows, others = (np.isin(y, classes) for y in (DIGITS.y_train, DIGITS.y_test))
    x, z, labels = X[rows], Z[others], np.searchsorted(classes, DIGITS.y_train[rows])
    names = np.array([f"digit {c}" for c in classes])
    found = NTKClassifier(fc(2), ridge=0.3, kind="nngp", t=2.0).fit(x, names[labels])
    f = regression.fit(fc(2), x, data.targets(labels, len(classes)), ridge=0.3, kind="nngp").at(2.0)
    outputs = f.from_kernel(gram(fc(2), z, x, kind="nngp"))
    wanted = outputs[:, 0] > 0 if len(classes) == 2 else outputs.argmax(axis=1)
    np.testing.assert_allclose(
        found.decision_function(z), outputs[:, 0] if len(classes) == 2 else outputs, rtol=1e-6
    )
    np.testing.assert_array_equal(found.predict(z), names[wanted.astype(int)])
    np.testing.assert_allclose(found.predictor(z), outputs, rtol=1e-4, atol=1e-5)
    assert found.score(z, names[wanted.astype(int)]) == 1


def test_searches_pipelines_and_copies():
    rows = DIGITS.y_train < 3
    search = GridSearchCV(
        make_pipeline(StandardScaler(), NTKClassifier(gaussian)),
        {"ntkclassifier__ridge": [1e-2, 1e6]},
        cv=2,
    ).fit(X[rows], DIGITS.y_train[rows])
    assert search.best_score_ > 0.8
    model = NTKClassifier(ridge=0.1).fit(X[rows], DIGITS.y_train[rows])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.decision_function(Z), model.decision_function(Z))
    assert clone(NTKClassifier(fc(2))).kernel == fc(2)


def test_images_stay_images_and_the_predictor_is_attacked():
    rows = DIGITS.y_train < 2
    x, y = DIGITS.x_train[rows], DIGITS.y_train[rows]
    model = NTKClassifier(ridge=1e-2).fit(x, y)
    attacked = pgd(model.predictor, x, y, Threat("linf", 0.3), steps=3)
    assert model.x_train_.shape == attacked.shape == x.shape
    assert model.score(attacked, y) < model.score(x, y) == 1


def test_the_predictor_of_float64_inputs_is_attacked_in_float32():
    rows = DIGITS.y_train < 2
    x, y = X[rows].astype(np.float64), DIGITS.y_train[rows]
    model = NTKClassifier(ridge=1e-2).fit(x, y)
    few = x[:5].astype(np.float32)
    assert model.predictor.x_train.dtype == np.float32
    np.testing.assert_allclose(model.predictor(few)[:, 0], model.decision_function(x[:5]), atol=1e-4)
    attacked = pgd(model.predictor, few, y[:5], Threat("linf", 0.3), steps=3)
    assert attacked.dtype == np.float32


def test_one_class_is_no_problem_to_learn():
    with pytest.raises(ValueError, match="y must have two classes or more, got 1 class, 5"):
        NTKClassifier().fit(X, np.full(60, 5))


def test_nothing_else_imports_scikit_learn():
    rooms = "attacks, architectures, data, empirical, features, kernels, regression, statistics, training"
    code = f"import sys; from companion import {rooms}; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
