"""Fully connected, convolutional and Myrtle networks: their finite form and their kernel."""

import functools
from collections.abc import Callable
from typing import Literal

from companion._core.checks import count, number
from companion._core.types import Array
from companion._core.words import Unchecked
from companion.architectures import _biased, _conv, _dense
from companion.architectures._architecture import Architecture, build
from companion.architectures._finite import AVERAGE, ERF, FLATTEN, HALVE, RELU, conv3, dense, serial

Activation = Literal["relu", "erf"]
_ACTIVATIONS = {"relu": RELU, "erf": ERF}
_DENSE = {"relu": _dense.relu_kernel, "erf": _dense.erf_kernel}
_CONV = {"relu": _conv.relu_kernel, "erf": _conv.erf_kernel}


def fc(
    depth: int = 1,
    *,
    width: int = 512,
    n_outputs: int = 1,
    activation: Activation = "relu",
    w_std: float = 2**0.5,
    b_std: float = 0.1,
    bias: float | int | None = None,
) -> Architecture:
    """Fully connected network with `depth` hidden layers.

    Inputs of any rank are flattened to (n, d), so the kernel needs x1 x2ᵀ only.

    Args:
        depth: hidden layers, ≥ 1.
        width: units in each hidden layer, ≥ 1.
        n_outputs: outputs, ≥ 1.
        activation: "relu" or "erf", whose NTK in float32 loses the more digits the further its units
            saturate: for pixels far beyond 1 give it float64.
        w_std: standard deviation of the weights before the 1/√fan_in factor, > 0. √2 keeps the
            size of a ReLU layer's signal (Tsilivis & Kempe 2022 use √2 and 0.1).
        b_std: standard deviation of the biases, ≥ 0.
        bias: B ≥ 0: every bias of the hidden layer starts at −B and is trained from there, with `b_std` as
            the scale of its gradient, > 0; None for random ones. A unit is then active for an input x with
            probability 1 − Φ(B √d / (w_std ‖x‖)): few are for a large B. Of one hidden ReLU layer only.

    Returns:
        The family; its kernel costs O(n1 n2 (d + depth)), some twenty times the second part with `bias`.

    Raises:
        TypeError, ValueError: for an argument of the wrong kind or outside its range; the message names it.

    Source: Yang et al. (2024), arXiv 2301.00327, for `bias`.

    >>> import jax.numpy as jnp
    >>> fc(2).kernel(jnp.eye(3), jnp.eye(3)).shape
    (3, 3)
    """
    known = _checked(depth, width, n_outputs, activation, w_std, b_std)
    return _fc(*known, None if bias is None else _threshold(bias, depth, activation, b_std))


def conv(
    depth: int = 1,
    *,
    width: int = 64,
    n_outputs: int = 1,
    activation: Activation = "relu",
    w_std: float = 2**0.5,
    b_std: float = 0.1,
    pool: bool = False,
) -> Architecture:
    """Convolutional network: `depth` layers of 3×3 SAME convolutions, then flatten (or average), then dense.

    Args:
        depth: convolutional layers, ≥ 1.
        width: channels of each, ≥ 1.
        n_outputs: outputs, ≥ 1.
        activation: "relu" or "erf".
        w_std: standard deviation of the weights before the 1/√fan_in factor, > 0.
        b_std: standard deviation of the biases, ≥ 0.
        pool: average over all pixels instead of flattening. The kernel then correlates every pixel
            with every other (CNTK with pooling, Arora et al. 2019, arXiv 1904.11955): h·w times the
            time and memory.

    Returns:
        The family; its kernel costs O(n1 n2 h w (c + depth)) with flattening.

    Raises:
        TypeError, ValueError: for an argument of the wrong kind or outside its range; the message names it.

    >>> import jax.numpy as jnp
    >>> conv(1).kernel(jnp.ones((2, 8, 8, 1)), jnp.ones((3, 8, 8, 1))).shape
    (2, 3)
    """
    if not isinstance(pool, bool):
        raise TypeError(f"pool must be True or False, got {pool!r}")
    return _conv(*_checked(depth, width, n_outputs, activation, w_std, b_std), pool)


def myrtle(
    depth: Literal[5, 7, 10] = 5,
    *,
    width: int = 64,
    n_outputs: int = 1,
    activation: Activation = "relu",
    w_std: float = 2**0.5,
    b_std: float = 0.1,
) -> Architecture:
    """Myrtle network: three groups of 3×3 SAME convolutions, each halved by average pooling, then dense.

    Groups of 2, 1, 1 convolutions for depth 5, of 2, 2, 2 for depth 7, of 3, 3, 3 for depth 10; each ends
    with 2×2 average pooling of stride 2. What is left of the image is averaged.

    Args:
        depth: 5, 7 or 10.
        width: channels, ≥ 1.
        n_outputs: outputs, ≥ 1.
        activation: "relu" or "erf".
        w_std: standard deviation of the weights before the 1/√fan_in factor, > 0.
        b_std: standard deviation of the biases, ≥ 0.

    Returns:
        The family, for images whose height and width are multiples of 8. Its kernel correlates every pixel
        with every other: O(n1 n2 (h w)² depth) time, memory for (h w)² numbers an entry.

    Raises:
        TypeError, ValueError: for an argument of the wrong kind or outside its range; the message names it.

    Source: Shankar et al. (2020), arXiv 2003.02237, section 5.

    >>> import jax.numpy as jnp
    >>> myrtle(5).kernel(jnp.ones((1, 8, 8, 1)), jnp.ones((2, 8, 8, 1))).shape
    (1, 2)
    """
    if depth not in _MYRTLE:
        raise ValueError(f"depth must be one of {sorted(_MYRTLE)}, got {depth!r}")
    return _myrtle(*_checked(depth, width, n_outputs, activation, w_std, b_std))


