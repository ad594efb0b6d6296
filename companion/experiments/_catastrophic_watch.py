"""What is looked at in a network at every record of the experiment of chapter 7."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from companion import networks
from companion._core.types import Array, NetworkKernel, Scalar, Variables
from companion.attacks import cross_entropy, robust_accuracy
from companion.empirical import empirical_ntk_fn

AT_ONCE = 100  # images, of one shape to compile


@functools.lru_cache(maxsize=4)
def _kernel(model: networks.Model) -> NetworkKernel:
    return empirical_ntk_fn(networks.evaluation(model), reduce="trace")


def there(variables: Variables, x: Array, y: Array, *, model: networks.Model, eps: Scalar) -> np.ndarray:
    """The kernel of the probe where FGSM moves it to."""
    variables = jax.tree.map(jnp.asarray, variables)  # as training has them: for NumPy's it is compiled anew
    return _kernel(model)(variables, _stepped(x, _gradients(variables, x, y, model), eps))


def _stepped(x: np.ndarray, gradient: np.ndarray, eps: Scalar) -> np.ndarray:
    return np.clip(x + np.float32(eps) * np.sign(gradient), 0, 1)


def _gradients(variables: Variables, x: Array, y: Array, model: networks.Model) -> np.ndarray:
    """Of the loss by the pixels; some images at once, filled up with the first, of one shape to compile."""
    found = np.empty_like(x)
    for first in range(0, len(x), AT_ONCE):
        rows = np.arange(first, first + AT_ONCE)
        some = np.where(rows < len(x), rows, 0)
        found[first : first + AT_ONCE] = _gradient(variables, x[some], y[some], model=model)[: len(x) - first]
    return found


@functools.partial(jax.jit, static_argnames="model")
def _gradient(variables: Variables, x: Array, y: Array, *, model: networks.Model) -> Array:
    return jax.grad(lambda z: cross_entropy(model.apply(*variables, z, False)[0], y).sum())(x)


def watched(
    variables: Variables, x: Array, y: Array, *, model: networks.Model, eps: Scalar
) -> tuple[float, float]:
    """Accuracy under FGSM, and the mean cosine of `local_linearity`."""
    share = 2 * np.asarray(jax.random.uniform(jax.random.key(0), x.shape)) - 1
    near = np.clip(x + np.float32(eps) * share, 0, 1)
    here, there = (_gradients(variables, points, y, model) for points in (x, near))
    predict = networks.predict_fn(model, variables)
    accuracy = robust_accuracy(predict, _stepped(x, here, eps), y, batch_size=AT_ONCE).value
    one, two = (g.reshape(len(x), -1).astype(float) for g in (here, there))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(accuracy), float(((one * two).sum(axis=1) / np.maximum(lengths, 1e-30)).mean())


@functools.partial(jax.jit, static_argnames="model")
def surface_of(
    variables: Variables, x: Array, y: Array, signs: Array, eps: Scalar, *, model: networks.Model
) -> Array:
    def loss(z: Array) -> Array:
        return cross_entropy(model.apply(*variables, z, False)[0], y).mean()

    ahead = jnp.sign(jax.grad(loss)(x))
    steps, sides = jnp.meshgrid(jnp.linspace(0, 1, 21), jnp.linspace(-1, 1, 11), indexing="ij")

    def at(point: tuple[Array, Array]) -> Array:
        return loss(jnp.clip(x + eps * (point[0] * ahead + point[1] * signs), 0, 1))

    return jax.lax.map(at, (steps.ravel(), sides.ravel())).reshape(steps.shape)
