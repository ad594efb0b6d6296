"""Adv-NTK beside its control: a clock for every training example, and one time for all (chapter 9).

Fu & Wang (2024, arXiv 2310.06112) let every training example of a kernel regression learn for a time of its
own, chosen on attacked validation images. With one time for all this is early stopping. Here both are chosen
on the same images, as is a ridge, and evaluated on the same test images under the same attacks; and clocks
are dealt out anew, to see whether it matters which image has which. "By the released code" re-enacts the
optimizer and the attack of the authors' code, not their inputs: pixels stay in [0, 1] and targets centered
(theirs: pixels minus 0.5, plain one-hot). It is judged under the same attacks as the others.
"""

from collections.abc import Mapping

import numpy as np

from companion import clocks, regression
from companion.attacks import STANDARD, training_attack
from companion.experiments._clocks_cases import (
    CONTROLS,
    LEARNED,
    PROFILES,
    ROWS,
    SCALARS,
    STRONGEST,
    Case,
    Config,
)
from companion.experiments._clocks_networks import centered, on_the_road
from companion.experiments._clocks_released import released_attack
from companion.experiments._clocks_split import Split, packed, unpacked
from companion.experiments._experiment import Arrays, Experiment, Job, Part, filled
from companion.experiments._shared import architecture
from companion.results import Result

