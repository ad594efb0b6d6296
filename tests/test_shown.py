"""Results in a notebook: a line with shapes, not their arrays."""

import dataclasses

import numpy as np

from companion._core.shown import brief
from companion.attacks import Smallest
from companion.training import Run


@dataclasses.dataclass(frozen=True)
class Some:
    values: np.ndarray
    number: float
    words: str
    __repr__ = brief


def test_arrays_are_shapes_and_what_is_long_its_type():
    assert repr(Some(np.zeros((3, 2)), 0.5, "a")) == "Some(values=<float64[3, 2]>, number=0.5, words='a')"
    assert repr(Some(np.zeros(1000), np.float32(2).item(), "b" * 99)).endswith("number=2.0, words=<str>)")


def test_results_of_long_work_are_short():
    found = Smallest(np.zeros((500, 28, 28)), np.zeros(500, np.float32))
    assert repr(found) == "Smallest(attacked=<float64[500, 28, 28]>, distance=<float32[500]>)"
    assert Run.__repr__ is brief
