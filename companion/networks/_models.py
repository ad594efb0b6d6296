"""`Model`, and what makes one of a Flax module."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.tree_util import Partial

from companion._core.checks import count
from companion._core.compile import is_kept, keep_compiled
from companion._core.extras import missing
from companion.networks import _flax
from companion.networks._layers import outside_loops
from companion.networks._modules import CNN, MLP, Norm, ResNet, SmallCNN
from companion.networks._norm import BatchNorm, layer

try:
    import flax.linen as nn
except ModuleNotFoundError as error:
    raise missing("flax", "networks") from error


@dataclass(frozen=True)
class Model:
    """A network as two functions; make one of your own, or from a Flax module with `from_flax`.

    Attributes:
        name: short label for figures and progress bars.
        init: `init(key, x) -> (params, state)` for a batch x like those to come.
        apply: `apply(params, state, x, training) -> (outputs (n, k), state)`. `training` is a Python bool:
            whether batch statistics are taken from x, and the running ones moved. A JAX function without
            side effects; what it reads besides its arguments is frozen at its first use.
    """

    name: str
    init: Callable[..., Any]
    apply: Callable[..., Any]


def from_flax(module: Any, *, name: str | None = None) -> Model:
    """A Flax module, of Linen or of NNX, as a `Model`.

    Args:
        module: called as `module(x)`, and with its mode where it takes one: `train`, `training` or
            `is_training`, or the opposite, `deterministic` or `use_running_average`. Fields and attributes
            with these names are set too, in a copy.

            Linen: collections other than "params" are its state.

            NNX: `nnx.Param` is trained, and starts from the module's own values whatever the key; all other
            variables are state. The module itself stays as it is: `nnx.update(module, params)` puts what was
            trained into it.
        name: its label; None: the class's name.

    Returns:
        The model; for Linen one and the same for equal modules, so that compiled code is shared. Parameters
        of float32 are drawn as such, and turned into float64 where x is. Where layers such as Dropout draw
        in training, a random key is carried in the state, as floating point numbers.

    Raises:
        TypeError: no Flax module; one that wants more than x and its mode.

    >>> import jax.numpy as jnp
    >>> model = from_flax(nn.Dense(2))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> model.apply(params, state, jnp.ones((5, 3)), False)[0].shape, state
    ((5, 2), {})
    """
    name = type(module).__name__ if name is None else name
    if isinstance(module, nn.Module):
        return _from_linen(module, name)
    from flax import nnx  # which takes a second to import

    if isinstance(module, nnx.Module):
        return Model(name, *_flax.of_nnx(module))
    raise TypeError(f"module must be a Flax module, of Linen or NNX, got {module!r}")


@functools.lru_cache
def _from_linen(module: nn.Module, name: str) -> Model:
    return Model(name, *_flax.of_linen(module))


def mlp(n_outputs: int, *, depth: int = 2, width: int = 512, norm: Norm = None) -> Model:
    """Fully connected ReLU network: `depth` hidden layers of `width` units, He's initialization.

    Args:
        n_outputs: classes.
        depth: hidden layers.
        width: units of each.
        norm: what follows each of them before the ReLU: see `normalization.layer`.

    Returns:
        The model; its state holds the running statistics of batch normalization, where there is one.

    Raises:
        TypeError, ValueError: sizes that are no positive integers, an unknown norm.

    >>> import jax.numpy as jnp
    >>> model = mlp(10)
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> model.apply(params, state, jnp.ones((4, 28, 28, 1)), False)[0].shape
    (4, 10)
    """
    sizes = count("n_outputs", n_outputs), count("depth", depth), count("width", width)
    return _ours(MLP(*sizes, _known(norm)), _named(f"MLP-{depth}", norm))


def small_cnn(n_outputs: int, *, width: int = 16, norm: Norm = None) -> Model:
    """Two 3×3 convolutions of `width` and 2 `width` channels, each halved by average pooling; then dense.

    The book's quick experiments train it in seconds.

    Args:
        n_outputs: classes.
        width: channels of the first convolution.
        norm: what follows each convolution: see `normalization.layer`.

    Returns:
        The model; its state holds the running statistics of batch normalization, where there is one.

    Raises:
        TypeError, ValueError: sizes that are no positive integers, an unknown norm.
    """
    sizes = count("n_outputs", n_outputs), count("width", width)
    return _ours(SmallCNN(*sizes, _known(norm)), _named("small CNN", norm))


def cnn(n_outputs: int, *, width: int = 32) -> Model:
    """The CNN of Tsilivis & Kempe (2022), arXiv 2210.05577, for 3×3 convolutions and width w.

    w, w, max-pool, 2w, 2w, 4w, 4w, average pool, dense; they took w = 32.

    Args:
        n_outputs: classes.
        width: w, channels of the first convolution.

    Returns:
        The model, without state.

    Raises:
        TypeError, ValueError: sizes that are no positive integers.
    """
    return _ours(CNN(count("n_outputs", n_outputs), count("width", width)), "CNN")


def resnet18(n_outputs: int, *, width: int = 64, norm: Norm = "batch") -> Model:
    """ResNet-18 for small images, as Loo et al. (2022), arXiv 2210.12030, train it: 3×3 first, no first pool.

    Args:
        n_outputs: classes.
        width: channels of the first stage, doubled in each of three more; 64 in the original.
        norm: what follows each convolution: see `normalization.layer`.

    Returns:
        The model; its state holds the running statistics of batch normalization.

    Raises:
        TypeError, ValueError: sizes that are no positive integers, an unknown norm.

    Source: He et al. (2016), arXiv 1512.03385, in the variant for CIFAR.
    """
    sizes = count("n_outputs", n_outputs), count("width", width)
    return _ours(ResNet(*sizes, _known(norm)), _named("ResNet-18", norm, usual="batch"))


def resnet(
    n_outputs: int, *, blocks: tuple[int, ...] = (1, 1, 1), width: int = 16, norm: Norm = "batch"
) -> Model:
    """A residual network for small images, like `resnet18` with other stages.

    Args:
        n_outputs: classes.
        blocks: of two convolutions each, for every stage; (1, 1, 1) is ResNet-8, (2, 2, 2, 2) ResNet-18.
        width: channels of the first stage, doubled in each further one.
        norm: what follows each convolution: see `normalization.layer`.

    Returns:
        The model; its state holds the running statistics of batch normalization, where there is one.

    Raises:
        TypeError, ValueError: sizes that are no positive integers, an unknown norm.

    Source: He et al. (2016), arXiv 1512.03385.
    """
    sizes = count("n_outputs", n_outputs), count("width", width)
    stages = tuple(count("blocks", number) for number in blocks)
    name = f"ResNet-{2 * sum(stages) + 2}"
    return _ours(ResNet(*sizes, _known(norm), stages), _named(name, norm, usual="batch"))


@functools.lru_cache
def evaluation(model: Model) -> Callable[..., Any]:
    """The model in evaluation mode as `apply_fn(variables, x) -> (n, k)`, with variables = (params, state).

    For `empirical_ntk_fn` and whatever else takes a network: only params have derivatives, those of the
    state are 0. Inside a compiled loop on a CPU its convolutions are slow; `predict_fn` is made for that. Of
    companion's own networks, kernels at other weights are not compiled again.

    Args:
        model: any `Model`.

    Returns:
        The function; one and the same for one model, so that compiled code is shared.

    >>> import jax.numpy as jnp
    >>> apply_fn = evaluation(mlp(3, width=8))
    >>> apply_fn(mlp(3, width=8).init(jax.random.key(0), jnp.ones((1, 2))), jnp.ones((5, 2))).shape
    (5, 3)
    """

    def apply_fn(variables: tuple[Any, Any], x: Any) -> Any:
        with outside_loops():
            return _evaluated(model)(variables, x)

    return keep_compiled(apply_fn) if is_kept(model.apply) else apply_fn


@functools.lru_cache
def _evaluated(model: Model) -> Callable[..., Any]:
    def apply_fn(variables: tuple[Any, Any], x: Any) -> Any:
        params, state = variables
        return model.apply(params, jax.lax.stop_gradient(state), x, False)[0]

    return apply_fn


def predict_fn(model: Model, variables: tuple[Any, Any]) -> Partial:
    """The network as a function of inputs, to attack: compiled attacks are shared by all variables.

    Args:
        model: the network.
        variables: (params, state).

    Returns:
        A function of x (n, ...) with outputs (n, k).
    """
    return Partial(_evaluated(model), variables)


def _ours(module: nn.Module, name: str) -> Model:
    model = from_flax(module, name=name)
    keep_compiled(model.apply)
    return model


def _known(norm: Norm) -> Norm:
    layer(norm, False)
    return BatchNorm() if norm == "batch" else norm


def _named(name: str, norm: Norm, *, usual: Norm = None) -> str:
    return name if norm == usual else f"{name}, {'no' if norm is None else norm} norm"
