"""Kernel dynamics against their definitions, written as loops and full decompositions."""

import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused

from companion import dynamics, features
from companion.dynamics import KernelPath

rng = np.random.default_rng(0)


def kernel(n=12, rank=None, seed=0):
    factor = np.random.default_rng(seed).normal(size=(n, rank or n))
    return factor @ factor.T


PATH = [kernel(seed=seed) + 3 * kernel(seed=9) for seed in range(5)]
TIMES = np.array([0.0, 0.125, 0.5, 1.0, 4.0])


def slow_distance(a, b):
    inside = sum(a[i, j] * b[i, j] for i in range(len(a)) for j in range(len(a)))
    return 1 - inside / np.sqrt((a**2).sum() * (b**2).sum())


def slow_top(a, top):
    values, vectors = np.linalg.eigh(a)
    return sum(values[-i] * np.outer(vectors[:, -i], vectors[:, -i]) for i in range(1, top + 1))


def test_inner_products_and_distances_are_the_slow_ones_however_little_memory():
    expected = np.array([[(a * b).sum() for b in PATH] for a in PATH])
    for memory in (10**9, 5000, 1):
        np.testing.assert_allclose(dynamics.inner_products(PATH, memory=memory), expected, rtol=1e-12)
    apart = dynamics.distances(PATH, memory=5000)
    np.testing.assert_allclose(apart, [[slow_distance(a, b) for b in PATH] for a in PATH], atol=1e-12)
    assert (np.diag(apart) == 0).all()
    assert apart[0, 1] > 0.01


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(0, 1000), st.floats(0.01, 100))
def test_a_distance_sees_directions_only(n, seed, scale):
    a, b = kernel(n, seed=seed), kernel(n, seed=seed + 1)
    apart = dynamics.distances([a, b, scale * a])
    np.testing.assert_allclose(apart[0, 2], 0, atol=1e-12)
    np.testing.assert_allclose(apart[0, 1], apart[2, 1], atol=1e-12)
    assert -1e-12 <= apart[0, 1] <= 1 + 1e-12


def test_a_path_on_disk_is_read_a_few_kernels_at_a_time(tmp_path):
    n, count = 200, 30
    path = KernelPath(tmp_path)
    kernels = [kernel(n, rank=3, seed=seed).astype(np.float32) for seed in range(count)]
    for i in np.random.default_rng(0).permutation(count):
        path.save(i / 8, kernels[i])
    assert path.times == [i / 8 for i in range(count)]
    np.testing.assert_array_equal(path[3], kernels[3])
    tracemalloc.start()
    found = dynamics.distances(path, memory=8 * 8 * n * n)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Eight kernels, a copy while they are stacked, and what one check of a kernel takes; all would be 9.6 MB.
    assert peak < 20 * 8 * n * n
    np.testing.assert_allclose(found, dynamics.distances(kernels), atol=1e-12)
    assert found[0, 1] > 0.1


