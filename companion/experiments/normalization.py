"""What normalization does to adversarial training (chapter 5).

Networks of one start are trained, on clean and on PGD's images, with inputs on different scales and with
different normalizing layers; ε is in pixel units always. Beside their accuracies: the distance between the
kernels of training and of evaluation mode, specialization, and the bias of batch variances against batch
size. After finding B1 of Li et al. (2023), arXiv 2312.02236.
"""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from companion import data, dynamics, networks, normalization
from companion._core.types import Array, InLoop, Key, NetworkKernel, Predict, Variables
from companion.attacks import Threat, pgd, robust_accuracy, training_attack
from companion.empirical import empirical_ntk_fn
from companion.experiments._experiment import Arrays, Experiment, Job, Part, filled
from companion.experiments._normalization_cases import (
    ESTIMATORS,
    FEW,
    INPUTS,
    LAYERS,
    PROFILES,
    REGIMES,
    STATISTICS,
    Case,
    Config,
    Variant,
)
from companion.experiments._shared import at_the_end, images_of, sgd
from companion.experiments._variance_ratios import activations, ratios
from companion.networks import Norm
from companion.normalization import BatchNorm
from companion.training import Run, train

__all__ = [
    "ESTIMATORS",
    "EXPERIMENT",
    "FEW",
    "INPUTS",
    "LAYERS",
    "PROFILES",
    "REGIMES",
    "STATISTICS",
    "Case",
    "Config",
    "Variant",
    "activations",
    "compute",
    "gather",
    "jobs",
    "model_of",
    "optimizer_of",
    "ratios",
    "recorded",
    "run",
    "trained",
]


