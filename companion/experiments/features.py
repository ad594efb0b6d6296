"""Eigenfeatures of kernels: usefulness, robustness, what sums of them do, what kernels share (chapter 3).

Claims A3 and A4 of Tsilivis & Kempe (2022), arXiv 2210.05577: robustness falls with the index of a feature;
many later features are useful and not robust; kernels of different architectures have similar features; and
a classifier that keeps only the top features, or stops early, is more robust and less accurate. "Useful" is
tested one feature at a time, by accuracy and by correlation, by the mean over many features, and by their sum
as one classifier. Controls: every feature under random signs, the linear and a Gaussian kernel beside those
of networks, and the data set D̂_det of Ilyas et al. (2019), arXiv 1905.02175.
"""

import functools
import itertools
from collections.abc import Mapping

import jax
import numpy as np
import scipy.spatial.distance
import scipy.stats

from companion import data, features, regression
from companion.attacks import Threat
from companion.empirical import empirical_ntk
from companion.experiments._experiment import Arrays, Experiment, Job, Part, filled
from companion.experiments._features_cases import (
    EDGES,
    FROM,
    PROFILES,
    TOPS,
    Case,
    Config,
    Overlap,
    held_out,
)
from companion.experiments._features_controls import controlled, relabeled
from companion.experiments._features_measures import attacked, clean_and_attacked, leading, one_by_one
from companion.experiments._linear_control import of_pixels
from companion.experiments._shared import architecture, attack_batch
from companion.kernels import gram

