"""What normalization does to adversarial training (chapter 5).

Networks of one start are trained, on clean and on PGD's images, with inputs on different scales and with
different normalizing layers; ε is in pixel units always. Beside their accuracies: the distance between the
kernels of training and of evaluation mode, specialization, and the bias of batch variances against batch
size. After finding B1 of Li et al. (2023), arXiv 2312.02236.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from companion import data, dynamics, networks, normalization
from companion.attacks import Threat, robust_accuracy, training_attack
from companion.empirical import empirical_ntk_fn
from companion.experiments._experiment import LISTS, Arrays, Experiment, Job, filled
from companion.experiments._shared import at_the_end, images_of, sgd, triple
from companion.networks import Conv, average_pool
from companion.normalization import BatchNorm
from companion.storage import flat
from companion.training import Run, train

REGIMES = ("standard", "pgd")
ESTIMATORS = ("biased", "unbiased", "by_image")


@dataclass(frozen=True)
class Variant:
    """A way to normalize.

    Attributes:
        name: its label.
        inputs: as for `normalization.input_statistics`.
        norm: as for `networks.small_cnn`.
        clean_too: whether steps see clean and attacked images.
        batch_size: other than the case's.
        warm: whether running statistics start as those of the training images, not at 0 and 1.
    """

    name: str
    inputs: normalization.Inputs = "raw"
    norm: str | BatchNorm | None = None
    clean_too: bool = False
    batch_size: int | None = None
    warm: bool = False


INPUTS = (
    Variant("raw"),
    Variant("centred", "centred"),
    Variant("standardized", "standardized"),
    Variant("[−1, 1]", (-1.0, 1.0)),
    Variant("[0, ½]", (0.0, 0.5)),
)
LAYERS = (
    Variant("batch norm", norm="batch"),
    Variant("layer norm", norm="layer"),
    Variant("group norm", norm="group"),
)
STATISTICS = (
    Variant("unbiased", norm=BatchNorm(variance="unbiased", running_variance="unbiased")),
    Variant("running unbiased", norm=BatchNorm(running_variance="unbiased")),
    Variant("batches of 8, no norm", batch_size=8),
    Variant("batches of 8", norm="batch", batch_size=8),
    Variant(
        "batches of 8, by image",
        norm=BatchNorm(variance="by_image", running_variance="by_image"),
        batch_size=8,
    ),
    Variant("batch at test", norm=BatchNorm(evaluation="batch")),
    Variant("running in training", norm=BatchNorm(training="running"), warm=True),
    Variant("frozen", norm=BatchNorm(training="frozen"), warm=True),
    Variant("both, shared", norm="batch", clean_too=True),
    Variant("both, separate", norm=BatchNorm(parts=2, part=1), clean_too=True),
)


@dataclass(frozen=True)
class Case:
    """One data set and network.

    Attributes:
        dataset: a name for `data.load`.
        width: of the small CNN.
        n_train: training images.
        n_test: test images.
        n_watch: how many of them are classified at every record.
        eps: ε, L∞, in pixel units.
        epochs: of training.
        batch_size: images in a step.
        rate: learning rate of SGD.
        ramp: epochs over which ε grows in training.
        steps: of PGD in training and in records.
        n_probe: images of the kernels.
        sizes: batch sizes at which the bias of variances is measured.
        draws: images in all batches of a size.
        final: steps and restarts of PGD on the networks at the end.
        statistics: whether the variants of `STATISTICS` are trained.
    """

    dataset: str = "mnist5k"
    width: int = 8
    n_train: int = 600
    n_test: int = 300
    n_watch: int = 150
    eps: float = 0.2
    epochs: int = 6
    batch_size: int = 40
    rate: float = 0.02
    ramp: float = 2.0
    steps: int = 4
    n_probe: int = 20
    sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    draws: int = 3_000
    final: tuple[int, int] = (10, 1)
    statistics: bool = field(default=True, metadata=LISTS)


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        cases: data sets and networks.
        variants: ways to normalize.
        regimes: which of `REGIMES` are trained; those of `STATISTICS` by PGD only.
        seeds: initializations.
    """

    cases: tuple[Case, ...] = (Case(),)
    variants: tuple[Variant, ...] = (*INPUTS[:3], LAYERS[0])
    regimes: tuple[str, ...] = ("pgd",)
    seeds: int = 3


