"""How much the recorded robust accuracies overstate: AutoAttack beside PGD on networks of other experiments.

A network is trained again as its own experiment does it, and attacked at the end by that experiment's PGD
with restarts and by AutoAttack, on the same test images. The gap is what a reader has to take off a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from companion import networks
from companion.attacks import STANDARD, Threat, autoattack, outputs_of, pgd
from companion.experiments import catastrophic, normalization, warm_start
from companion.experiments._experiment import LISTS, Arrays, Experiment, Job, filled
from companion.experiments._shared import images_of
from companion.statistics import proportion
from companion.training import Run

__all__ = ["EXPERIMENT", "PROFILES", "STAGES", "Config", "Network", "gather", "jobs", "recorded", "run"]

STAGES = ("clean", "pgd", *STANDARD)


@dataclass(frozen=True)
class Network:
    """One way to train a network.

    Attributes:
        experiment: "warm_start", "normalization" or "catastrophic".
        case: of that experiment: data, network, ε, the PGD of the end.
        how: what else that experiment's training depends on: schedule and rate; variant and regime; method.
    """

    experiment: str
    case: warm_start.Case | normalization.Case | catastrophic.Case
    how: tuple[str | normalization.Variant, ...]

    @property
    def label(self) -> str:
        """Experiment, data set, and how it was trained."""
        words = ", ".join(one if isinstance(one, str) else one.name for one in self.how)
        return f"{self.experiment}, {self.case.dataset}, ε = {self.case.eps:.3g}, {words}"


@dataclass(frozen=True)
class Config:
    """Sizes of one profile.

    Attributes:
        networks: which.
        seeds: of each; the same starts as in their experiments.
        n_test: test images, the first of the experiment's.
        queries: of the square attack.
    """

    networks: tuple[Network, ...] = field(metadata=LISTS)
    seeds: int = field(default=1, metadata=LISTS)
    n_test: int = 50
    queries: int = 100


def _trained_by(case: str, *methods: str) -> list[Network]:
    """Networks of chapter 6, at a constant rate."""
    cases = {one.dataset: one for one in warm_start.PROFILES["full"].cases}
    return [Network("warm_start", cases[case], (method, "constant")) for method in methods]


def _normalized_by(case: str, *variants: normalization.Variant) -> list[Network]:
    """Networks of chapter 5 under PGD training."""
    cases = {one.dataset: one for one in normalization.PROFILES["full"].cases}
    return [Network("normalization", cases[case], (variant, "pgd")) for variant in variants]


def _every(sets: tuple[str, ...] = ("cifar10", "fashion_mnist")) -> tuple[Network, ...]:
    found = []
    for name in sets:
        found += _trained_by(name, "pgd", "fgsm", "growing steps", "clean for 4", "free", "standard")
        found += _normalized_by(name, *normalization.INPUTS[:2], normalization.LAYERS[0])
    for case in catastrophic.PROFILES["full"].cases:
        found += [
            Network("catastrophic", case, (method,))
            for method in ("pgd", "fgsm", "gradient noise", "isotropic noise")
        ]
    return tuple(found)


PROFILES = {
    "quick": Config((Network("warm_start", warm_start.Case(epochs=2), ("pgd", "constant")),)),
    "full": Config(_every(), seeds=3, n_test=200, queries=1000),
    "paper": Config(
        tuple(
            Network("warm_start", case, (method, "constant"))
            for case in warm_start.PROFILES["paper"].cases
            for method in ("pgd", "fgsm", "growing steps", "standard")
        ),
        seeds=3,
        n_test=10_000,
        queries=5000,
    ),
}


def jobs(config: Config) -> list[Job]:
    """Every network, seed by seed."""
    return [
        Job((one, config.n_test, config.queries, seed), one.label, seed, one.case.dataset)
        for seed in range(config.seeds)
        for one in config.networks
    ]


def compute(one: Network, n_test: int, queries: int, seed: int) -> Arrays:
    """One network, attacked at its end by both."""
    model, run = _trained(one, seed)
    images, case = images_of(one.case), one.case
    x, y, threat = images.x_test[:n_test], images.y_test[:n_test], Threat("linf", case.eps)
    f, (steps, restarts) = networks.predict_fn(model, run.variables), case.final
    key, size = jax.random.key(1000 + seed), min(512, len(x))
    options = {"early_stop": True, "batch_size": size, "key": key}
    moved = pgd(f, x, y, threat, steps=steps, restarts=restarts, **options)
    right = outputs_of(f, moved, size).argmax(axis=-1) == y
    found = autoattack(f, x, y, threat, key=jax.random.fold_in(key, 1), queries=queries, batch_size=size)
    stages = [found.accuracy["clean"], proportion(right), *(found.accuracy[name] for name in STANDARD)]
    return {
        "accuracy": np.stack([stage.as_array() for stage in stages]),
        # Of the images that PGD leaves: how many AutoAttack fools; and the other way round.
        "more": np.array([(right & (found.fooled_by >= 0)).sum(), (~right & (found.fooled_by < 0)).sum()]),
        "seconds": np.array([run.seconds[-1], sum(found.seconds.values())]),
    }


def _trained(one: Network, seed: int) -> tuple[networks.Model, Run]:
    """The network as its experiment trains it."""
    case, how, k = one.case, one.how, len(images_of(one.case).classes)
    if one.experiment == "warm_start":
        return warm_start.model_of(case, k), warm_start.trained(case, *how, seed)
    if one.experiment == "normalization":
        return normalization.model_of(case, how[0], k), normalization.trained(case, *how, seed)
    if one.experiment != "catastrophic":
        raise ValueError(f"experiment must be one that trains networks, got {one.experiment!r}")
    attack, penalty = catastrophic.attack_of(case, how[0]), catastrophic.penalty_of(case, how[0])
    return catastrophic.model_of(case, k), catastrophic.trained(case, seed, attack, penalty, method=how[0])


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    places = {(config.networks.index(job.config[0]), job.seed): arrays for job, arrays in made.items()}
    return filled((len(config.networks), config.seeds), places)


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Train networks again and attack them by both.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays over networks w and seeds s: `accuracy` (w, s, 6, 3) after each of `STAGES` with the ends of
        95 % intervals, PGD by itself, each attack of AutoAttack on what those before left; `more` (w, s, 2):
        images that AutoAttack alone fools, and PGD alone; `seconds` (w, s, 2) of training and of AutoAttack.
    """
    return EXPERIMENT.run(config, progress=progress)


EXPERIMENT = Experiment("evaluation", 1, PROFILES, jobs, compute, gather, measured=("seconds",))
recorded = EXPERIMENT.recorded
