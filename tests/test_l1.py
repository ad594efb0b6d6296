"""The L1 ball within the pixels' bounds: its projection, the worst point of a line, and who takes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.tree_util import Partial

from companion import attacks, catastrophic
from companion._core import l1
from companion.attacks import Threat, apgd, autoattack, fab, fgsm, pgd
from companion.attacks._apgd_l1 import checkpoints, stages

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 1, (8, 5, 5, 1)).astype(np.float32)
WEIGHTS = RNG.normal(size=(25, 1)).astype(np.float32)


def nearest(point, x, eps):
    """The projection by bisection on λ, for one input."""
    delta = point - x
    size, room = np.abs(delta), np.where(delta > 0, 1 - x, x)

    def kept(excess):
        return np.clip(size - excess, 0, room)

    above = kept(0).sum() > eps
    excess = scipy.optimize.bisect(lambda t: kept(t).sum() - eps, 0, size.max(), xtol=1e-15) if above else 0
    return x + np.sign(delta) * kept(excess)


def test_the_projection_is_the_nearest_point_of_ball_and_bounds(x64):
    x = RNG.uniform(0, 1, (30, 6))
    x[:3] = np.round(x[:3])  # corners
    points = x + RNG.normal(size=x.shape) * RNG.choice([0.05, 0.3, 2], size=(30, 1))
    project = jax.jit(l1.project)
    for eps in (0.0, 0.01, 0.5, 2.0, 9.0):
        found = np.asarray(project(points, x, 0.0, 1.0, eps))
        wanted = [nearest(point, one, eps) for point, one in zip(points, x, strict=True)]
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    # Bisection knows the formula; a linear program does not. Of p and a point f of the set, the largest
    # ⟨p − f, z − f⟩ over the set is at least the square of the distance from f to the point nearest to p.
    for place in range(30):
        point, one = points[place], x[place]
        found = np.asarray(project(points[[place]], x[[place]], 0.0, 1.0, 0.5))[0]
        assert np.abs(found - one).sum() <= 0.5 + 1e-12
        assert found.min() >= 0
        assert found.max() <= 1
        way = point - found
        most = -scipy.optimize.linprog(
            np.concatenate([-way, way]),
            A_ub=[np.ones(12)],
            b_ub=[0.5],
            bounds=[*((0, up) for up in 1 - one), *((0, down) for down in one)],
        ).fun
        assert most - way @ (found - one) <= 1e-5**2


def least_output(x, eps):
    """The least of ⟨w, x'⟩ over ball and bounds, by a linear program for each input."""
    w = WEIGHTS[:, 0].astype(float)
    rows = x.reshape(len(x), -1).astype(float)
    return [
        scipy.optimize.linprog(
            np.concatenate([w, -w]),
            A_ub=[np.ones(2 * len(w))],
            b_ub=[eps],
            bounds=[*((0, one) for one in 1 - row), *((0, one) for one in row)],
        ).fun
        + w @ row
        for row in rows
    ]


@pytest.mark.parametrize("eps", [0.3, 2.5])
def test_of_a_line_one_step_finds_the_worst_point(eps):
    f = Partial(lambda w, x: x.reshape(len(x), -1) @ w + 50, WEIGHTS)  # never fooled
    labels, threat, wanted = np.ones(8, int), Threat("l1", eps), least_output(IMAGES, eps)
    reached = {
        "fgsm": fgsm(f, IMAGES, labels, threat),
        "pgd": pgd(f, IMAGES, labels, threat, steps=20),
        "apgd": apgd(f, IMAGES, labels, threat, key=KEY, steps=60),
    }
    for name, tolerance in (("fgsm", 1e-5), ("pgd", 0.05), ("apgd", 0.05)):
        gained = f(IMAGES)[:, 0] - f(reached[name])[:, 0]
        possible = f(IMAGES)[:, 0] - 50 - np.array(wanted)
        assert (gained <= possible + 1e-4).all(), name
        assert (gained >= (1 - tolerance) * possible - 1e-4).all(), name


def test_the_schedule_is_the_papers():
    assert stages(2.0, 100) == [(6.0, 30), (4.0, 30), (2.0, 40)]
    assert stages(2.0, 1) == [(2.0, 1)]
    assert checkpoints(100) == list(range(4, 100, 4))


def test_a_larger_ball_and_more_attempts_are_never_weaker():
    f = Partial(lambda w, x: jnp.sin(x.reshape(len(x), -1) @ w), 2 * WEIGHTS)
    labels = (np.asarray(f(IMAGES))[:, 0] > 0).astype(int)

    def reached(eps, restarts=1):
        moved = apgd(f, IMAGES, labels, Threat("l1", eps), key=KEY, steps=20, restarts=restarts)
        return np.asarray(attacks.margin(f(moved), labels))

    assert (reached(0.2, 3) >= reached(0.2) - 1e-6).all()
    fooled = [(reached(eps) > 0).mean() for eps in (0.0, 0.1, 1.0)]
    assert fooled[0] == 0
    assert fooled == sorted(fooled)
    assert fooled[-1] == 1
    nearest = fab(f, IMAGES, labels, norm="l1", steps=20)
    lengths = np.abs(nearest.attacked - IMAGES).reshape(8, -1).sum(axis=1)
    np.testing.assert_allclose(nearest.distance, lengths, rtol=1e-6)
    assert nearest.fooled(1.0).all()


def test_autoattack_runs_all_four():
    f = Partial(lambda w, x: jnp.sin(x.reshape(len(x), -1) @ w), RNG.normal(size=(25, 4)).astype(np.float32))
    labels = np.asarray(f(IMAGES)).argmax(axis=1)
    found = autoattack(f, IMAGES, labels, Threat("l1", 0.4), key=KEY, queries=50, batch_size=8)
    wrong = np.asarray(f(found.attacked)).argmax(axis=1) != labels
    np.testing.assert_array_equal(wrong, found.fooled_by >= 0)
    assert wrong.any()
    assert np.abs(found.attacked.astype(float) - IMAGES).reshape(8, -1).sum(axis=1).max() <= 0.4


TAKES = {
    "random_sign": lambda f, x, y, threat: attacks.random_sign(x, threat, key=KEY),
    "random_uniform": lambda f, x, y, threat: attacks.random_uniform(x, threat, key=KEY),
    "pgd from a random start": lambda f, x, y, threat: pgd(f, x, y, threat, key=KEY, steps=3),
    "square": lambda f, x, y, threat: attacks.square(f, x, y, threat, key=KEY, queries=9),
    "training_attack": lambda f, x, y, threat: attacks.training_attack(threat, steps=2)(
        f, x, y, KEY, jnp.inf
    ),
}


@pytest.mark.parametrize("name", TAKES)
def test_whoever_takes_a_threat_stays_in_the_ball(name):
    f = Partial(lambda w, x: x.reshape(len(x), -1) @ w, WEIGHTS)
    moved = np.asarray(TAKES[name](f, IMAGES, np.ones(8, int), Threat("l1", 1.5)), float)
    assert (np.abs(moved - IMAGES).reshape(8, -1).sum(axis=1) <= 1.5 * (1 + 1e-5)).all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert np.abs(moved - IMAGES).max() > 0


def test_what_is_of_linf_alone_says_so():
    with pytest.raises(ValueError, match="threat must be L∞"):
        catastrophic.gradalign(Threat("l1", 0.1))
