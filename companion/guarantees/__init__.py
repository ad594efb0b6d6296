"""What can be guaranteed of a kernel predictor: inputs that no attack moves, and labels that hold it up.

Attacks give upper bounds of robustness, these functions lower bounds: certified ≤ true ≤ attacked. `radius`
rests on how far a kernel's feature map can move (`lipschitz`, `modulus`), `flips` on the predictor's being
linear in its labels, which makes both of its sides exact.
"""

from companion.guarantees._flips import Flips, flip_accuracy, flips, shared_flip_accuracy
from companion.guarantees._lipschitz import lipschitz, modulus
from companion.guarantees._radius import certified_accuracy, radius

__all__ = [
    "Flips",
    "certified_accuracy",
    "flip_accuracy",
    "flips",
    "lipschitz",
    "modulus",
    "radius",
    "shared_flip_accuracy",
]
