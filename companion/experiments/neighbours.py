"""Two relatives of the tangent kernel under attack: conjugate kernels and large biases (chapter 10).

The conjugate kernel keeps the last layer's part of the tangent kernel alone (Qadeer et al. 2023, arXiv
2310.18612, who measure clean accuracy): here both are fitted to the same images and attacked, certified and
timed, of infinitely wide networks, and of trained ones. A hidden layer whose biases all start at −B has few
active units (Yang et al. 2024, arXiv 2301.00327): how many, before and after training, how fast it is
trained, and what is left under attack, against B.
"""

import time
from collections.abc import Mapping

import jax
import numpy as np

from companion import features, guarantees, networks, regression
from companion.attacks import Threat, autoattack, pgd, random_sign
from companion.experiments._experiment import Arrays, Experiment, Job, Part, filled
from companion.experiments._neighbours_cases import (
    KINDS,
    PREDICTORS,
    PROFILES,
    SOURCES,
    TRAININGS,
    Case,
    Config,
)
from companion.experiments._neighbours_networks import (
    active_share,
    attacked,
    empirical_predictor,
    images_of,
    network_of,
    on_sphere,
    one_bias,
    right,
    trained_kernels,
    unit_inputs,
)
from companion.experiments._shared import architecture
from companion.kernels import gram

