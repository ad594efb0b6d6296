"""What is certain of kernel predictors beside what attacks find, and training data as the target (chapter 8).

Certified ≤ true ≤ attacked: radii from the feature map's Lipschitz constant (Bietti & Mairal 2019, arXiv
1905.12173) beside PGD and FAB on the same images, for every kernel, ridge and time, and for adversarial
training in feature space (Ribeiro et al. 2025, arXiv 2510.20883). The smallest number of training labels
that alters a prediction, exactly. Training images poisoned through the kernel (Yuan & Wu 2021, ICML),
by one step and by many, beside random signs of the same size.
"""

from collections.abc import Mapping

import jax
import numpy as np

from companion import data, guarantees, regression
from companion._core.checks import predicted
from companion.architectures import Architecture
from companion.attacks import Threat, fab, outputs_of, pgd, random_sign, robust_accuracy
from companion.experiments._experiment import Arrays, Experiment, Job, Part, filled
from companion.experiments._guarantees_cases import FITS, PROFILES, QUANTILES, Case, Config, Poison
from companion.experiments._shared import architecture
from companion.kernels import gram
from companion.regression import KernelPredictor
from companion.statistics import proportion

__all__ = [
    "EXPERIMENT",
    "FITS",
    "PROFILES",
    "QUANTILES",
    "Case",
    "Config",
    "Poison",
    "compute",
    "gather",
    "jobs",
    "recorded",
    "rows",
    "run",
]


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Certify and attack every kernel, change labels, and poison.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays, NaN where there is no run. Axes: r rows as `rows(config)` names them (case, kernel); s seeds,
        each a split of its own; f fits, those of `config.fits` and then `regression.fit_robust` at its
        default δ; e sizes `config.eps`, L2; b numbers of labels `config.budgets`; q `QUANTILES`; a last axis
        of length 3 is a value and the ends of its 95 % interval.
        On all test images: `clean` (r, s, f, 3), accuracy; `certified` (r, s, f, e, 3), the share that is
        right whatever an attack of this size does; `radius` (r, s, f, q), quantiles of the certified radius
        over images that are classified rightly; `flips` (r, s, f, b, 3), the share that is right whatever so
        many labels are changed, for each image the worst, and `shared` (r, s, f, b), a bound for one set of
        changes for all images: both NaN for the last fit.
        On the first `n_attacked`: `attacked` (r, s, f, e, 3), the share that FAB and PGD left, an upper bound
        of robust accuracy; `gap` (r, s, f, e, 3), the share that is neither certified nor fooled, so that
        attacked − gap is what is certified on these same images; `distance`
        (r, s, f, q), quantiles over images that are classified rightly of the smallest perturbation found, ∞
        where none was, and `tightness` (r, s, f, q), of radius over distance; `tried` (r, s, f), how many
        attacks tested a radius (of every image with one, FAB's search and PGD at each size below it), and
        `broken` (r, s, f), how many of these changed the class inside it: none, if the proofs are right.
        Poisons, p of them: `poisoned` (p, s, 4, k, 3), accuracy on clean test images after fitting to the
        training images `FITS` (clean, random signs, one step, PGD), for the kernel that was attacked and for
        the others, to which the images are transferred.
    """
    return EXPERIMENT.run(config, progress=progress)


def jobs(config: Config) -> list[Job]:
    """Of every seed the rows of the first case, the poisons, and the other rows."""
    how = config.fits, config.eps, config.budgets, config.pgd, config.fab
    found = []
    for seed in range(config.seeds):
        kernels = [
            Job(
                ("certificates", case, name, seed, *how),
                f"{_name(case)}, {case.n_train:,} images, {name}",
                seed,
                case.dataset,
            )
            for case, name in rows(config)
        ]
        poisons = [
            Job(
                ("poison", some, seed),
                f"{_name(some)}, {some.n_train:,} images, poisoned, ε = {some.eps:.3g}",
                seed,
                some.dataset,
            )
            for some in config.poisons
        ]
        first = len(config.cases[0].kernels)
        found += kernels[:first] + poisons + kernels[first:]
    return found


def compute(part: str, *sizes: Part) -> Arrays:
    """One kernel on one split, or one poison."""
    return {"certificates": _certified, "poison": _poisoned}[part](*sizes)


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    kernels, poisons = {}, {}
    for job, arrays in made.items():
        if job.config[0] == "certificates":
            kernels[rows(config).index(job.config[1:3]), job.seed] = _with_intervals(arrays, job.config[1])
        else:
            poisons[config.poisons.index(job.config[1]), job.seed] = _with_intervals(arrays, job.config[1])
    return filled((len(rows(config)), config.seeds), kernels) | filled(
        (len(config.poisons), config.seeds), poisons
    )


def rows(config: Config) -> list[tuple[Case, str]]:
    """Case and kernel of every row: the first case's; then pairs, and then ten classes, kernel by kernel."""
    found = [(case, name) for case in config.cases for name in case.kernels]
    return sorted(
        found, key=lambda row: (row[0] != found[0][0], row[0].classes is None, row[0].kernels.index(row[1]))
    )


def _with_intervals(arrays: Mapping[str, np.ndarray], case: Case | Poison) -> Arrays:
    """A run's arrays, its shares with the intervals that their numbers of images give."""
    images = dict.fromkeys(("clean", "certified", "flips", "poisoned"), case.n_test)
    if isinstance(case, Case):
        images |= dict.fromkeys(("attacked", "gap"), case.n_attacked)
    found = dict(arrays)
    for name in images.keys() & arrays.keys():
        share, n = arrays[name], images[name]
        ones = np.arange(n)[:, None] < np.round(np.nan_to_num(share).ravel() * n)
        estimates = proportion(ones).as_array().reshape(*share.shape, 3)
        found[name] = np.where(np.isnan(share)[..., None], np.nan, estimates)
    return found


def _name(case: Case | Poison) -> str:
    return f"{case.dataset} {'ten classes' if case.classes is None else '/'.join(map(str, case.classes))}"


def _kernel(name: str) -> tuple[Architecture, str]:
    """The network family and the kind of kernel that a name such as "FC-1 relu ntk" stands for."""
    network, activation, kind = name.split()
    return architecture(network, activation=activation), kind


def _certified(
    case: Case,
    name: str,
    seed: int,
    fits: tuple[tuple[float, float | None], ...],
    eps: tuple[float, ...],
    budgets: tuple[int, ...],
    steps: tuple[int, int],
    fab_steps: int,
) -> Arrays:
    images = data.load(
        case.dataset, classes=case.classes, n_train=case.n_train, n_test=case.n_test, seed=seed
    )
    (kernel, kind), y = _kernel(name), images.y_test
    targets = data.targets(images.y_train, len(images.classes))
    whole = regression.fit(kernel, images.x_train, targets, kind=kind)
    cross, unit = gram(kernel, images.x_test, images.x_train, kind=kind), float(whole.eigenvalues.mean())
    found = []
    for ridge, t in fits:
        f = whole.with_ridge(ridge * unit)
        f = f if t is None else f.at(t / unit)
        number = guarantees.flips(f, None, y, k_test_train=cross)
        found.append(
            _measured(f, images.x_test, y, case, seed, np.array(eps), steps, fab_steps)
            | {
                "flips": guarantees.flip_accuracy(number, budgets).value,
                "shared": guarantees.shared_flip_accuracy(f, None, y, budgets, k_test_train=cross),
            }
        )
    f = regression.fit_robust(kernel, images.x_train, targets, kind=kind)
    nothing = {part: np.full_like(found[0][part], np.nan) for part in ("flips", "shared")}
    found.append(_measured(f, images.x_test, y, case, seed, np.array(eps), steps, fab_steps) | nothing)
    return {part: np.stack([one[part] for one in found]) for part in found[0]}


def _measured(
    f: KernelPredictor,
    x: np.ndarray,
    y: np.ndarray,
    case: Case,
    seed: int,
    eps: np.ndarray,
    steps: tuple[int, int],
    fab_steps: int,
) -> Arrays:
    """What of one predictor is certain, and what attacks find."""
    radii, classes = guarantees.radius(f, x), _classes(f, x)
    right = classes == y
    # The attacks leave the class that f gives, right or wrong: for every image its radius is tested.
    some = slice(case.n_attacked)
    distance, tried, broken = _attacked(f, x[some], classes[some], radii[some], case, seed, steps, fab_steps)
    kept, inside = right[some, None] & (distance[:, None] > eps), radii[some, None] > eps
    certain = right[some, None] & (inside | (eps == 0))
    of_right = distance[right[some]]
    return {
        "clean": np.array(right.mean()),
        "certified": guarantees.certified_accuracy(radii, right, eps).value,
        "radius": np.quantile(radii[right], QUANTILES),
        "attacked": kept.mean(axis=0),
        "gap": (kept & ~certain).mean(axis=0),
        "distance": _quantiles(of_right),
        "tightness": np.quantile(radii[some][right[some]] / of_right, QUANTILES),
        "tried": np.array(tried),
        "broken": np.array(broken),
    }


def _attacked(
    f: KernelPredictor,
    x: np.ndarray,
    classes: np.ndarray,
    radii: np.ndarray,
    case: Case,
    seed: int,
    steps: tuple[int, int],
    fab_steps: int,
) -> tuple[np.ndarray, int, int]:
    """The smallest perturbation found that changes each class; attacks inside radii, and successful ones."""
    points = [fab(f, x, classes, norm="l2", steps=fab_steps, targets=case.targets).attacked]
    tried = int((radii > 0).sum())
    for number, size in enumerate(case.attack_eps):
        key = jax.random.fold_in(jax.random.key(seed), number)
        options = {"steps": steps[0], "restarts": steps[1], "key": key, "early_stop": True}
        points.append(pgd(f, x, classes, Threat("l2", size), **options))
        tried += int((radii > size).sum())
    distance, broken = np.full(len(x), np.inf), 0
    for each in points:
        apart = np.sqrt(((each.astype(np.float64) - x).reshape(len(x), -1) ** 2).sum(axis=1))
        apart = np.where(_classes(f, each) != classes, apart, np.inf)
        broken += int((apart < radii).sum())
        distance = np.minimum(distance, apart)
    return distance, tried, broken


def _quantiles(values: np.ndarray) -> np.ndarray:
    # Between a number and ∞ there is nothing to interpolate.
    return np.quantile(values, QUANTILES, method="lower")


def _classes(f: KernelPredictor, x: np.ndarray) -> np.ndarray:
    return predicted(outputs_of(f, x, 256))


def _poisoned(some: Poison, seed: int) -> Arrays:
    images = data.load(
        some.dataset,
        classes=some.classes,
        n_train=some.n_train + some.n_val,
        n_test=some.n_test,
        seed=seed,
    )
    x, x_val = images.x_train[: some.n_train], images.x_train[some.n_train :]
    targets, threat = data.targets(images.y_train[: some.n_train], 2), Threat("linf", some.eps)
    kernels = [_kernel(name) for name in some.kernels]
    ridges = [some.ridge * float(np.diag(gram(kernel, x, kind=kind)).mean()) for kernel, kind in kernels]
    (first, kind), ridge = kernels[0], ridges[0]
    moved = [x, random_sign(x, threat, key=jax.random.key(seed))]
    for steps in (1, some.steps):
        options = {"steps": steps, "ridge": ridge, "kind": kind}
        labels = images.y_train[some.n_train :]
        moved.append(guarantees.poison(first, x, targets, x_val, labels, threat, **options))
    accuracy = [
        [
            robust_accuracy(
                regression.fit(kernel, each, targets, kind=kind, ridge=ridge), images.x_test, images.y_test
            ).value
            for (kernel, kind), ridge in zip(kernels, ridges, strict=True)
        ]
        for each in moved
    ]
    return {"poisoned": np.array(accuracy)}


EXPERIMENT = Experiment("guarantees", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