def test_a_kernel_on_disk_is_whole_or_not_there(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from companion.dynamics import KernelPath\n"
        "path = KernelPath(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "for time in range(10_000):\n"
        "    path.save(time, np.full((400, 400), time + 1.0))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "ready\n"
        while len(list(tmp_path.glob("*.npy"))) < 20:
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    path = KernelPath(tmp_path)
    assert len(path) >= 20
    for time, one in zip(path.times, path, strict=True):
        assert (one == time + 1).all()
    path.save(0, np.eye(400))
    np.testing.assert_array_equal(path[0], np.eye(400))


@pytest.mark.parametrize("part", ["whole", "top", "rest"])
def test_polar_coordinates_are_the_slow_ones(part):
    parts = {
        "whole": PATH,
        "top": [slow_top(one, 3) for one in PATH],
        "rest": [one - slow_top(one, 3) for one in PATH],
    }[part]
    radius, angle = dynamics.polar(PATH, part=part, top=3)
    whole = np.linalg.norm(parts[-1] - parts[0])
    np.testing.assert_allclose(radius, [np.linalg.norm(one - parts[0]) / whole for one in parts], atol=1e-10)
    np.testing.assert_allclose(np.cos(angle), [1 - slow_distance(one, parts[0]) for one in parts], atol=1e-10)
    assert angle[0] == radius[0] == 0
    assert radius[-1] == 1


def test_a_path_that_returns_has_radii_of_zero():
    radius, angle = dynamics.polar([PATH[0], PATH[0]])
    assert radius.tolist() == [0, 0]
    np.testing.assert_allclose(angle, 0, atol=1e-7)


@pytest.mark.parametrize("n", [30, 600])
def test_concentration_and_effective_rank_are_those_of_the_spectrum(n):
    one = kernel(n, rank=25) + 0.1 * np.eye(n)
    values = np.linalg.eigvalsh(one)[::-1]
    for top in (1, 20):
        expected = (values[:top] ** 2).sum() / (values**2).sum()
        np.testing.assert_allclose(dynamics.concentration(one, top=top), expected, rtol=1e-9)
    np.testing.assert_allclose(dynamics.effective_rank(one), values.sum() ** 2 / (values**2).sum(), rtol=1e-9)
    assert dynamics.concentration(np.eye(40)) == pytest.approx(0.5)
    assert dynamics.effective_rank(np.eye(40)) == pytest.approx(40)
    assert dynamics.concentration(one, top=n) == pytest.approx(1)


def turning(angles):
    """Kernels of one plane, at these angles from the first."""
    one, two = np.eye(2) / np.sqrt(2), np.diag([1.0, -1.0]) / np.sqrt(2)
    return [np.cos(a) * one + np.sin(a) * two for a in angles]


def test_velocity_is_the_angle_per_epoch():
    moved = np.array([slow_distance(PATH[i], PATH[i + 1]) for i in range(4)])
    np.testing.assert_allclose(dynamics.successive(PATH), moved, rtol=1e-9)
    np.testing.assert_allclose(
        dynamics.velocity(PATH, TIMES), np.arccos(1 - moved) / np.diff(TIMES), rtol=1e-6
    )
    assert dynamics.velocity([PATH[0], 2 * PATH[0]], np.array([0.0, 1.0])) == pytest.approx(0, abs=1e-6)


def test_a_steady_rotation_has_one_velocity_and_half_of_its_way_remaining():
    times = np.array([0.0, 0.5, 1.0, 3.0, 4.0])  # records lie at uneven distances
    path = turning(0.3 * times)
    np.testing.assert_allclose(dynamics.velocity(path, times), 0.3, rtol=1e-6)
    to_last = dynamics.distances(path)[-1]
    np.testing.assert_allclose(dynamics.angle(to_last), 0.3 * (4 - times), atol=1e-7)
    assert dynamics.remaining(to_last, times) == pytest.approx(0.5)


@pytest.mark.parametrize("distance", [-0.1, 2.1])
def test_an_angle_needs_a_distance(distance):
    with pytest.raises(ValueError, match="distance must lie in"):
        dynamics.angle(distance)


def test_alignment_is_the_cosine_with_the_labels_kernel():
    rng = np.random.default_rng(1)
    targets = rng.normal(size=(12, 3))
    own = targets @ targets.T
    expected = (PATH[0] * own).sum() / np.sqrt((PATH[0] ** 2).sum() * (own**2).sum())
    np.testing.assert_allclose(dynamics.alignment(PATH[0], targets), expected, rtol=1e-12)
    assert dynamics.alignment(own, targets) == pytest.approx(1)


def test_specialization_is_one_for_one_kernel_and_k_for_kernels_that_see_their_class_alone():
    labels = np.eye(3)[np.repeat([0, 1, 2], 4)]
    assert dynamics.specialization(np.stack([PATH[0]] * 3), labels)[0] == pytest.approx(1)
    alone = np.stack([np.outer(column, column) for column in labels.T])
    assert dynamics.specialization(alone, labels)[0] == pytest.approx(3)
    kernels = np.stack(PATH[:3])
    value, aligned = dynamics.specialization(kernels, labels)
    slow = np.array([[1 - slow_distance(one, np.outer(y, y)) for y in labels.T] for one in kernels])
    np.testing.assert_allclose(aligned, slow, rtol=1e-10)
    np.testing.assert_allclose(value, np.mean([slow[c, c] / slow[:, c].mean() for c in range(3)]), rtol=1e-10)
    # More of the own class is more specialization.
    assert dynamics.specialization(kernels + 5 * alone, labels)[0] > value


def test_rotation_is_the_overlap_of_the_top_eigenspaces():
    rng = np.random.default_rng(1)
    spaces = [np.linalg.eigh(one)[1][:, ::-1] for one in PATH]
    expected = [np.mean(np.cos(features.principal_angles(one, spaces[-1], top=4)) ** 2) for one in spaces]
    np.testing.assert_allclose(dynamics.rotation(PATH, top=4), expected, atol=1e-10)
    assert expected[0] < 0.95
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    np.testing.assert_allclose(
        dynamics.rotation([turn @ one @ turn.T for one in PATH], top=4), expected, atol=1e-10
    )


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.15, 0.25, 1.0])
def test_lazy_onset_is_the_first_moment_of_the_last_stay(threshold):
    to_last = np.array([0.9, 0.2, 0.1, 0.2, 0.04, 0.06, 0.0])
    times = np.arange(7.0) / 2
    expected = next(
        t for t, _ in zip(times, to_last, strict=True) if (to_last[times >= t] <= threshold).all()
    )
    assert dynamics.lazy_onset(to_last, times, threshold) == expected
    assert dynamics.lazy_onset(to_last, times, np.array([threshold, 1.0])).tolist() == [expected, 0.0]


