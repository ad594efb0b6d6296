"""How biased batch variances are on real activations: predicted and measured (chapter 5)."""

import flax.linen as nn
import jax
import numpy as np

from companion import normalization
from companion._core.types import Variables
from companion.experiments._normalization_cases import ESTIMATORS


def activations(variables: Variables, x: np.ndarray) -> list[np.ndarray]:
    """What the two convolutions of a small CNN without normalization put out, (n, h, w, c) each."""
    found = []
    for name in ("Conv_0", "Conv_1"):
        weights = variables[0][name]
        before = nn.avg_pool(nn.relu(found[-1]), (2, 2), (2, 2)) if found else x
        convolution = nn.Conv(weights["kernel"].shape[-1], (3, 3), padding=1)
        found.append(jax.jit(convolution.apply)({"params": weights}, before))
    return [np.asarray(one) for one in found]


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
