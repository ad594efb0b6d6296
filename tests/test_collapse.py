"""Collapse by class: closed forms, sums over pairs, and the invariant along a flow that is integrated."""

import numpy as np
import pytest
from refusals import assert_refused

from companion import dynamics

rng = np.random.default_rng(0)
CLASSES, M, P = 3, 4, 5
LABELS = np.repeat(np.arange(CLASSES), M)
H, W = rng.normal(size=(CLASSES * M, P)), rng.normal(size=(P, CLASSES))
BLOCKS = dynamics.Blocks(3.0, 1.5, 0.4)
ALIKE = LABELS[:, None] == LABELS
KERNEL = np.where(ALIKE, BLOCKS.within, BLOCKS.between) + (BLOCKS.same - BLOCKS.within) * np.eye(len(LABELS))


def test_blocks_are_means_over_pairs():
    noisy = rng.normal(size=KERNEL.shape)
    noisy += noisy.T
    found = dynamics.class_blocks(noisy, LABELS)
    pairs = [(i, j) for i in range(len(LABELS)) for j in range(len(LABELS)) if i != j]
    within = [noisy[i, j] for i, j in pairs if LABELS[i] == LABELS[j]]
    between = [noisy[i, j] for i, j in pairs if LABELS[i] != LABELS[j]]
    expected = np.trace(noisy) / len(LABELS), np.mean(within), np.mean(between)
    assert (found.same, found.within, found.between) == pytest.approx(expected)


@pytest.mark.parametrize("labels", [LABELS, np.array([0] * 7 + [1] * 3 + [2] * 2)], ids=["equal", "unequal"])
def test_the_spread_of_a_gram_matrix_is_that_of_its_features(labels):
    means = np.stack([H[labels == c].mean(axis=0) for c in range(CLASSES)])[labels]
    within, between = ((H - means) ** 2).sum(), ((means - H.mean(axis=0)) ** 2).sum()
    assert dynamics.variability(H @ H.T, labels) == pytest.approx(within / between)


def test_nc1_is_that_of_its_definition_and_does_not_depend_on_scale_or_place():
    means = np.stack([H[c == LABELS].mean(axis=0) for c in range(CLASSES)])
    within = sum(np.outer(h - means[c], h - means[c]) for h, c in zip(H, LABELS, strict=True)) / len(H)
    between = sum(np.outer(m, m) for m in means - means.mean(axis=0)) / CLASSES
    expected = np.trace(within @ np.linalg.pinv(between)) / CLASSES
    found = dynamics.neural_collapse(H, LABELS, W)
    assert found.nc1 == pytest.approx(expected)
    moved = dynamics.neural_collapse(7 * H + 2, LABELS, 3 * W)
    assert (moved.nc1, moved.nc2, moved.nc3) == pytest.approx((found.nc1, found.nc2, found.nc3))


def test_a_collapsed_network_has_all_measures_at_zero_and_one_that_turned_its_weights_has_not():
    simplex = np.eye(CLASSES) - 1 / CLASSES
    means = simplex @ np.linalg.qr(rng.normal(size=(P, P)))[0][:CLASSES]
    found = dynamics.neural_collapse(means[LABELS], LABELS, 5 * means.T)
    assert (found.nc1, found.nc2, found.nc3) == pytest.approx((0, 0, 0), abs=1e-9)
    turned = dynamics.neural_collapse(means[LABELS], LABELS, -means.T)
    assert (turned.nc2, turned.nc3) == pytest.approx((0, 2), abs=1e-9)


def test_the_invariant_is_the_balance_of_weights_and_features_in_the_kernels_metric():
    own = BLOCKS.same - BLOCKS.within + M * (BLOCKS.within - BLOCKS.between)
    expected = own * (W @ W.T - H.T @ np.linalg.solve(KERNEL, H))
    np.testing.assert_allclose(dynamics.collapse_invariant(H, LABELS, W, BLOCKS), expected, atol=1e-10)


def test_the_invariant_stays_along_the_flow_and_its_sides_move():
    # H' = −K R Wᵀ, W' = −Hᵀ R, b' = −1ᵀ R with R = H W + b − Y: features move by a constant kernel of blocks.
    h, w, b, y = 0.3 * H, 0.3 * W, np.zeros(CLASSES), np.eye(CLASSES)[LABELS]
    first, size = dynamics.collapse_invariant(h, LABELS, w, BLOCKS), 2e-4

    def slope(h, w, b):
        r = h @ w + b - y
        return -KERNEL @ r @ w.T, -h.T @ r, -r.sum(axis=0)

    for _ in range(3000):
        middle = [one + size / 2 * d for one, d in zip((h, w, b), slope(h, w, b), strict=True)]
        h, w, b = (one + size * d for one, d in zip((h, w, b), slope(*middle), strict=True))
    last = dynamics.collapse_invariant(h, LABELS, w, BLOCKS)
    moved = np.linalg.norm(w @ w.T - 0.09 * W @ W.T)
    assert moved > 0.3
    assert np.linalg.norm(last - first) < 1e-4 * moved
    assert ((h @ w + b).argmax(axis=1) == LABELS).all()


def test_wrong_arguments_are_refused():
    collapse, invariant = dynamics.neural_collapse, dynamics.collapse_invariant
    unequal = np.array([0] * 6 + [1] * 4 + [2] * 2)
    assert_refused(
        [
            (lambda: dynamics.class_blocks(KERNEL[:3, :3], np.arange(3)), ValueError, "a class of two"),
            (lambda: dynamics.class_blocks(KERNEL, 0 * LABELS), ValueError, "two classes"),
            (lambda: dynamics.variability(np.ones((12, 12)), LABELS), ValueError, "means apart"),
            (lambda: collapse(H, LABELS, W[:, :2]), ValueError, "labels must have every class"),
            (lambda: collapse(H, LABELS, 0 * W), ValueError, "must not all be zero"),
            (lambda: invariant(H, unequal, W, BLOCKS), ValueError, "as many images"),
            (
                lambda: invariant(H, LABELS, W, dynamics.Blocks(1.0, 2.0, 0.0)),
                ValueError,
                "positive definite",
            ),
        ]
    )