def test_a_rounded_last_distance_is_still_the_last():
    assert dynamics.lazy_onset(np.array([0.5, 1e-7]), np.arange(2.0), 0.0) == 1


BAD = PATH[0].copy()
BAD[0, 0] = np.nan


def test_wrong_arguments_are_named():
    assert_refused(
        [
            (lambda: dynamics.distances([]), "at least one kernel"),
            (lambda: dynamics.distances([PATH[0], np.eye(3)]), r"path\[1\] must be \(12, 12\)"),
            (lambda: dynamics.distances([PATH[0], np.zeros((12, 12))]), "kernel 1 of the path is zero"),
            (lambda: dynamics.distances([PATH[0], BAD]), r"path\[1\] has 1 NaN"),
            (lambda: dynamics.distances([np.triu(PATH[0])]), "symmetric"),
            (lambda: dynamics.distances([np.eye(2, dtype=int)]), "float32 or float64, got int64"),
            (lambda: dynamics.distances([np.ones((2, 3))]), "square"),
            (lambda: dynamics.polar(PATH, part="top", top=13), "top must be at most 12"),
            (lambda: dynamics.concentration(np.zeros((3, 3)), top=1), "zero"),
            (lambda: dynamics.concentration(PATH[0], top=0), "top must be at least 1"),
            (lambda: dynamics.velocity(PATH, TIMES[::-1]), "ascending"),
            (lambda: dynamics.velocity(PATH, TIMES[1:]), "5 ascending"),
            (lambda: dynamics.alignment(PATH[0], np.ones((3, 1))), r"targets must be \(12, k\)"),
            (lambda: dynamics.alignment(PATH[0], np.zeros((12, 1))), "not all zero"),
            (lambda: dynamics.specialization(np.stack(PATH[:2]), np.eye(12)[:, :3]), "one for each target"),
            (lambda: dynamics.lazy_onset(np.array([0.5, 0.2]), np.arange(2.0), 0.1), "end with 0"),
            (lambda: dynamics.lazy_onset(np.array([0.5, 0.0]), np.arange(2.0), -0.1), "threshold"),
        ]
    )


def test_a_path_on_disk_refuses_what_does_not_belong(tmp_path):
    path = KernelPath(tmp_path / "new" / "folder")
    path.save(0.0, np.eye(3))
    with pytest.raises(ValueError, match=r"shape of the others, \(3, 3\)"):
        path.save(1.0, np.eye(4))
    with pytest.raises(ValueError, match="time must be at least 0"):
        path.save(-1.0, np.eye(3))
    assert path.times == [0.0]


def test_remaining_is_the_mean_angle_left():
    times = np.array([0.0, 1.0, 4.0])
    # By hand: trapezoids of 1 · (0.6 + 0.3) / 2 and 3 · (0.3 + 0) / 2, over 4 epochs and 0.6.
    left = 1 - np.cos(np.array([[0.6, 0.3, 0.0], [0.6, 0.0, 0.0]]))
    assert dynamics.remaining(left[0], times) == pytest.approx((0.45 + 0.45) / 4 / 0.6)
    assert dynamics.remaining(left[1], times) == pytest.approx(0.3 / 4 / 0.6)


def test_a_kernel_that_ends_where_it_began_has_nothing_remaining():
    with pytest.raises(ValueError, match="ends where it began"):
        dynamics.remaining(np.array([0.0, 0.2, 0.0]), np.arange(3.0))


def test_blocks_of_outputs_are_those_of_the_full_kernel():
    full = np.random.default_rng(3).normal(size=(4, 4, 3, 3))
    full = full + np.einsum("ijab->jiba", full)
    flat = full.swapaxes(1, 2).reshape(12, 12)
    for a, block in enumerate(dynamics.per_output(flat, 3)):
        np.testing.assert_array_equal(block, full[:, :, a, a])
    with pytest.raises(ValueError, match="kernel must have a multiple of 5 rows, got 12"):
        dynamics.per_output(flat, 5)
