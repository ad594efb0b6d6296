"""The scorecard: what authors claim, what is recorded here, and a verdict by rule.

A *comparison* is an effect with its interval, the direction that a claim says, and the smallest effect of
interest. `judge` makes a verdict of all that speak to a claim; `scorecard` does it for every claim from the
runs that are recorded so far, and `matrix`, `show`, `stronger` and `compute` are the page What reproduces.
"""

from companion.scorecard._cards import CLAIMS, scorecard
from companion.scorecard._claim import DATASETS, Card, Claim, Gap, Scale, card, radius
from companion.scorecard._forest import forest
from companion.scorecard._gaps import gaps, recorded_gaps
from companion.scorecard._html import Shown
from companion.scorecard._page import COLUMNS, compute, matrix, show
from companion.scorecard._power import Decided, decided, half_width, power, wanted
from companion.scorecard._ranks import rank_correlation, rank_trend
from companion.scorecard._stronger import CHECKED, apart, checked, gap_rows, span_of, stronger
from companion.scorecard._verdicts import (
    MARGIN,
    SAVED,
    VERDICTS,
    Comparison,
    Judgment,
    beyond_constant,
    cheaper_and_as_robust,
    equal_accuracy,
    judge,
    newcombe,
    outcomes,
    paired,
)

__all__ = [
    "CHECKED",
    "CLAIMS",
    "COLUMNS",
    "DATASETS",
    "MARGIN",
    "SAVED",
    "VERDICTS",
    "Card",
    "Claim",
    "Comparison",
    "Decided",
    "Gap",
    "Judgment",
    "Scale",
    "Shown",
    "apart",
    "beyond_constant",
    "card",
    "cheaper_and_as_robust",
    "checked",
    "compute",
    "decided",
    "equal_accuracy",
    "forest",
    "gap_rows",
    "gaps",
    "half_width",
    "judge",
    "matrix",
    "newcombe",
    "outcomes",
    "paired",
    "power",
    "radius",
    "rank_correlation",
    "rank_trend",
    "recorded_gaps",
    "scorecard",
    "show",
    "span_of",
    "stronger",
    "wanted",
]
