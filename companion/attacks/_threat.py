"""What an attacker may do to an input."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from companion._core.checks import number
from companion._core.words import Unchecked

NORMS = ("linf", "l2", "l1")


@dataclass(frozen=True)
class Threat:
    """All inputs that an attacker may choose for x: {x' : ‖x' − x‖ ≤ ε, low ≤ x' ≤ high}.

    Attributes:
        norm: "linf", the largest change of a pixel, "l2", the Euclidean length of the whole change, or "l1",
            the sum of all changes: few pixels may change much.
        eps: ε ≥ 0 in pixel units, such as 8/255 of pixels in [0, 1], whatever a model does to its inputs. At
            most high − low for "linf", where every input may become any other; the others have no limit.
        bounds: the least and the largest value of a pixel. A clean one may lie at a bound as `np.clip` rounds
            it: float32 has no 0.1.

    Raises:
        ValueError: an unknown norm, ε < 0 or not finite, bounds that are not two increasing numbers; an L∞ ε
            above high − low, which is one in other units, 8 for 8/255.

    >>> Threat("linf", 8 / 255).bounds
    (0.0, 1.0)
    """

    norm: Literal["linf", "l2", "l1"]
    eps: float
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the fields, and turn numbers of other types into Python's."""
        if self.norm not in NORMS:
            raise ValueError(f"norm must be 'linf', 'l2' or 'l1', got {self.norm!r}")
        object.__setattr__(self, "eps", number("eps", self.eps))
        try:
            low, high = (float(0 + bound) for bound in self.bounds)  # a text is none, though float reads it
        except (TypeError, ValueError):
            raise ValueError(f"bounds must be two numbers, got {self.bounds!r}") from None
        if not -np.inf < low < high < np.inf:
            raise ValueError(f"bounds must be two increasing finite numbers, got {self.bounds!r}")
        object.__setattr__(self, "bounds", (low, high))
        if self.norm == "linf" and self.eps > high - low:
            meant = f"; {self.eps:g}/255?" if (low, high) == (0, 1) and self.eps <= 255 else ""
            raise ValueError(
                f"eps must be at most {high - low:g}, the whole range of the bounds {self.bounds}, got "
                f"{self.eps:g}: eps is in units of the inputs{meant}"
            )


def checked_threat(threat: Unchecked) -> Threat:
    """The threat itself, or a TypeError that shows how one is written."""
    if not isinstance(threat, Threat):
        raise TypeError(f'threat must be a Threat, such as Threat("linf", 0.1), got {threat!r}')
    return threat
