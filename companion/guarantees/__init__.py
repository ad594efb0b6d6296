"""What can be guaranteed of a kernel predictor, and what an attacker of its training data can do (chapter 8).

Attacks give upper bounds of robustness, guarantees lower bounds: certified ≤ true ≤ attacked. `radius`
rests on how far a kernel's feature map can move (`lipschitz`, `modulus`), `flips` on the predictor's being
linear in its labels, which makes both of its sides exact. `poison` moves training images, `fit_adversarial`
fits a kernel against attacks on them.
"""

from companion.guarantees._adversarial import fit_adversarial
from companion.guarantees._flips import Flips, flip_accuracy, flips, shared_flip_accuracy
from companion.guarantees._lipschitz import lipschitz, modulus
from companion.guarantees._poison import poison
from companion.guarantees._radius import certified_accuracy, radius

__all__ = [
    "Flips",
    "certified_accuracy",
    "fit_adversarial",
    "flip_accuracy",
    "flips",
    "lipschitz",
    "modulus",
    "poison",
    "radius",
    "shared_flip_accuracy",
]