__all__ = [
    "EXPERIMENT",
    "KINDS",
    "PREDICTORS",
    "PROFILES",
    "SOURCES",
    "TRAININGS",
    "Case",
    "Config",
    "active_share",
    "compute",
    "empirical_predictor",
    "gather",
    "jobs",
    "on_sphere",
    "recorded",
    "run",
    "unit_inputs",
]


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Fit, attack and certify both kernels, those of trained networks, and those of large biases.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays, NaN where there is no run, over cases c and seeds s.

        Of kernels k and `KINDS` i: `clean` (c, s, k, i), accuracy on all test images; of the attacked ones
        `auto` (c, s, k, i, 2), accuracy before and after AutoAttack; `along` (c, s, k, i, r, 2), clean and
        under PGD at each of `ridges`; `transferred` (c, s, k, `SOURCES`), that
        of a trained network on the images that PGD moved on each kernel, and on random signs; `certified`
        (c, s, k, i, e), the share that is right and cannot be changed within L2 e; `useful` and `robust`
        (c, s, k, i, f), accuracy of single features, and under an attack of each; `overlap` (c, s, k), the
        mean squared cosine of the angles between the two spaces of these features; `seconds` (c, s, k, i).

        Of `TRAININGS` t and `PREDICTORS` p: `trained` (c, s, t, p, 2), accuracy clean and under PGD.

        Of biases b: `active` (c, s, b, 3), the share of active units by theory, and of a network before and
        after training; `gradient_steps` (c, s, b), from the start to a tenth of the residual,
        NaN where 5,000 are not enough; `smallest`
        (c, s, b), the least eigenvalue over the mean; `biased` (c, s, b, 2), accuracy clean and under PGD.
    """
    return EXPERIMENT.run(config, progress=progress)


def jobs(config: Config) -> list[Job]:
    """The first kernel and the biases, case by case; then trained networks, and then deeper kernels."""
    found = []
    for seed in range(_splits(config)):
        for case in config.cases:
            name = f"{case.dataset} {'/'.join(map(str, case.classes))}"
            for kernel in config.kernels if seed < config.seeds else config.kernels[:1]:
                how = (
                    config.ridge,
                    config.ridges,
                    config.radii,
                    config.attacks,
                    config.queries,
                    config.steps,
                    config.features,
                )
                sizes = *how, config.width, config.epochs
                job = Job(("kernels", case, seed, kernel, *sizes), f"{name}, {kernel}", seed, case.dataset)
                found.append((2 * config.kernels.index(kernel), job))
            if seed >= config.seeds:
                continue
            sizes = config.ridge, config.steps, config.width, config.epochs
            found.append((1, Job(("trained", case, seed, *sizes), f"{name}, trained", seed, case.dataset)))
            for bias in config.biases:
                sizes = config.ridge, config.steps, config.width
                job = ("hidden", case, seed, bias, *sizes)
                found.append((0, Job(job, f"{name}, bias {bias:g}", seed, case.dataset)))
    return [job for _, job in sorted(found, key=lambda one: (one[0], config.cases.index(one[1].config[1])))]


def compute(part: str, *sizes: Part) -> Arrays:
    """One kernel with its conjugate, the kernels of trained networks, or one bias."""
    return {"kernels": _kernels, "trained": trained_kernels, "hidden": one_bias}[part](*sizes)


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    parts: dict[str, dict[tuple[int, ...], Mapping[str, np.ndarray]]] = {
        name: {} for name in ("kernels", "trained", "hidden")
    }
    for job, arrays in made.items():
        part, case, seed, which = job.config[:4]
        place = {"kernels": config.kernels, "trained": (), "hidden": config.biases}[part]
        end = (place.index(which),) if place else ()
        parts[part][config.cases.index(case), seed, *end] = arrays
    shape = len(config.cases), _splits(config)
    return (
        filled((*shape, len(config.kernels)), parts["kernels"])
        | filled(shape, parts["trained"])
        | filled((*shape, len(config.biases)), parts["hidden"])
    )


def _splits(config: Config) -> int:
    return max(config.seeds, config.draws)


def _kernels(
    case: Case,
    seed: int,
    name: str,
    ridge: float,
    ridges: tuple[float, ...],
    radii: tuple[float, ...],
    attacks: tuple[str, ...],
    queries: int,
    steps: int,
    top: int,
    width: int,
    epochs: int,
) -> Arrays:
    convolutional = name.startswith("Conv")
    images, targets = images_of(case, seed, case.n_conv if convolutional else case.n_train)
    m = case.n_conv_attacked if convolutional else case.n_attacked
    x, y, threat = images.x_test[:m], images.y_test[:m], Threat("linf", case.eps)
    kernel, key = architecture(name), jax.random.key(seed)
    found, moved, spaces = [], {"random": random_sign(x, threat, key=key)}, []
    for kind in KINDS:
        gram(kernel, images.x_train, kind=kind)  # once to compile
        start = time.perf_counter()
        matrix = gram(kernel, images.x_train, kind=kind)
        seconds = time.perf_counter() - start
        f = regression.fit(kernel, images.x_train, targets, kind=kind, k_train_train=matrix)
        unit = float(f.eigenvalues.mean())
        along = [attacked(f.with_ridge(one * unit), x, y, case, steps) for one in ridges]
        f = f.with_ridge(ridge * unit)
        moved[kind] = pgd(f, x, y, threat, steps=steps, loss="margin", batch_size=m)
        options = {"version": attacks, "queries": queries, "batch_size": min(64, m)}
        left = autoattack(f, x, y, threat, key=key, **options).accuracy
        rights = right(f, images.x_test, images.y_test)
        certain = guarantees.certified_accuracy(guarantees.radius(f, images.x_test), rights, np.array(radii))
        some = {"modes": min(top, len(targets)), "steps": 1}
        found.append(
            {
                "along": np.array(along),
                "clean": rights.mean(),
                "auto": np.array([left["clean"].value, left[attacks[-1]].value]),
                "certified": certain.value,
                "useful": features.correct(f, x, y, modes=some["modes"]).mean(axis=0),
                "robust": features.correct_under_attack(f, x, y, threat, **some).mean(axis=0),
                "seconds": seconds,
            }
        )
        spaces.append(f.eigenvectors)
    network, variables = network_of(case, seed, images, "standard", width, epochs)
    predict = networks.predict_fn(network, variables)
    angles = features.principal_angles(*spaces, top=min(top, len(targets)))
    return {part: np.stack([one[part] for one in found]) for part in found[0]} | {
        "transferred": np.array([right(predict, moved[source], y).mean() for source in SOURCES]),
        "overlap": (np.cos(angles) ** 2).mean(),
    }


EXPERIMENT = Experiment("neighbours", 1, PROFILES, jobs, compute, gather, measured=("seconds",))
recorded = EXPERIMENT.recorded
