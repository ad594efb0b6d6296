"""Kernel regression in which every training example has a clock of its own (chapter 9).

Gradient flow lets all examples learn for the same time t. `clocked` gives each its own, `learn` finds the
clocks that serve attacked validation images best (Adv-NTK), and `adversarial` gives those that adversarial
training in the limit of infinite width amounts to.
"""

from companion.clocks._adversarial import adversarial, input_gradients
from companion.clocks._flow import clocked
from companion.clocks._learn import Learned, learn

__all__ = ["Learned", "adversarial", "clocked", "input_gradients", "learn"]