__all__ = [
    "CONTROLS",
    "EXPERIMENT",
    "LEARNED",
    "PROFILES",
    "ROWS",
    "SCALARS",
    "STRONGEST",
    "Case",
    "Config",
    "compute",
    "gather",
    "jobs",
    "recorded",
    "released_attack",
    "robust",
    "run",
]


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Fit, choose times, ridges and clocks on attacked validation images, and attack test images.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays, NaN where there is no run, over cases c and seeds s. Of `ROWS` r: `right` (c, s, r, 2, m), 1
        where a test image is right as it is, and where it is right under PGD too; `auto` (c, s, r, m'), 1
        where it is right under PGD and both Auto-PGDs, of the first images, for plain regression, the best
        time and ridge, and the clocks that were learned from 0 and from the best time; of these rows
        `autoattack` (c, s, r, 4, m''), 1 where it is right after each of AutoAttack's attacks. `along`
        (c, s, 2, q, 2): clean and robust accuracy on validation images at each of the times and ridges;
        `curve` (c, s, q, 2): on test images at each time. `chosen` (c, s, 2): which time and ridge.
        `network` (c, s, 2, q, 2, m): as `right`, of a wide finite network of the kernel's kind at `moments`
        (c, s, q) of its training, in the units of `times`, plain and against PGD, which started at 0.
        `clocks` (c, s, 3, n): those learned, in units of one over the mean diagonal, as `best` (c, s), the
        best time; `losses` (c, s, 3, steps).
    """
    return EXPERIMENT.run(config, progress=progress)


def jobs(config: Config) -> list[Job]:
    """Of every seed and case the controls, three ways to learn clocks, which need them, networks, AutoAttack.

    AutoAttack needs the controls and our two ways, whose times and clocks it takes from the record.
    """
    found = []
    how = (config.times, config.ridges, config.pgd, config.weights)
    for seed in range(config.seeds):
        for case in config.cases:
            first = Job(("controls", case, seed, *how), _label(case, "controls"), seed, case.dataset)
            sizes = config.steps, config.batch_size, config.zeta
            ways = [
                Job(
                    ("learned", case, seed, *how, way, *sizes),
                    _label(case, f"clocks {way}"),
                    seed,
                    case.dataset,
                    (first,),
                )
                for way in LEARNED
            ]
            found += [first, *ways]
            job = ("networks", case, seed, config.moments, config.pgd, config.weights, config.width)
            found.append(Job(job, _label(case, "networks"), seed, case.dataset))
            if config.n_autoattack and architecture(case.kernel).pixel_power == 0:
                n = min(config.n_autoattack, case.n_test)
                job = ("autoattack", case, seed, config.times, config.ridges, config.weights, n)
                found.append(Job(job, _label(case, "AutoAttack"), seed, case.dataset, (first, *ways[:2])))
    return found


def compute(part: str, *sizes: Part) -> Arrays:
    """The controls of one split, the clocks learned in one way, networks, or AutoAttack."""
    parts = {"controls": _controls, "learned": _learned, "networks": _networks, "autoattack": _autoattack}
    return parts[part](*sizes)


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    rows, whole, ways, nets = {}, {}, {}, {}
    for job, arrays in made.items():
        case = job.config[1]
        place = config.cases.index(case), job.seed
        if job.config[0] == "networks":
            network = [[[unpacked(x, case.n_test) for x in two] for two in way] for way in arrays["network"]]
            nets[place] = {"network": np.array(network), "moments": arrays["moments"]}
            continue
        if job.config[0] == "autoattack":
            for name, one in zip(STRONGEST, arrays["autoattack"], strict=True):
                left = np.array([unpacked(stage, job.config[-1]) for stage in one])
                rows.setdefault((*place, ROWS.index(name)), {})["autoattack"] = left
            continue
        names = CONTROLS if job.config[0] == "controls" else _rows_of(job.config[7])
        for i, name in enumerate(names):
            row = {"right": np.stack([unpacked(one, case.n_test) for one in arrays["right"][i]])}
            if np.isfinite(arrays["auto"][i]).all():
                row["auto"] = unpacked(arrays["auto"][i], case.n_auto)
            rows.setdefault((*place, ROWS.index(name)), {}).update(row)
        if job.config[0] == "controls":
            whole[place] = {name: arrays[name] for name in ("along", "curve", "chosen", "best")}
        else:
            ways[*place, LEARNED.index(job.config[7])] = {name: arrays[name] for name in ("clocks", "losses")}
    shape = len(config.cases), config.seeds
    found = filled((*shape, len(ROWS)), rows) | filled(shape, whole) | filled((*shape, len(LEARNED)), ways)
    return found | filled(shape, nets)


def robust(record: Result, case: int, *rows: str) -> tuple[str, np.ndarray]:
    """What is right under the strongest attack that is recorded of all these rows.

    Args:
        record: of this experiment.
        case: its place.
        rows: of `ROWS`.

    Returns:
        "AutoAttack", "AutoAttack on 2 of 3 splits, else PGD", or "PGD": AutoAttack on the splits on which it
        is recorded of all these rows, on the images that it saw; and whether an image is right, bool
        (rows, splits, images), on the splits that all rows have.
    """
    places = [ROWS.index(row) for row in rows]
    m = int(record.provenance["config"]["cases"][case]["n_test"])
    found = record.arrays["right"][case, :, places, 1, :m]
    splits = np.isfinite(found).all(axis=(0, 2))
    found, strong = found[:, splits], record.arrays.get("autoattack")
    if strong is None:
        return "PGD", found > 0
    strong = strong[case, :, places, -1, :m][:, splits]
    there = np.isfinite(strong[..., 0]).all(axis=0)
    if not there.any():
        return "PGD", found > 0
    seen = np.isfinite(strong[:, there]).all(axis=(0, 1))
    name = "" if there.all() else f" on {there.sum()} of {len(there)} splits, else PGD"
    return f"AutoAttack{name}", np.where(there[:, None], strong, found)[..., seen] > 0


def _label(case: Case, what: str) -> str:
    classes = "ten classes" if case.classes is None else "/".join(map(str, case.classes))
    return f"{case.dataset} {classes}, {case.kernel}, n = {case.n_train:,}, ε = {case.eps:.3g}, {what}"


def _rows_of(way: str) -> tuple[str, ...]:
    return (way, *ROWS[-3:]) if way == "from 0" else (way,)


def _controls(
    case: Case,
    seed: int,
    times: tuple[float, ...],
    ridges: tuple[float, ...],
    pgd_steps: tuple[int, int, int],
    weights: tuple[float, float],
) -> Arrays:
    split, n = Split(case, seed, weights), case.n_train
    fits = [
        [split.f.at(t / split.unit) for t in times],
        [split.f.with_ridge(ridge * split.unit) for ridge in ridges],
    ]
    along = np.full((2, max(len(times), len(ridges)), 2), np.nan)
    for i, some in enumerate(fits):
        along[i, : len(some)] = [split.right(f, split.val, pgd_steps[1]).mean(axis=1) for f in some]
    curve = [split.right(f, split.test, pgd_steps[1]).mean(axis=1) for f in fits[0]]
    # Of equals the last: the longest time; and the largest ridge.
    last = [len(some) - 1 - int(np.argmax(along[i, : len(some), 1][::-1])) for i, some in enumerate(fits)]
    every = regression.fit(split.kernel, split.x, split.targets, solver="cholesky")
    rows = [(split.f, True), (every, False), (fits[0][last[0]], True), (fits[1][last[1]], True)]
    rows.append((regression.fit_robust(split.kernel, split.x[:n], split.targets[:n]), False))
    found = split.measured(rows, pgd_steps[2])
    best = np.array(times[last[0]])
    return found | {"along": along, "curve": np.array(curve), "chosen": np.array(last), "best": best}


def _learned(
    case: Case,
    seed: int,
    times: tuple[float, ...],
    ridges: tuple[float, ...],  # noqa: ARG001  (of the controls)
    pgd_steps: tuple[int, int, int],
    weights: tuple[float, float],
    way: str,
    steps: int,
    batch_size: int,
    zeta: float,
    controls: Mapping[str, np.ndarray],
) -> Arrays:
    split = Split(case, seed, weights)
    best = times[int(controls["chosen"][0])] / split.unit
    options = {"steps": steps, "batch_size": batch_size, "solver": case.solver}
    # Both of ours can reach twice the best time, or come back to 0 from it.
    options |= {"rate": 2 * best / steps, "start": best if way == "from the best time" else 0.0}
    options["attack"] = training_attack(split.threat, steps=pgd_steps[0])
    if way == "by the released code":
        attack = released_attack(split.threat, steps=pgd_steps[0])
        options |= {"rate": zeta / np.sqrt(case.n_train), "attack": attack, "released": True}
    found = clocks.learn(split.f, *split.val, split.threat, key=split.key(2), **options)
    fits = [(found.f, way != "by the released code")]
    if way == "from 0":
        fits += [
            (clocks.clocked(split.f, dealt, solver=case.solver), False) for dealt in _dealt(found, split)
        ]
    measured = split.measured(fits, pgd_steps[2])
    return measured | {"clocks": found.clocks * split.unit, "losses": found.losses}


def _networks(
    case: Case,
    seed: int,
    moments: tuple[float, ...],
    pgd_steps: tuple[int, int, int],
    weights: tuple[float, float],
    width: int,
) -> Arrays:
    split, n = Split(case, seed, weights), case.n_train
    size = {"width": width, "n_outputs": split.targets.shape[1]}
    network = architecture(case.kernel, w_std=weights[0], b_std=weights[1], **size)
    given = {"largest": float(split.f.eigenvalues[0]), "key": split.key(3)}
    times, found, images = [t / split.unit for t in moments], [], (split.x[:n], split.labels[:n])
    for attack in (None, training_attack(split.threat, steps=pgd_steps[0])):
        road = list(on_the_road(centered(network), *images, times, attack=attack, **given))
        found.append([[packed(one) for one in split.right(f, split.test, pgd_steps[1])] for _, f in road])
    return {"network": np.array(found), "moments": np.array([t * split.unit for t, _ in road])}


def _autoattack(
    case: Case,
    seed: int,
    times: tuple[float, ...],
    ridges: tuple[float, ...],
    weights: tuple[float, float],
    n: int,
    controls: Mapping[str, np.ndarray],
    *learned: Mapping[str, np.ndarray],
) -> Arrays:
    split = Split(case, seed, weights)
    time, ridge = (int(place) for place in controls["chosen"])
    fits = [split.f, split.f.at(times[time] / split.unit), split.f.with_ridge(ridges[ridge] * split.unit)]
    fits += [clocks.clocked(split.f, one["clocks"] / split.unit, solver=case.solver) for one in learned]
    rows = [controls["right"][CONTROLS.index(name)] for name in STRONGEST[:3]]
    rows += [one["right"][0] for one in learned]
    rights = [np.stack([unpacked(one, case.n_test) for one in row]) for row in rows]
    found = [split.resisting(f, right, n, STANDARD) for f, right in zip(fits, rights, strict=True)]
    return {"autoattack": np.array([[packed(stage) for stage in one] for one in found])}


def _dealt(found: clocks.Learned, split: Split) -> list[np.ndarray]:
    """The same clocks on other images: of all, of the same class; and each class's mean."""
    rng, labels = np.random.default_rng(split.seed), split.labels[: split.case.n_train]
    within, mean = found.clocks.copy(), found.clocks.copy()
    for c in np.unique(labels):
        own = labels == c
        within[own], mean[own] = rng.permutation(within[own]), mean[own].mean()
    return [rng.permutation(found.clocks), within, mean]


EXPERIMENT = Experiment("clocks", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
