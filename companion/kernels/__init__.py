"""Gram matrices of analytic kernels, tile by tile: memory stays bounded, and a killed run can go on."""

from companion._core.compile import keep_compiled
from companion.kernels._gram import Plan, gram, plan

__all__ = [
    "Plan",
    "gram",
    "keep_compiled",
    "plan",
]
