"""Networks and their kernels, and large biases, for the experiment on neighbours of the tangent kernel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from companion import data, networks, regression
from companion._core.checks import predicted
from companion._core.types import Array, KernelFunction, Params, Predict, Variables
from companion.architectures import fc
from companion.attacks import Threat, outputs_of, pgd, training_attack
from companion.empirical import empirical_ntk
from companion.experiments._experiment import Arrays
from companion.experiments._neighbours_cases import KINDS, TRAININGS, Case
from companion.experiments._shared import sgd
from companion.kernels import keep_compiled
from companion.networks import Model
from companion.training import train, train_to_residual

MOST = 5000  # gradient steps: digits need 400 to 1,400
LAST = {"ntk": None, "nngp": (-2, -1)}  # which parameters' derivatives make the empirical kernel


def images_of(case: Case, seed: int, n: int) -> tuple[data.Dataset, np.ndarray]:
    images = data.load(case.dataset, classes=case.classes, n_train=n, n_test=case.n_test, seed=seed)
    return images, data.targets(images.y_train, 2)


def right(f: Predict, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return predicted(outputs_of(f, x, min(128, len(x)))) == y


def attacked(f: Predict, x: np.ndarray, y: np.ndarray, case: Case, steps: int) -> np.ndarray:
    """Accuracy clean and under PGD, (2,)."""
    threat = Threat("linf", case.eps)
    moved = pgd(f, x, y, threat, steps=steps, loss="margin", batch_size=len(x))
    clean = right(f, x, y)
    return np.array([clean.mean(), (clean & right(f, moved, y)).mean()])


@functools.lru_cache
def _model(width: int) -> Model:
    return networks.mlp(1, depth=2, width=width)


def network_of(
    case: Case, seed: int, images: data.Dataset, training: str, width: int, epochs: int
) -> tuple[Model, Variables]:
    """A network with one output, at its start, or trained on clean or on attacked images."""
    model, key = _model(width), jax.random.key(seed)
    if training == "none":
        return model, model.init(key, images.x_train[:1])
    attack = training_attack(Threat("linf", case.eps), steps=7) if training == "pgd" else None
    options = {
        "batch_size": min(100, len(images.x_train)),
        "optimizer": sgd(0.05, 0.9),
        "record": (0, epochs),
    }
    found = train(model, images.x_train, images.y_train, epochs=epochs, key=key, attack=attack, **options)
    return model, found.variables


def empirical_predictor(
    model: Model,
    variables: Variables,
    x: Array,
    targets: Array,
    *,
    kind: str,
    ridge: float,
) -> Predict:
    """Kernel regression with the empirical tangent or conjugate kernel of a network, as a function to attack.

    With J the derivatives of the output in the chosen parameters it is f(x) = J(x) J(X)ᵀ α: the network's
    linear term along δ = J(X)ᵀ α, so no kernel is needed between x and X.

    Args:
        model: with one output, whose last two arrays of parameters are its last layer.
        variables: (params, state).
        x: training inputs (n, ...).
        targets: (n, 1).
        kind: "ntk" or "nngp".
        ridge: in units of the mean diagonal.

    Returns:
        A function of inputs (m, ...), outputs (m, 1).
    """
    params, state = variables
    apply = networks.evaluation(model)
    matrix = empirical_ntk(apply, variables, x, only=LAST[kind], implementation="jacobian")
    unit = float(np.diag(matrix).mean())
    alpha = regression.fit(matrix, targets=targets, ridge=ridge * unit).coefficients.astype(np.float32)
    outputs, pull_back = jax.vjp(lambda some: apply((some, state), x), params)
    (delta,) = pull_back(jnp.asarray(alpha, outputs.dtype))
    leaves, tree = jax.tree.flatten(delta)
    chosen = {i % len(leaves) for i in LAST[kind] or range(len(leaves))}
    delta = tree.unflatten([leaf if i in chosen else 0 * leaf for i, leaf in enumerate(leaves)])
    return networks.predict_fn(networks.linearized(model, center=True), (delta, variables))


def trained_kernels(case: Case, seed: int, ridge: float, steps: int, width: int, epochs: int) -> Arrays:
    images, targets = images_of(case, seed, case.n_trained)
    x, y = images.x_test[: case.n_attacked], images.y_test[: case.n_attacked]
    found = []
    for training in TRAININGS:
        model, variables = network_of(case, seed, images, training, width, epochs)
        options = {"ridge": ridge}
        fits = [networks.predict_fn(model, variables)] + [
            empirical_predictor(model, variables, images.x_train, targets, kind=kind, **options)
            for kind in KINDS
        ]
        found.append([attacked(f, x, y, case, steps) for f in fits])
    return {"trained": np.array(found)}


def unit_inputs(x: Array) -> Array:
    """Scaled so that the preactivations of `fc` at w_std = √2 have variance 1."""
    flat = x.reshape(len(x), -1)
    return flat * (flat.shape[1] / 2) ** 0.5 / jnp.linalg.norm(flat, axis=1, keepdims=True)


@functools.lru_cache
def on_sphere(bias: float) -> KernelFunction:
    """The kernel of a trained hidden layer with biases from −B, on images that are scaled to one length.

    It is the tangent kernel without the last layer's part, 2 H of Yang et al. (2024).
    """
    network = fc(1, b_std=1.0, bias=bias)

    @keep_compiled
    def kernel(x1: Array, x2: Array, get: str = "ntk") -> Array:  # noqa: ARG001
        conjugate, tangent = network.kernel(unit_inputs(x1), unit_inputs(x2), ("nngp", "ntk"))
        return tangent - conjugate

    return kernel


def one_bias(case: Case, seed: int, bias: float, ridge: float, steps: int, width: int) -> Arrays:
    """A network whose hidden layer alone is trained, and its kernel; NaN where `MOST` steps do not do."""
    images, targets = images_of(case, seed, case.n_train)
    f = regression.fit(on_sphere(bias), images.x_train, targets)
    unit, top = float(f.eigenvalues.mean()), float(f.eigenvalues[0])
    x, y = images.x_test[: case.n_attacked], images.y_test[: case.n_attacked]
    network, inputs = fc(1, width=width, b_std=1.0, bias=bias), np.asarray(unit_inputs(images.x_train))
    start = network.init(jax.random.key(seed), inputs)

    def apply(hidden: Params, x: Array) -> Array:
        return network.apply([hidden, *start[1:]], x)

    options = {"learning_rate": 1 / top, "momentum": 0.9, "residuals": (0.1,), "max_steps": MOST}
    try:
        (trained,) = train_to_residual(apply, start[0], inputs, targets, **options)
        after, needed = active_share(trained.params, inputs), trained.steps
    except FloatingPointError:
        after, needed = np.nan, np.nan
    return {
        "active": np.array([norm.sf(bias), active_share(start[0], inputs), after]),
        "gradient_steps": np.array(needed),
        "smallest": f.eigenvalues[-1] / unit,
        "biased": attacked(f.with_ridge(ridge * unit), x, y, case, steps),
    }


def active_share(hidden: Params, x: np.ndarray) -> float:
    """The share of pairs of an input and a hidden unit of `fc(1, b_std=1)` with a positive preactivation."""
    weights, biases = hidden
    return float((x @ np.asarray(weights) * (2 / x.shape[1]) ** 0.5 + np.asarray(biases) > 0).mean())
