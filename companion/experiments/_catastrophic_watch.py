"""What is looked at in a network at every record of the experiment of chapter 7."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from companion import networks
from companion._core.types import Array, NetworkKernel, Scalar, Variables
from companion.attacks import cross_entropy
from companion.empirical import empirical_ntk_fn


@functools.lru_cache(maxsize=4)
def _kernel(model: networks.Model) -> NetworkKernel:
    return empirical_ntk_fn(networks.evaluation(model), reduce="trace")


def there(variables: Variables, x: Array, y: Array, *, model: networks.Model, eps: Scalar) -> np.ndarray:
    """The kernel of the probe where FGSM moves it to."""
    return np.asarray(_kernel(model)(variables, np.asarray(_fgsm(variables, x, y, eps, model=model))))


@functools.partial(jax.jit, static_argnames="model")
def _fgsm(variables: Variables, x: Array, y: Array, eps: Scalar, *, model: networks.Model) -> Array:
    gradient = jax.grad(lambda z: cross_entropy(model.apply(*variables, z, False)[0], y).sum())(x)
    return jnp.clip(x + eps * jnp.sign(gradient), 0, 1)


@functools.partial(jax.jit, static_argnames="model")
def watched(
    variables: Variables, x: Array, y: Array, *, model: networks.Model, eps: Scalar
) -> tuple[Array, Array]:
    """Accuracy under FGSM, and the mean cosine of `local_linearity`."""

    def predict(z: Array) -> Array:
        return model.apply(*variables, z, False)[0]

    gradient = jax.grad(lambda z: cross_entropy(predict(z), y).sum())
    here = gradient(x)
    share = 2 * jax.random.uniform(jax.random.key(0), x.shape) - 1
    there = gradient(jnp.clip(x + eps * share, 0, 1))
    moved = jnp.clip(x + eps * jnp.sign(here), 0, 1)
    one, two = (g.reshape(len(x), -1) for g in (here, there))
    lengths = jnp.linalg.norm(one, axis=1) * jnp.linalg.norm(two, axis=1)
    cosines = (one * two).sum(axis=1) / jnp.maximum(lengths, 1e-30)
    return (predict(moved).argmax(axis=1) == y).mean(), cosines.mean()


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
