"""One normalization for networks of the user's own."""

from companion._core.types import Layer
from companion.networks._norm import Norm, known_norm


def layer(norm: Norm, training: bool) -> Layer:
    """A normalization of a Flax network's layer, to be called inside its `__call__`.

    Args:
        norm: "batch" for `BatchNorm()`, or one with other choices; "group" for group normalization with at
            most 8 groups, each of four values of an example or more where there are as many; "layer" for one
            group, all channels and positions of an example; None for the identity.
        training: whether the network is in training mode.

    Returns:
        A function of activations (n, ..., c).

    Raises:
        ValueError: an unknown norm; one value to an example, of which nothing would be left.

    Source: Wu & He (2018), arXiv 1803.08494, for group normalization.
    """
    from companion.networks._normalizing import normalizing

    return normalizing(known_norm(norm), training)