_MYRTLE = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}


def _family(make: Callable[..., Architecture]) -> Callable[..., Architecture]:
    """Equal specifications give the same object, whose compiled kernel is kept, after pickling too."""

    @functools.lru_cache(maxsize=256)
    @functools.wraps(make)
    def made(*args: Unchecked) -> Architecture:
        found = make(*args)
        object.__setattr__(found, "recipe", (globals()[make.__name__], args))
        return found

    return made


@_family
def _fc(
    depth: int,
    width: int,
    n_outputs: int,
    activation: str,
    w_std: float,
    b_std: float,
    bias: float | None,
) -> Architecture:
    hidden = dense(width, w_std, b_std, start=None if bias is None else -bias / b_std)
    layers = [part for _ in range(depth) for part in (hidden, _ACTIVATIONS[activation])]
    network = serial([*layers, dense(n_outputs, w_std, b_std)])
    drawn = {"activation": activation, "hidden": depth, "w_std": w_std, "b_std": b_std, "bias": bias}
    name = f"FC-{depth} {activation}"
    if bias is None:
        kernels = functools.partial(_DENSE[activation], depth=depth, w_std=w_std, b_std=b_std)
    else:
        kernels = functools.partial(_biased.relu_kernel, bias=bias, w_std=w_std, b_std=b_std)
        name += f" bias {bias:g}"
    return build(name, network, kernels, width, n_outputs, pixel_power=0, **drawn)


@_family
def _conv(
    depth: int, width: int, n_outputs: int, activation: str, w_std: float, b_std: float, pool: bool
) -> Architecture:
    layers = [part for _ in range(depth) for part in (conv3(width, w_std, b_std), _ACTIVATIONS[activation])]
    network = serial([*layers, AVERAGE if pool else FLATTEN, dense(n_outputs, w_std, b_std)])
    name = f"Conv-{depth} {activation}" + (" pooled" if pool else "")
    if pool:
        kernels = functools.partial(_library, ((depth, False),), activation, w_std, b_std)
    else:
        kernels = functools.partial(_CONV[activation], depth=depth, w_std=w_std, b_std=b_std)
    drawn = {"activation": activation, "hidden": depth, "w_std": w_std, "b_std": b_std}
    return build(name, network, kernels, width, n_outputs, pixel_power=2 if pool else 1, **drawn)


@_family
def _myrtle(
    depth: int, width: int, n_outputs: int, activation: str, w_std: float, b_std: float
) -> Architecture:
    layers = []
    for group in _MYRTLE[depth]:
        layers += [conv3(width, w_std, b_std), _ACTIVATIONS[activation]] * group + [HALVE]
    network = serial([*layers, AVERAGE, dense(n_outputs, w_std, b_std)])
    groups = tuple((group, True) for group in _MYRTLE[depth])
    kernels = functools.partial(_library, groups, activation, w_std, b_std)
    name = f"Myrtle-{depth} {activation}"
    drawn = {
        "activation": activation,
        "hidden": sum(_MYRTLE[depth]),
        "w_std": w_std,
        "b_std": b_std,
        "bias": None,
    }
    return build(
        name, network, kernels, width, n_outputs, pixel_power=2, halvings=len(_MYRTLE[depth]), **drawn
    )


def _library(
    groups: tuple[tuple[int, bool], ...], activation: str, w_std: float, b_std: float, x1: Array, x2: Array
) -> tuple[Array, Array]:
    """Kernels of pairs of pixels are neural-tangents': groups of convolutions, halved or not; an average."""
    from companion.neural_tangents import stax

    scales = {"W_std": w_std, "b_std": b_std}
    layers = []
    for depth, halved in groups:
        for _ in range(depth):
            layers.append(stax.Conv(1, (3, 3), padding="SAME", **scales))
            layers.append({"relu": stax.Relu, "erf": stax.Erf}[activation]())
        if halved:
            layers.append(stax.AvgPool((2, 2), strides=(2, 2)))
    return stax.serial(*layers, stax.GlobalAvgPool(), stax.Dense(1, **scales))[2](x1, x2, ("nngp", "ntk"))


def _threshold(bias: float | int, depth: int, activation: str, b_std: float | int) -> float:
    bias = number("bias", bias)
    if depth != 1 or activation != "relu":
        raise ValueError(f"bias wants one hidden ReLU layer, got depth {depth} and activation {activation!r}")
    if b_std == 0:
        raise ValueError("bias wants b_std > 0, the scale of the biases' gradient, got 0")
    return bias


def _checked(
    depth: int, width: int, n_outputs: int, activation: str, w_std: float, b_std: float
) -> tuple[int, int, int, str, float, float]:
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(_ACTIVATIONS)}, got {activation!r}")
    sizes = count("depth", depth), count("width", width), count("n_outputs", n_outputs)
    return *sizes, activation, number("w_std", w_std, open_end=True), number("b_std", b_std)