__all__ = [
    "EDGES",
    "EXPERIMENT",
    "FROM",
    "PROFILES",
    "TOPS",
    "Case",
    "Config",
    "Overlap",
    "compute",
    "gather",
    "held_out",
    "jobs",
    "recorded",
    "rows",
    "run",
]


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Measure every kernel's features, sums of them, and what the kernels have in common.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays, r rows as `rows(config)` names them, n the largest number of features; what a row does not
        have is NaN; a last axis of length 3 is a value and the ends of its 95 % interval.
        One by one: `eigenvalues` (r, n); `accuracy` (r, n, 3) on clean images, `p_accuracy` (r, n) and
        `correlation` (r, n, 3) with `p_correlation` (r, n), both before any correction for many tests;
        `majority` (r,); `modes` (r, q), which were attacked, `fgsm` (r, q, 3) and, of the first, `pgd`
        (r, p, 3), `before` (r, q, 3), their clean accuracy on the same images.
        Blocks of indices, b of them between `EDGES`: `block` (r, b, 2, 3), clean and under PGD, of the sum as
        one classifier; `block_mean` (r, b, 2), mean accuracy of its features and standard error of that;
        `block_correlation` (r, b, 3); `block_share` (r, b), of the damage that PGD on the whole does.
        Sums: `top` and `without` (r, b, 2, 3), of the first `EDGES` and of the others; `stopped` (r, t, 2, 3)
        at `times` (t,) in units of 1/λ_max.
        Controls, which `controlled` and `relabeled` in `_features_controls` describe: `random` (r, q),
        `tail_accuracy` and `tail_correlation` (r, b, 3), `exceptions` (r, e, 4), `relabeled` (r, 3, l, 3)
        and `reached` (r, 3). Of `linear` cases l, as `_linear_control` describes them: `linear_sum`
        (l, 4, 2, 3), `linear_useful` (l, 2) and `linear_majority` (l,).
        Kernels, c of them: `angles` (seeds, c, c, tops), mean squared cosine of the principal angles between
        the first `TOPS` eigenvectors; `matched` (seeds, c, c, tops), mean cosine after a matching one by one.
    """
    return EXPERIMENT.run(config, progress=progress)


def jobs(config: Config) -> list[Job]:
    """Every kernel with its controls, and the comparison of kernels of every seed."""
    parts = {
        "kernel": (config.steps, config.pgd_modes, config.times),
        "controls": (),
        "relabeled": (config.steps, config.learners),
    }
    made = []
    for case, name in rows(config):
        label = f"{case.dataset}, {case.n_train:,} images, {name}, ε = {case.eps:.3g}"
        if case.leading is not None:
            how = ("leading", case, name, config.steps, config.pgd_modes)
            made.append(Job(how, f"{label}, leading {case.leading:,}", 0, case.dataset))
            continue
        for part, how in parts.items():
            if part == "relabeled" and case.n_train > config.relabel_up_to:
                continue
            words = label if part == "kernel" else f"{label}, {part}"
            made.append(Job((part, case, name, *how), words, 0, case.dataset))
    for case in config.linear:
        label = f"{case.dataset}, {case.n_train:,} images, ridge on pixels, ε = {case.eps:.3g}"
        made.append(Job(("linear", case, config.steps), label, 0, case.dataset))
    some = config.overlap
    label = f"{some.dataset}, {some.n_train:,} images, overlap"
    return made + [Job(("overlap", some, seed), label, seed, some.dataset) for seed in range(some.seeds)]


def compute(part: str, *sizes: Part) -> Arrays:
    """The features of one kernel, their controls, or what kernels share with one seed."""
    parts = {"kernel": _measured, "controls": controlled, "relabeled": relabeled, "overlap": _compared}
    parts |= {"leading": leading, "linear": of_pixels}
    return parts[part](*sizes)


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    kernels, overlap, linear = {}, {}, {}
    for job, arrays in made.items():
        if job.config[0] == "overlap":
            overlap[(job.seed,)] = arrays
        elif job.config[0] == "linear":
            linear[(config.linear.index(job.config[1]),)] = arrays
        else:
            kernels.setdefault((rows(config).index(job.config[1:3]),), {}).update(arrays)
    return (
        filled((len(rows(config)),), kernels)
        | filled((config.overlap.seeds,), overlap)
        | filled((len(config.linear),), linear)
        | {"times": _times(config.times).astype(np.float32)}
    )


def rows(config: Config) -> list[tuple[Case, str]]:
    """Case and architecture of every row."""
    return [(case, name) for case in config.cases for name in case.architectures]


def _times(number: int) -> np.ndarray:
    return np.geomspace(1, 1e7, number)


def _measured(case: Case, name: str, steps: int, pgd_modes: int, times: int) -> Arrays:
    x_train, y_train, x, y, k = held_out(case)
    kernel, n, threat = architecture(name), len(x_train), Threat("linf", case.eps)
    found = regression.fit(kernel, x_train, data.targets(y_train, k))
    outputs, right = features.outputs(found, x), features.correct(found, x, y)
    some, batch = slice(case.n_attacked), attack_batch(kernel)
    both = functools.partial(clean_and_attacked, x=x, y=y, threat=threat, steps=steps, batch_size=batch)

    edges = [edge for edge in EDGES if edge < n] + [n]
    blocks = [range(a, b) for a, b in itertools.pairwise(edges)]
    means = [right[:, block].mean(axis=0) for block in blocks]
    moved = attacked(features.classifier(found), x[some], y[some], threat, steps, batch)
    shares = features.attack_shares(found, x[some], moved, y[some]).mean(axis=0)
    sums = {
        "block": [both(features.classifier(found, block)) for block in blocks],
        "top": [both(features.classifier(found, edge)) for edge in edges[1:]],
        "without": [both(features.classifier(found, range(edge, n))) for edge in edges[:-1]],
        "stopped": [both(features.classifier(found.at(t / found.eigenvalues[0]))) for t in _times(times)],
    }
    return {
        **one_by_one(found, outputs, right, case, x, y, steps=steps, pgd_modes=pgd_modes),
        "block_mean": np.array([[mean.mean(), mean.std() / np.sqrt(len(mean))] for mean in means]),
        "block_correlation": np.concatenate(
            [
                features.correlation(
                    outputs[:, block].sum(axis=1, keepdims=True), data.targets(y, k)
                ).r.as_array()
                for block in blocks
            ]
        ),
        "block_share": np.array([shares[block].sum() for block in blocks]) / shares.sum(),
        **{key: np.array(value) for key, value in sums.items()},
    }


def _compared(config: Overlap, seed: int) -> Arrays:
    images = data.load(config.dataset, classes=config.classes, n_train=config.n_train)
    x = images.x_train
    tops = [top for top in TOPS if top <= len(x)]
    bases = [_basis(name, x, seed) for name in config.kernels]
    shape = (len(bases), len(bases), len(tops))
    angles, matched = np.zeros(shape), np.zeros(shape)
    for i, j, k in np.ndindex(shape):
        cosines = np.cos(features.principal_angles(bases[i], bases[j], top=tops[k]))
        angles[i, j, k] = (cosines**2).mean()
        matched[i, j, k] = features.match(bases[i], bases[j], top=tops[k])[1].mean()
    return {"angles": angles, "matched": matched}


def _basis(name: str, x: np.ndarray, seed: int) -> np.ndarray:
    """Eigenvectors of a kernel on x, or a random basis."""
    if name == "random":
        return scipy.stats.ortho_group.rvs(len(x), random_state=seed)[:, : max(TOPS)]
    spec, _, width = name.partition(" at width ")
    if name in ("linear", "RBF"):
        flat = x.reshape(len(x), -1).astype(float)
        distances = scipy.spatial.distance.pdist(flat)
        apart = scipy.spatial.distance.squareform(distances) / np.median(distances)
        matrix = flat @ flat.T if name == "linear" else np.exp(-(apart**2) / 2)
    elif width:
        network = architecture(spec, width=int(width))
        params = network.init(jax.random.key(seed), x)
        matrix = np.asarray(empirical_ntk(network.apply, params, x, reduce="trace"))
    else:
        matrix = gram(architecture(spec), x)
    return regression.fit(matrix, targets=np.ones((len(x), 1))).eigenvectors


EXPERIMENT = Experiment("features", 1, PROFILES, jobs, compute, gather)
recorded = EXPERIMENT.recorded
