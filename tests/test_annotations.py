"""The check of annotations that tests run under: one for each function that is written, and no fewer."""

import os
from typing import Any

import annotations
import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError, jaxtyped


def doubled(annotation: Any, factor: float = 2.0):
    """A function within a function, whose annotation and default are those of the moment."""

    @jaxtyped(typechecker=annotations.checked)
    def inner(x: annotation, factor: float = factor) -> Float[np.ndarray, " n"]:
        return factor * x

    return inner


def test_of_one_annotation_there_is_one_check_and_every_function_has_it(monkeypatch):
    monkeypatch.setattr(annotations, "_CHECKED", {})  # other tests may have been here
    made = [doubled(Float[np.ndarray, " n"], float(factor)) for factor in range(5)]
    assert len(annotations._CHECKED) == 2  # of the arguments, and of the result
    for factor, function in enumerate(made):
        np.testing.assert_array_equal(function(np.ones(3)), np.full(3, factor))
        with pytest.raises(TypeCheckError, match="parameters of"):
            function(np.ones((3, 1)))


def test_another_annotation_of_the_same_function_is_another_check():
    line, plane = doubled(Float[np.ndarray, " n"]), doubled(Float[np.ndarray, "n 1"])
    line(np.ones(3))
    with pytest.raises(TypeCheckError, match="return value"):
        plane(np.ones((3, 1)))
    with pytest.raises(TypeCheckError, match="parameters of"):
        plane(np.ones(3))
    with pytest.raises(TypeCheckError, match="return value"):
        doubled(Any)(np.ones((3, 1)))


def test_the_annotations_of_companion_are_checked_unless_that_is_switched_off():
    from companion import statistics

    checked = os.environ.get("CHECK_ANNOTATIONS", "1") != "0"
    with pytest.raises(TypeCheckError if checked else ValueError):
        statistics.accuracy("outputs", "labels")
