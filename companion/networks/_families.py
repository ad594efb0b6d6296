"""Networks of Flax: this package's families, and any module of the user's.

Flax is imported where one of them is made, so that all else in `companion.networks` works without it.
"""

from companion._core.checks import count
from companion._core.compile import keep_compiled
from companion._core.words import Shape, Unchecked
from companion.networks._models import Model
from companion.networks._norm import Norm, known_norm


def from_flax(module: Unchecked, *, name: str | None = None) -> Model:
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
        ImportError: Flax is not installed.
        TypeError: no Flax module; one that wants more than x and its mode.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> model = from_flax(nn.Dense(2))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> model.apply(params, state, jnp.ones((5, 3)), False)[0].shape, state
    ((5, 2), {})
    """
    from companion.networks import _flax

    return _flax.model(module, name)


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

    >>> import jax, jax.numpy as jnp
    >>> model = mlp(10)
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> model.apply(params, state, jnp.ones((4, 28, 28, 1)), False)[0].shape
    (4, 10)
    """
    sizes = count("n_outputs", n_outputs), count("depth", depth), count("width", width)
    return _ours("MLP", (*sizes, known_norm(norm)), _named(f"MLP-{depth}", norm))


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
    return _ours("SmallCNN", (*sizes, known_norm(norm)), _named("small CNN", norm))


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
    return _ours("CNN", (count("n_outputs", n_outputs), count("width", width)), "CNN")


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
    return _ours("ResNet", (*sizes, known_norm(norm)), _named("ResNet-18", norm, usual="batch"))


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
    return _ours("ResNet", (*sizes, known_norm(norm), stages), _named(name, norm, usual="batch"))


def _ours(kind: str, options: tuple[int | Norm | Shape, ...], name: str) -> Model:
    from companion.networks import _modules

    model = from_flax(getattr(_modules, kind)(*options), name=name)
    keep_compiled(model.apply)
    return model


def _named(name: str, norm: Norm, *, usual: Norm = None) -> str:
    return name if norm == usual else f"{name}, {'no' if norm is None else norm} norm"
