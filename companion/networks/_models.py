"""`Model`, what makes one of a Flax module, and its first-order polynomial."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion._core.checks import count, precise, random_key
from companion._core.compile import double, is_kept, keep_compiled, precision
from companion._core.extras import missing
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


@functools.lru_cache
def from_flax(module: nn.Module, *, name: str | None = None) -> Model:
    """A Flax Linen module as a `Model`.

    Args:
        module: called as `module(x)`, or as `module(x, training)` where it has a field `norm` that is not
            None. Collections other than "params" are its state.
        name: its label; None: the class's name.

    Returns:
        The model; one and the same for equal modules, so that compiled code is shared. Parameters of float32
        are drawn as such, and turned into float64 where x is.

    >>> model = from_flax(nn.Dense(2))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> model.apply(params, state, jnp.ones((5, 3)), False)[0].shape, state
    ((5, 2), {})
    """
    takes_mode = getattr(module, "norm", None) is not None

    @jax.jit  # op by op every random draw would be compiled alone, in twice the time
    def draw(key: Any, x: Any) -> tuple[Any, Any]:
        variables = dict(module.init(key, x, False) if takes_mode else module.init(key, x))
        return variables.pop("params"), variables

    def init(key: Any, x: Any) -> tuple[Any, Any]:
        precise("x", x.dtype)
        # The same numbers whatever JAX is set to, then in the precision of x.
        with precision(np.float32(0)):
            variables = draw(random_key("key", key), x[:1].astype(np.float32))
        with double(x):
            return jax.tree.map(lambda a: a.astype(x.dtype) if a.dtype == np.float32 else a, variables)

    def apply(params: Any, state: Any, x: Any, training: bool) -> tuple[Any, Any]:
        precise("x", x.dtype)
        variables, mode = {"params": params, **state}, (training,) if takes_mode else ()
        with double(params, x):
            if training and state:
                outputs, changed = module.apply(variables, jnp.asarray(x), *mode, mutable=list(state))
                return outputs, dict(changed)
            return module.apply(variables, jnp.asarray(x), *mode), state

    return Model(type(module).__name__ if name is None else name, init, apply)


def mlp(n_outputs: int, *, depth: int = 2, width: int = 512) -> Model:
    """Fully connected ReLU network: `depth` hidden layers of `width` units, He's initialization.

    >>> model = mlp(10)
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> model.apply(params, state, jnp.ones((4, 28, 28, 1)), False)[0].shape
    (4, 10)
    """
    sizes = count("n_outputs", n_outputs), count("depth", depth), count("width", width)
    return _ours(MLP(*sizes), f"MLP-{depth}")


def small_cnn(n_outputs: int, *, width: int = 16, norm: Norm = None) -> Model:
    """Two 3×3 convolutions of `width` and 2 `width` channels, each halved by average pooling; then dense.

    The book's quick experiments train it in seconds.

    Args:
        n_outputs: classes.
        width: channels of the first convolution.
        norm: what follows each convolution: see `normalization.layer`.

    Raises:
        TypeError, ValueError: sizes that are no positive integers, an unknown norm.
    """
    sizes = count("n_outputs", n_outputs), count("width", width)
    return _ours(SmallCNN(*sizes, _known(norm)), _named("small CNN", norm))


def cnn(n_outputs: int, *, width: int = 32) -> Model:
    """The CNN of Tsilivis & Kempe (2022), arXiv 2210.05577, for 3×3 convolutions and width w.

    w, w, max-pool, 2w, 2w, 4w, 4w, average pool, dense; they took w = 32.
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


@functools.lru_cache
def linearized(model: Model, *, center: bool = False) -> Model:
    """The first-order Taylor polynomial of a network in its parameters, as a model of its own.

    f_lin(x; δ) = f(x; θ) + ⟨∂_θ f(x; θ), δ⟩; centered, the second term alone. Gradient descent on δ is kernel
    regression with the kernel Θ̂ at θ, which does not move, without ever forming that kernel.

    Args:
        model: any model. It is linearized in evaluation mode: running statistics stay as they are.
        center: whether f(x; θ) is left out, so that the function starts at 0 and all it learns is the
            kernel's.

    Returns:
        A model whose params are δ and whose state is (θ, the model's own state): see `linearize_at`. Its
        `init` linearizes at a fresh initialization.

    Cost: about two forward passes for one, by forward-mode differentiation.
    Source: Lee et al. (2019), arXiv 1902.06720, equation 5; centered as in Loo et al. (2022), arXiv
    2210.12030.

    >>> square = Model("square", lambda key, x: (jnp.ones(()), {}), lambda p, s, x, _: (p**2 * x, s))
    >>> delta, state = linearize_at((jnp.array(3.0), {}))
    >>> linearized(square).apply(delta + 1, state, jnp.ones((1, 1)), True)[0].item()
    15.0
    """

    def init(key: Any, x: Any) -> tuple[Any, Any]:
        return linearize_at(model.init(key, x))

    def apply(params: Any, state: Any, x: Any, training: bool) -> tuple[Any, Any]:
        del training
        with double(params, state, x):
            point, own = jax.lax.stop_gradient(state)
            outputs, change = jax.jvp(lambda p: model.apply(p, own, x, False)[0], (point,), (params,))
            return change if center else outputs + change, state

    return Model(f"{'centered' if center else 'linearized'} {model.name}", init, apply)


def linearize_at(variables: tuple[Any, Any]) -> tuple[Any, Any]:
    """Variables with which `linearized(model)` starts from these variables of the model: δ = 0."""
    with double(variables):
        return jax.tree.map(jnp.zeros_like, variables[0]), variables


def _ours(module: nn.Module, name: str) -> Model:
    model = from_flax(module, name=name)
    keep_compiled(model.apply)
    return model


def _known(norm: Norm) -> Norm:
    layer(norm, False)
    return BatchNorm() if norm == "batch" else norm


def _named(name: str, norm: Norm, *, usual: Norm = None) -> str:
    return name if norm == usual else f"{name}, {'no' if norm is None else norm} norm"
