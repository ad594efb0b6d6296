"""Adv-NTK beside its control: a clock for every training example, and one time for all (chapter 9).

Fu & Wang (2024, arXiv 2310.06112) let every training example of a kernel regression learn for a time of its
own, chosen on attacked validation images. With one time for all this is early stopping. Here both are chosen
on the same images, as is a ridge, and evaluated on the same test images under the same attacks; and clocks
are dealt out anew, to see whether it matters which image has which. "By the released code" re-enacts the
optimizer and the attack of the authors' code, not their inputs: pixels stay in [0, 1] and targets centered
(theirs: pixels minus 0.5, plain one-hot). It is judged under the same attacks as the others.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from companion import clocks, data, regression
from companion._core.checks import predicted
from companion._core.types import Array, Key, Predict, Scalar
from companion.attacks import Threat, autoattack, outputs_of, pgd, squared, training_attack
from companion.experiments._clocks_cases import CONTROLS, LEARNED, PROFILES, ROWS, SCALARS, Case, Config
from companion.experiments._clocks_networks import centered, on_the_road
from companion.experiments._experiment import Arrays, Experiment, Job, Part, filled
from companion.experiments._shared import architecture

__all__ = [
    "CONTROLS",
    "EXPERIMENT",
    "LEARNED",
    "PROFILES",
    "ROWS",
    "SCALARS",
    "Case",
    "Config",
    "compute",
    "gather",
    "jobs",
    "recorded",
    "released_attack",
    "run",
]

_BITS = 16  # of images in a number: a record's float32 holds it exactly


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Fit, choose times, ridges and clocks on attacked validation images, and attack test images.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays, NaN where there is no run, over cases c and seeds s. Of `ROWS` r: `right` (c, s, r, 2, m), 1
        where a test image is right as it is, and where it is right under PGD too; `auto` (c, s, r, m'), 1
        where it is right under PGD and both Auto-PGDs, of the first images, for plain regression, the best
        time and ridge, and the clocks that were learned from 0 and from the best time. `along`
        (c, s, 2, q, 2): clean and robust accuracy on validation images at each of the times and ridges;
        `curve` (c, s, q, 2): on test images at each time. `chosen` (c, s, 2): which time and ridge.
        `network` (c, s, 2, q, 2, m): as `right`, of a wide finite network of the kernel's kind at `moments`
        (c, s, q) of its training, in the units of `times`, plain and against PGD, which started at 0.
        `clocks` (c, s, 3, n): those learned, in units of one over the mean diagonal, as `best` (c, s), the
        best time; `losses` (c, s, 3, steps).
    """
    return EXPERIMENT.run(config, progress=progress)


def jobs(config: Config) -> list[Job]:
    """Of every seed and case the controls, the three ways to learn clocks, which need them, and networks."""
    found = []
    how = (config.times, config.ridges, config.pgd, config.weights)
    for seed in range(config.seeds):
        for case in config.cases:
            first = Job(("controls", case, seed, *how), _label(case, "controls"), seed, case.dataset)
            found.append(first)
            for way in LEARNED:
                sizes = config.steps, config.batch_size, config.zeta
                job = ("learned", case, seed, *how, way, *sizes)
                found.append(Job(job, _label(case, f"clocks {way}"), seed, case.dataset, (first,)))
            job = ("networks", case, seed, config.moments, config.pgd, config.weights, config.width)
            found.append(Job(job, _label(case, "networks"), seed, case.dataset))
    return found


def compute(part: str, *sizes: Part) -> Arrays:
    """The controls of one split, the clocks learned in one way, or networks."""
    return {"controls": _controls, "learned": _learned, "networks": _networks}[part](*sizes)


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    rows, whole, ways, nets = {}, {}, {}, {}
    for job, arrays in made.items():
        case = job.config[1]
        place = config.cases.index(case), job.seed
        if job.config[0] == "networks":
            network = [[[_unpacked(x, case.n_test) for x in two] for two in way] for way in arrays["network"]]
            nets[place] = {"network": np.array(network), "moments": arrays["moments"]}
            continue
        names = CONTROLS if job.config[0] == "controls" else _rows_of(job.config[7])
        for i, name in enumerate(names):
            row = {"right": np.stack([_unpacked(one, case.n_test) for one in arrays["right"][i]])}
            if np.isfinite(arrays["auto"][i]).all():
                row["auto"] = _unpacked(arrays["auto"][i], case.n_auto)
            rows[*place, ROWS.index(name)] = row
        if job.config[0] == "controls":
            whole[place] = {name: arrays[name] for name in ("along", "curve", "chosen", "best")}
        else:
            ways[*place, LEARNED.index(job.config[7])] = {name: arrays[name] for name in ("clocks", "losses")}
    shape = len(config.cases), config.seeds
    found = filled((*shape, len(ROWS)), rows) | filled(shape, whole) | filled((*shape, len(LEARNED)), ways)
    return found | filled(shape, nets)


def released_attack(threat: Threat, *, steps: int = 10) -> Partial:
    """The attack of the authors' released code, re-enacted: no projected gradient descent, for two reasons.

    Every step takes the gradient at the *start*, so that the direction never changes; and the random start
    takes the place of the image as the center of the ball, so that a pixel may move by 2 ε.

    Args:
        threat: L∞; its ε.
        steps: of size ε/5, as theirs.

    Returns:
        An attack for `clocks.learn`.
    """
    return Partial(_released, steps, threat.eps, *threat.bounds)


