"""Network families: from one specification, the finite network and its infinite-width kernel.

All are in the NTK parameterization of Jacot et al. (2018), arXiv 1806.07572: a layer computes
z = W a · w_std/√fan_in + b · b_std with every entry of W and b drawn from N(0, 1).
"""

from companion.architectures._architecture import Architecture
from companion.architectures._families import Activation, conv, fc, myrtle

__all__ = [
    "Activation",
    "Architecture",
    "conv",
    "fc",
    "myrtle",
]
