"""What can be guaranteed about a kernel predictor, and what an attacker of its training data can do."""

from companion.guarantees._adversarial import fit_adversarial
from companion.guarantees._poison import poison

__all__ = ["fit_adversarial", "poison"]