_FASHION = Case(
    "fashion_mnist", n_train=2000, n_test=1000, n_watch=200, eps=0.1, epochs=8, batch_size=50,
    ramp=2.0, n_probe=50, draws=40_000, final=(10, 1),
)  # fmt: skip
_CIFAR = replace(_FASHION, dataset="cifar10", eps=4 / 255, rate=0.01, ramp=0.0, statistics=False)
_PAPER = replace(
    _CIFAR, width=64, n_train=50_000, n_test=10_000, n_watch=1000, eps=8 / 255, epochs=60, batch_size=128,
    steps=10, n_probe=100, statistics=True,
)  # fmt: skip
_ALL = (*INPUTS, *LAYERS, *STATISTICS)
PROFILES = {
    "quick": Config(),
    "full": Config((_FASHION, _CIFAR), _ALL, REGIMES, seeds=20),
    "paper": Config((_PAPER,), _ALL, REGIMES, seeds=5),
}


def jobs(config: Config) -> list[Job]:
    """Every variant in every regime; those of `STATISTICS` under PGD only, and where the case wants them."""
    return [
        Job(
            (case, variant, regime, seed),
            f"{case.dataset}, ε = {case.eps:.3g}, {variant.name}, {regime}",
            seed,
            case.dataset,
        )
        for seed in range(config.seeds)
        for case in config.cases
        for variant in config.variants
        for regime in config.regimes
        if variant not in STATISTICS or (regime == "pgd" and case.statistics)
    ]


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    rows, ratios_of = {}, {}
    for job, arrays in made.items():
        case, variant, regime, seed = job.config
        c = config.cases.index(case)
        place = c, config.variants.index(variant), config.regimes.index(regime), seed
        rows[place] = {name: array for name, array in arrays.items() if name != "ratio"}
        if "ratio" in arrays:
            ratios_of[c, seed] = {"ratio": arrays["ratio"]}
    c, s = len(config.cases), config.seeds
    found = filled((c, len(config.variants), len(config.regimes), s), rows)
    return found | filled((c, s), ratios_of)


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
        the network without normalization trained by PGD.
    """
    return EXPERIMENT.run(config, progress=progress)


def model_of(case: Case, variant: Variant, n_outputs: int) -> networks.Model:
    """The network of a case, with normalized inputs."""
    return normalization.on_normalized_inputs(
        networks.small_cnn(n_outputs, width=case.width, norm=variant.norm)
    )


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


def _start(case: Case, variant: Variant, images: data.Dataset, seed: int) -> tuple[Any, Any]:
    k = len(images.classes)
    statistics = normalization.input_statistics(images.x_train, variant.inputs)
    model = networks.small_cnn(k, width=case.width, norm=variant.norm)
    params, state = model.init(jax.random.key(seed), images.x_train[:1])
    if variant.warm:
        shift, scale = statistics
        # With no memory, one pass leaves the statistics of the images themselves, layer after layer.
        forgetful = networks.small_cnn(k, width=case.width, norm=BatchNorm(momentum=0.0))
        state = forgetful.apply(params, state, jnp.asarray((images.x_train[:500] - shift) / scale), True)[1]
    return normalization.normalize_inputs((params, state), statistics)


def compute(case: Case, variant: Variant, regime: str, seed: int) -> Arrays:
    """One network, its accuracies and what its kernels say."""
    images = images_of(case)
    one = trained(case, variant, regime, seed)
    model, k = model_of(case, variant, len(images.classes)), len(images.classes)
    probe = images.x_train[: case.n_probe]
    modes = np.full(2, np.nan)
    still = normalization.BatchNorm(evaluation="batch")
    alone = variant.norm != still  # whether an image's outputs in evaluation mode are its own
    evaluated = flat(_kernel(model, False, not alone)(one.variables, probe))
    if "batch_stats" in one.variables[1][2] and not variant.clean_too:
        for i, variables in enumerate((one.snapshots[0.0], one.variables)):
            kernels = [
                flat(_kernel(model, training, training or not alone)(variables, probe))
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
def _kernel(model: networks.Model, training: bool, mixes: bool) -> Any:
    make = normalization.training_mode if training else networks.evaluation
    return empirical_ntk_fn(make(model), reduce="full", batch_statistics=mixes)


def _final(case: Case, model: networks.Model, variables: Any, seed: int, alone: bool) -> np.ndarray:
    f, images = networks.predict_fn(model, variables), images_of(case)
    x, y = images.x_test, images.y_test
    if alone:
        return at_the_end(f, case, seed, batch_size=len(x))
    # Where outputs depend on the batch, a point found in other company fools nobody: all images move
    # together, and are classified together as they are in the end.
    attack = training_attack(Threat("linf", case.eps), steps=case.final[0])
    attacked = _together(f, x, y, attack, jax.random.key(1000 + seed))
    return np.array(
        [triple(robust_accuracy(f, np.asarray(points), y, batch_size=len(x))) for points in (x, attacked)]
    )


@jax.jit
def _together(f: Any, x: Any, y: Any, attack: Any, key: Any) -> Any:
    return attack(f, x, y, key, jnp.inf)


def activations(variables: Any, x: np.ndarray) -> list[np.ndarray]:
    """What the two convolutions of a small CNN without normalization put out, (n, h, w, c) each."""
    found = []
    for name in ("Conv_0", "Conv_1"):
        weights = variables[0][name]
        before = average_pool(nn.relu(found[-1])) if found else x
        found.append(jax.jit(Conv(weights["kernel"].shape[-1]).apply)({"params": weights}, before))
    return [np.asarray(one) for one in found]


def _ratios(case: Case, variables: Any, seed: int) -> np.ndarray:
    """Predicted and measured ratios (layers, sizes, estimators, 2)."""
    images = images_of(case)
    layers = activations(variables, images.x_train[:400])
    return np.stack([ratios(layer, case.sizes, case.draws, seed) for layer in layers])


def ratios(values: np.ndarray, sizes: tuple[int, ...], draws: int, seed: int) -> np.ndarray:
    """E[estimator] / σ², mean over channels, for batches drawn with replacement (sizes, estimators, 2)."""
    rng = np.random.default_rng(seed)
    total = values.var(axis=(0, 1, 2), dtype=float)
    live = total > 1e-12
    # Every estimator needs two sums of each image alone.
    sums, squares = values.mean(axis=(1, 2), dtype=float), (values.astype(float) ** 2).mean(axis=(1, 2))
    positions = values.shape[1] * values.shape[2]
    found = np.empty((len(sizes), len(ESTIMATORS), 2))
    for i, size in enumerate(sizes):
        rows = rng.integers(0, len(values), (draws // size, size))
        images, mean = sums[rows], sums[rows].mean(axis=1)
        biased = squares[rows].mean(axis=1) - mean**2
        spread = ((images - mean[:, None]) ** 2).sum(axis=1) / (size * (size - 1))
        values_of = {
            "biased": biased,
            "unbiased": biased * (size * positions / (size * positions - 1)),
            "by_image": biased + spread,
        }
        for j, estimator in enumerate(ESTIMATORS):
            predicted = normalization.variance_ratio(values, size, estimator)[live].mean()
            found[i, j] = predicted, (values_of[estimator].mean(axis=0)[live] / total[live]).mean()
    return found


EXPERIMENT = Experiment("normalization", 1, PROFILES, jobs, compute, gather, measured=("seconds",))
recorded = EXPERIMENT.recorded
