"""Training images whose labels only a perturbation explains: do features that break generalize?"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from companion._core.checks import batch as examples
from companion._core.checks import class_labels, count
from companion._core.types import Predict
from companion.attacks import Loss, Threat, outputs_of, pgd


def determined_dataset(
    predict: Predict,
    x: Float[Any, "m ..."],
    labels: Int[Any, " m"],
    threat: Threat,
    *,
    classes: int = 2,
    steps: int = 10,
    loss: Loss = "margin",
    batch_size: int = 256,
) -> tuple[Float[np.ndarray, "m ..."], Int[np.ndarray, " m"]]:
    """Images moved a little toward the next class, and labeled so: D̂_det of Ilyas et al.

    Image x of class y gets the label t = (y + 1) mod k, and becomes x′, the point that PGD on `predict` finds
    within the ball for t. To us x′ still looks like y, and every visible pattern now stands for a wrong
    class. If a classifier learned from (x′, t) is right about clean images all the same, then what the
    perturbation wrote into x′ is a pattern that generalizes: useful, and not robust.

    Args:
        predict: what is attacked, as for `attacks.pgd`: such as `regression.fit` on (x, labels).
        x: inputs (m, ...), within the threat's bounds.
        labels: their classes y, (m,), in [0, classes).
        threat: norm, eps and bounds.
        classes: k, as many as `predict` tells apart.
        steps: of PGD, which goes on after it has succeeded.
        loss: as for `attacks.pgd`.
        batch_size: inputs at once.

    Returns:
        x′, (m, ...), and t, (m,). Its controls are (x, t), and x moved by random signs with t
        (`attacks.random_sign`).

    Raises:
        TypeError, ValueError: arguments that do not fit.

    Cost: `steps` gradients of predict for each input.
    Source: Ilyas et al. (2019), arXiv 1905.02175, section 3.2; there L2, and a network.

    >>> from companion.attacks import Threat
    >>> f = lambda x: x - 0.5
    >>> x = np.array([[0.25], [0.75]], np.float32)
    >>> moved, wanted = determined_dataset(f, x, np.array([0, 1]), Threat("linf", 0.125))
    >>> moved.ravel(), wanted.tolist()
    (array([0.375, 0.625], dtype=float32), [1, 0])
    """
    x = examples("x", x)
    if count("classes", classes) < 2:
        raise ValueError(f"classes must be 2 or more, got {classes}")
    outputs = outputs_of(predict, x[:1], 1).shape[-1]
    if classes != max(outputs, 2):
        raise ValueError(f"classes must be {max(outputs, 2)}, as many as predict tells apart, got {classes}")
    wanted = (class_labels("labels", labels, len(x), classes) + 1) % classes
    moved = pgd(predict, x, wanted, threat, targeted=True, steps=steps, loss=loss, batch_size=batch_size)
    return moved, wanted