def _released(
    steps: Scalar, eps: Scalar, low: Scalar, high: Scalar, f: Predict, x: Array, labels: Array, key: Key,
    epoch: Scalar,  # noqa: ARG001
) -> Array:  # fmt: skip
    start = jnp.clip(x + jax.random.uniform(key, x.shape, x.dtype, -eps, eps), low, high)
    direction = jnp.sign(jax.grad(lambda x: squared(f(x), labels).sum())(start))
    far = jnp.minimum(steps * eps / 5, eps)
    return jnp.clip(start + far * direction, low, high)


def _label(case: Case, what: str) -> str:
    classes = "ten classes" if case.classes is None else "/".join(map(str, case.classes))
    return f"{case.dataset} {classes}, {case.kernel}, n = {case.n_train:,}, ε = {case.eps:.3g}, {what}"


def _rows_of(way: str) -> tuple[str, ...]:
    return (way, *ROWS[-3:]) if way == "from 0" else (way,)


class _Split:
    """The images of a case, in their parts, and the kernel fitted to them."""

    def __init__(self, case: Case, seed: int, weights: tuple[float, float]) -> None:
        n = case.n_train
        d = data.load(
            case.dataset, classes=case.classes, n_train=n + case.n_val, n_test=case.n_test, seed=seed
        )
        self.case, self.seed, self.threat = case, seed, Threat("linf", case.eps)
        self.x, self.labels = d.x_train, d.y_train
        self.val, self.test = (d.x_train[n:], d.y_train[n:]), (d.x_test, d.y_test)
        self.kernel = architecture(case.kernel, w_std=weights[0], b_std=weights[1])
        self.targets = data.targets(d.y_train, len(d.classes))
        self.f = regression.fit(self.kernel, self.x[:n], self.targets[:n])
        self.unit = float(self.f.eigenvalues.mean())

    def key(self, number: int) -> Key:
        return jax.random.fold_in(jax.random.key(self.seed), number)

    def right(self, f: Predict, part: tuple[np.ndarray, np.ndarray], steps: int) -> np.ndarray:
        """Right as it is, and under PGD too, (2, m)."""
        x, y = part
        moved = pgd(f, x, y, self.threat, steps=steps, early_stop=True)
        clean, attacked = (predicted(outputs_of(f, points, 256)) == y for points in (x, moved))
        return np.stack([clean, clean & attacked])

    def auto(self, f: Predict, right: np.ndarray) -> np.ndarray:
        """Right under both Auto-PGDs too, (n_auto,)."""
        left = np.flatnonzero(right[1, : self.case.n_auto])
        found = np.zeros(self.case.n_auto, bool)
        if len(left):
            x, y = self.test[0][left], self.test[1][left]
            options = {"version": ("apgd-ce", "apgd-t"), "batch_size": min(128, len(left))}
            found[left] = autoattack(f, x, y, self.threat, key=self.key(1), **options).fooled_by < 0
        return found

    def measured(self, fits: list[tuple[Predict, bool]], steps: int) -> Arrays:
        """Packed, of all fits; Auto-PGD where it is wanted."""
        rights = [self.right(f, self.test, steps) for f, _ in fits]
        nothing = np.full(-(-self.case.n_auto // _BITS), np.nan)
        autos = [
            _packed(self.auto(f, right)) if wanted else nothing
            for (f, wanted), right in zip(fits, rights, strict=True)
        ]
        return {
            "right": np.stack([[_packed(one) for one in right] for right in rights]),
            "auto": np.stack(autos),
        }


def _controls(
    case: Case,
    seed: int,
    times: tuple[float, ...],
    ridges: tuple[float, ...],
    pgd_steps: tuple[int, int, int],
    weights: tuple[float, float],
) -> Arrays:
    split, n = _Split(case, seed, weights), case.n_train
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
    split = _Split(case, seed, weights)
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
    split, n = _Split(case, seed, weights), case.n_train
    size = {"width": width, "n_outputs": split.targets.shape[1]}
    network = architecture(case.kernel, w_std=weights[0], b_std=weights[1], **size)
    given = {"largest": float(split.f.eigenvalues[0]), "key": split.key(3)}
    times, found, images = [t / split.unit for t in moments], [], (split.x[:n], split.labels[:n])
    for attack in (None, training_attack(split.threat, steps=pgd_steps[0])):
        road = list(on_the_road(centered(network), *images, times, attack=attack, **given))
        found.append([[_packed(one) for one in split.right(f, split.test, pgd_steps[1])] for _, f in road])
    return {"network": np.array(found), "moments": np.array([t * split.unit for t, _ in road])}


def _dealt(found: clocks.Learned, split: _Split) -> list[np.ndarray]:
    """The same clocks on other images: of all, of the same class; and each class's mean."""
    rng, labels = np.random.default_rng(split.seed), split.labels[: split.case.n_train]
    within, mean = found.clocks.copy(), found.clocks.copy()
    for c in np.unique(labels):
        own = labels == c
        within[own], mean[own] = rng.permutation(within[own]), mean[own].mean()
    return [rng.permutation(found.clocks), within, mean]


def _packed(right: np.ndarray) -> np.ndarray:
    padded = np.zeros((-(-len(right) // _BITS), _BITS))
    padded.ravel()[: len(right)] = right
    return padded @ 2.0 ** np.arange(_BITS)


def _unpacked(packed: np.ndarray, n: int) -> np.ndarray:
    return (packed.astype(int)[:, None] >> np.arange(_BITS) & 1).ravel()[:n].astype(np.float32)


EXPERIMENT = Experiment("clocks", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
