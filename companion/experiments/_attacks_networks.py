"""Networks under the perturbations of kernels, for the experiment of chapter 2."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.tree_util import Partial

from companion import data, regression
from companion._core.types import Apply, Array, Params, Scalar, State
from companion.attacks import Threat, fgsm, gradient_cosine, pgd, random_sign, transfer
from companion.empirical import empirical_ntk
from companion.experiments._attacks_cases import MAKERS, SOURCES, TARGETS, Kinds, Transfers
from companion.experiments._experiment import Arrays
from companion.experiments._shared import architecture, attack_batch
from companion.training import train_to_residual

Measures = dict[str, Scalar | list[float]]
Step = Callable[[Params, State, Array, Array], tuple[Params, State]]


def transferred(config: Transfers, seed: int) -> Arrays:
    """Networks of one seed under the perturbations of their kernel, by width, by scale, at every level."""
    images = data.load(config.dataset, classes=config.classes, n_train=config.n_train, n_test=config.n_test)
    name, x, y = f"FC-{config.depth}", images.x_test, images.y_test
    f = regression.fit(architecture(name), images.x_train, data.targets(images.y_train, 2))
    threat, top = Threat("linf", config.eps), float(f.eigenvalues[0])
    fixed = {
        "kernel": pgd(f, x, y, threat, steps=10),
        "random": random_sign(x, threat, key=jax.random.key(0)),
    }

    def networks(width: int, scale: float) -> list[Measures]:
        network = architecture(name, width=width)
        step = config.scaled_step if scale < 1 else config.step
        start = network.init(jax.random.key(seed), images.x_train)
        levels = train_to_residual(
            network.apply,
            start,
            images.x_train,
            data.targets(images.y_train, 2),
            learning_rate=step / top / scale**2,
            momentum=config.momentum,
            residuals=config.residuals,
            scale=scale,
            center=config.center,
        )
        probe = images.x_train[: config.moved]
        return [measured(net.predict) | _motion(network.apply, start, net.params, probe) for net in levels]

    def measured(net: Partial) -> Measures:
        attacks = fixed | {"white_box": pgd(net, x, y, threat, steps=10)}
        found = transfer({source: attacks[source] for source in SOURCES}, {"net": net}, x, y)
        right = np.asarray(net(x))[:, 0] * (2 * y - 1) > 0
        return {
            "success": [found.success[source]["net"].value for source in SOURCES],
            "right": right.sum(),
            "net_clean": right.mean(),
            "cosine": gradient_cosine(f, net, x, y).mean(),
        }

    arrays = {}
    for prefix, settings in {
        "": [(width, 1.0) for width in config.widths],
        "scaled_": [(config.scale_width, scale) for scale in config.scales],
    }.items():
        found = [networks(*setting) for setting in settings]
        for measure in found[0][0] if found else ():
            arrays[prefix + measure] = np.array([[net[measure] for net in levels] for levels in found])
    return arrays


def _motion(apply: Apply, start: Params, end: Params, probe: np.ndarray) -> Measures:
    """‖Θ_T − Θ_0‖ / ‖Θ_0‖ of the empirical kernel; nothing without a probe."""
    if not len(probe):
        return {}
    first, last = (empirical_ntk(apply, params, probe) for params in (start, end))
    return {"motion": np.linalg.norm(last - first) / np.linalg.norm(first)}


def of_kinds(config: Kinds, seed: int) -> Arrays:
    """Networks of several kinds under FGSM of kernels, and under PGD of their own."""
    images = data.load(
        config.dataset, classes=config.classes, n_train=config.n_train, n_test=config.n_test, seed=seed
    )
    targets, x, y = data.targets(images.y_train, 2), images.x_test, images.y_test
    threat, key = Threat("linf", config.eps), jax.random.key(seed)
    dense = regression.fit(architecture("FC-1"), images.x_train, targets)
    conv = regression.fit(architecture(config.conv), images.x_train, targets)
    early = dense.at(config.stopped / dense.eigenvalues[0])
    size = attack_batch(architecture(config.conv))
    kernels = {"FC-1 kernel": (dense, 256), "FC-1 kernel, stopped": (early, 256), "Conv kernel": (conv, size)}
    made = {name: fgsm(f, x, y, threat, batch_size=some) for name, (f, some) in kernels.items()}
    made["random"] = random_sign(x, threat, key=key)
    network = architecture("FC-1", width=config.width)
    lazy = train_to_residual(
        network.apply,
        network.init(key, images.x_train),
        images.x_train,
        targets,
        learning_rate=0.5 / float(dense.eigenvalues[0]),
        momentum=0.98,
        residuals=(config.residual,),
    )
    nets = {
        "FC, gradient descent": lazy[0].predict,
        "FC, Adam": by_adam(_Dense(config.width), images.x_train, targets, config, seed),
        "CNN, Adam": by_adam(_Convolutional(config.channels), images.x_train, targets, config, seed),
    }
    own = {name: pgd(net, x, y, threat, early_stop=True) for name, net in nets.items()}
    found = {name: transfer(made | {"own": own[name]}, {"net": net}, x, y) for name, net in nets.items()}
    return {
        "kinds_success": _table(lambda net, maker: found[net].success[maker]["net"].value, TARGETS, MAKERS),
        "kinds_clean": np.array([np.mean((np.asarray(nets[net](x))[:, 0] > 0) == y) for net in TARGETS]),
        "kinds_cosine": _table(
            lambda net, maker: gradient_cosine(
                kernels[maker][0], nets[net], x, y, batch_size=kernels[maker][1]
            ).mean(),
            TARGETS,
            ("FC-1 kernel", "Conv kernel"),
        ),
        "kinds_kernels": np.array([np.mean((np.asarray(f(x))[:, 0] > 0) == y) for f in (dense, conv)]),
    }


def _table(entry: Callable[[str, str], Scalar], rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    return np.array([[entry(row, column) for column in columns] for row in rows])


class _Dense(nn.Module):
    """One hidden layer in the standard parameterization."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1)))
        return nn.Dense(1)(hidden)


class _Convolutional(nn.Module):
    """Two convolutions with strides, and a dense layer."""

    channels: tuple[int, int]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for channels in self.channels:
            x = nn.relu(nn.Conv(channels, (5, 5), (2, 2))(x))
        return nn.Dense(1)(x.reshape(len(x), -1))


def by_adam(module: nn.Module, x: np.ndarray, targets: np.ndarray, config: Kinds, seed: int) -> Partial:
    """A network trained on the squared loss with Adam, in batches: every weight moves."""
    params = module.init(jax.random.key(seed), x[:1])
    step, optimizer = _step_of(module, config.rate)
    memory, batches = optimizer.init(params), np.random.default_rng(seed)
    for _ in range(config.updates):
        some = batches.choice(len(x), min(64, len(x)), replace=False)
        params, memory = step(params, memory, x[some], targets[some])
    return Partial(module.apply, params)


@functools.lru_cache
def _step_of(
    module: nn.Module, rate: float
) -> tuple[Callable[..., tuple[Params, State]], optax.GradientTransformation]:
    optimizer = optax.adam(rate)

    def loss(params: Params, x: Array, targets: Array) -> Array:
        return ((module.apply(params, x) - targets) ** 2).mean()

    @jax.jit
    def step(params: Params, memory: State, x: Array, targets: Array) -> tuple[Params, State]:
        updates, memory = optimizer.update(jax.grad(loss)(params, x, targets), memory)
        return optax.apply_updates(params, updates), memory

    return step, optimizer
