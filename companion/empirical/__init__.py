"""The empirical neural tangent kernel of any finite network."""

from companion.empirical._ntk import Implementation, Reduce, empirical_ntk, empirical_ntk_fn

__all__ = [
    "Implementation",
    "Reduce",
    "empirical_ntk",
    "empirical_ntk_fn",
]