def jobs(config: Config) -> list[Job]:
    """Every variant in every regime; those of `STATISTICS` under PGD only, and where the case wants them."""

    def job(
        case: Case, variant: Variant, how: str, seed: int, *more: Part, needs: tuple[Job, ...] = ()
    ) -> Job:
        model = "" if case.model == "small CNN" else f"{case.model}, "
        label = f"{case.dataset}, {model}ε = {case.eps:.3g}, {variant.name}, {how}"
        return Job((case, variant, how, seed, *more), label, seed, case.dataset, needs)

    found = []
    for seed, case, variant in itertools.product(range(config.seeds), config.cases, config.variants):
        for regime in config.regimes:
            if variant not in STATISTICS or (regime == "pgd" and case.statistics):
                found.append(job(case, variant, regime, seed))
        if config.rates:
            tried = tuple(
                job(case, variant, "rate", other, rate)
                for other in range(config.tuning)
                for rate in config.rates
            )
            found.append(job(case, variant, "best rate", seed, config.rates, needs=tried))
    return found


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    rows, ratios_of, tried, tuned = {}, {}, {}, {}
    for job, arrays in made.items():
        case, variant, regime, seed = job.config[:4]
        c, v = config.cases.index(case), config.variants.index(variant)
        if regime == "rate":
            tried[c, v, config.rates.index(job.config[4]), seed] = arrays
            continue
        if regime == "best rate":
            tuned[c, v, seed] = arrays
            continue
        place = c, v, config.regimes.index(regime), seed
        rows[place] = {name: array for name, array in arrays.items() if name != "ratio"}
        if "ratio" in arrays:
            ratios_of[c, seed] = {"ratio": arrays["ratio"]}
    c, s = len(config.cases), config.seeds
    v = len(config.variants)
    return (
        filled((c, v, len(config.regimes), s), rows)
        | filled((c, s), ratios_of)
        | filled((c, v, len(config.rates), config.tuning), tried)
        | filled((c, v, s), tuned)
    )


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Train every variant, attack it, look at its kernels.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays over cases c, variants v, regimes g, seeds s: `clean`, `robust` (c, v, g, s, 2) on a few images
        at the start and the end; `final` (c, v, g, s, 2, 3): clean and PGD with restarts at the end, with the
        ends of 95 % intervals (without restarts, and on all images at once, where outputs depend on the
        batch); `modes` (c, v, g, s, 2), the distance between the kernels of training and of
        evaluation mode at the start and the end, NaN without batch norm; `specialization` (c, v, g, s) of the
        kernel in evaluation mode at the end; `seconds` (c, v, g, s); NaN where nothing was trained. `ratio`
        (c, s, 2, b, 3, 2): mean over channels of E[estimator] / σ² of the batch variance behind the first and
        the second convolution, for each batch size and each of `ESTIMATORS`, as predicted and as measured, on
        the network without normalization trained by PGD. With `rates` q: `validated` (c, v, q, tuning, 2),
        clean and PGD accuracy on validation images; `best_rate` (c, v, s) and `tuned` (c, v, s, 2, 3), as
        `final`, of PGD training at that rate.
    """
    return EXPERIMENT.run(config, progress=progress)


def model_of(case: Case, variant: Variant, n_outputs: int) -> networks.Model:
    """The network of a case, with normalized inputs."""
    return normalization.on_normalized_inputs(_network(case, variant.norm, n_outputs))


def _network(case: Case, norm: Norm, n_outputs: int) -> networks.Model:
    if case.model == "MLP":
        return networks.mlp(n_outputs, depth=1, width=case.width, norm=norm)
    return networks.small_cnn(n_outputs, width=case.width, norm=norm)


def optimizer_of(case: Case) -> optax.GradientTransformation:
    """SGD of constant rate with momentum."""
    return sgd(case.rate, 0.9)


def trained(case: Case, variant: Variant, regime: str, seed: int, *, progress: bool = False) -> Run:
    """One network; all variants of a seed start from the same weights where they have them."""
    images = images_of(case)
    threat, k = Threat("linf", case.eps), len(images.classes)
    return train(
        model_of(case, variant, k),
        images.x_train,
        images.y_train,
        epochs=case.epochs,
        optimizer=optimizer_of(case),
        key=jax.random.key(seed),
        batch_size=variant.batch_size or case.batch_size,
        attack=training_attack(threat, steps=case.steps, ramp=case.ramp) if regime == "pgd" else None,
        clean_too=variant.clean_too,
        start=_start(case, variant, images, seed),
        x_test=images.x_test[: case.n_watch],
        labels_test=images.y_test[: case.n_watch],
        test_attack=training_attack(threat, steps=case.steps),
        record=[0, case.epochs],
        keep=[0],
        progress=progress,
    )


def _start(case: Case, variant: Variant, images: data.Dataset, seed: int) -> Variables:
    k = len(images.classes)
    statistics = normalization.input_statistics(images.x_train, variant.inputs)
    model = _network(case, variant.norm, k)
    params, state = model.init(jax.random.key(seed), images.x_train[:1])
    if variant.warm:
        shift, scale = statistics
        # With no memory, one pass leaves the statistics of the images themselves, layer after layer.
        forgetful = _network(case, BatchNorm(momentum=0.0), k)
        state = forgetful.apply(params, state, jnp.asarray((images.x_train[:500] - shift) / scale), True)[1]
    return normalization.normalize_inputs((params, state), statistics)


def compute(
    case: Case,
    variant: Variant,
    regime: str,
    seed: int,
    rate: float | tuple[float, ...] | None = None,
    *tried: Mapping[str, np.ndarray],
) -> Arrays:
    """One network, its accuracies and what its kernels say; or what a learning rate is worth, or the best."""
    if regime == "rate":
        return {"validated": _validated(replace(case, rate=rate), variant, seed)}
    if regime == "best rate":
        robust = np.array([one["validated"][1] for one in tried]).reshape(-1, len(rate)).mean(axis=0)
        case = replace(case, rate=rate[int(robust.argmax())])
        model = model_of(case, variant, len(images_of(case).classes))
        variables = trained(case, variant, "pgd", seed).variables
        return {"tuned": _final(case, model, variables, seed, True), "best_rate": np.array(case.rate)}
    images = images_of(case)
    one = trained(case, variant, regime, seed)
    model, k = model_of(case, variant, len(images.classes)), len(images.classes)
    probe = images.x_train[: case.n_probe]
    modes = np.full(2, np.nan)
    still = normalization.BatchNorm(evaluation="batch")
    alone = variant.norm != still  # whether an image's outputs in evaluation mode are its own
    evaluated = _kernel(model, False, not alone)(one.variables, probe)
    if "batch_stats" in one.variables[1][2] and not variant.clean_too:
        for i, variables in enumerate((one.snapshots[0.0], one.variables)):
            kernels = [
                _kernel(model, training, training or not alone)(variables, probe)
                for training in (False, True)
            ]
            modes[i] = dynamics.distances(kernels)[0, 1]
    labels = data.targets(images.y_train[: case.n_probe], k)
    found = {
        "clean": one.clean,
        "robust": one.robust,
        "final": _final(case, model, one.variables, seed, alone),
        "modes": modes,
        "specialization": np.array(dynamics.specialization(dynamics.per_output(evaluated, k), labels)[0]),
        "seconds": np.array(one.seconds[-1]),
    }
    if variant == INPUTS[0] and regime == "pgd":
        found["ratio"] = _ratios(case, one.variables, seed)
    return found


@functools.lru_cache(maxsize=64)
def _kernel(model: networks.Model, training: bool, mixes: bool) -> NetworkKernel:
    make = normalization.training_mode if training else networks.evaluation
    return empirical_ntk_fn(make(model), reduce="full", batch_statistics=mixes)


def _validated(case: Case, variant: Variant, seed: int) -> np.ndarray:
    """Clean and PGD accuracy of PGD training on images of the training set that it does not see."""
    n = case.n_train + case.n_test
    more = data.load(case.dataset, n_train=n, n_test=1)
    x, y = more.x_train[case.n_train :], more.y_train[case.n_train :]
    model = model_of(case, variant, len(more.classes))
    f = networks.predict_fn(model, trained(case, variant, "pgd", seed).variables)
    steps, restarts = case.final
    options = {"steps": steps, "restarts": restarts, "early_stop": True, "batch_size": len(x)}
    attacked = pgd(f, x, y, Threat("linf", case.eps), key=jax.random.key(1000 + seed), **options)
    return np.array([robust_accuracy(f, points, y).value for points in (x, attacked)])


def _final(case: Case, model: networks.Model, variables: Variables, seed: int, alone: bool) -> np.ndarray:
    f, images = networks.predict_fn(model, variables), images_of(case)
    x, y = images.x_test, images.y_test
    if alone:
        return at_the_end(f, case, seed, batch_size=len(x))
    # Where outputs depend on the batch, a point found in other company fools nobody: all images move
    # together, and are classified together as they are in the end.
    attack = training_attack(Threat("linf", case.eps), steps=case.final[0])
    attacked = _together(f, x, y, attack, jax.random.key(1000 + seed))
    return np.array(
        [robust_accuracy(f, np.asarray(points), y, batch_size=len(x)).as_array() for points in (x, attacked)]
    )


@jax.jit
def _together(f: Predict, x: Array, y: Array, attack: InLoop, key: Key) -> Array:
    return attack(f, x, y, key, jnp.inf)


def _ratios(case: Case, variables: Variables, seed: int) -> np.ndarray:
    """Predicted and measured ratios (layers, sizes, estimators, 2)."""
    images = images_of(case)
    layers = activations(variables, images.x_train[:400])
    return np.stack([ratios(layer, case.sizes, case.draws, seed) for layer in layers])


EXPERIMENT = Experiment("normalization", 1, PROFILES, jobs, compute, gather, measured=("seconds",))
recorded = EXPERIMENT.recorded
