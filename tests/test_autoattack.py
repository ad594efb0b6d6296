"""Auto-PGD, FAB, Square for L2 and AutoAttack against grids, solvers and formulas written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.tree_util import Partial

from companion import attacks, statistics
from companion.attacks import Threat, apgd, autoattack, dlr, fab, pgd, robust_accuracy, square, targeted_dlr
from companion.attacks._apgd_steps import checkpoints
from companion.attacks._fab import to_plane
from companion.attacks._square_moves import bump_of

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
PLANE = RNG.uniform(0.15, 0.85, (40, 2)).astype(np.float32)


def curved(weights, x):
    """A small network of two inputs whose gradient turns within the ball."""
    first, second = weights
    return jnp.sin(x.reshape(len(x), -1) @ first) @ second


def network(k, d=2, seed=1):
    rng = np.random.default_rng(seed)
    weights = 6 * rng.normal(size=(d, 16)) / np.sqrt(d), rng.normal(size=(16, k))
    return Partial(curved, jax.tree.map(lambda one: jnp.asarray(one, jnp.float32), weights))


def classes(f, x):
    outputs = np.asarray(f(x))
    return (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def ball_grid(x, threat, side=81):
    """Points of the ball around one input, within the pixels' bounds."""
    ticks = np.linspace(-threat.eps, threat.eps, side)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    if threat.norm != "linf":
        grid = grid[np.linalg.norm(grid, ord=int(threat.norm[1]), axis=1) <= threat.eps]
    return np.clip(x + grid, 0, 1).astype(np.float32)


def may_be_fooled(f, labels, threat):
    """Whether a grid finds a point of another class in the ball, by far; and whether none is near."""
    found = []
    for x, y in zip(PLANE, labels, strict=True):
        values = np.asarray(attacks.margin(f(ball_grid(x, threat)), np.full(len(ball_grid(x, threat)), y)))
        found.append(values.max())
    return np.array(found)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("k", [1, 3, 4])
def test_what_a_grid_finds_in_the_ball_is_found(k, norm):
    f, threat = network(k), Threat(norm, 0.15 if norm == "l1" else 0.12)
    labels = classes(f, PLANE)
    best = may_be_fooled(f, labels, threat)
    sure, none = best > 0.02, best < -0.05
    assert 5 < sure.sum() < 40  # or this tests nothing
    loss = "targeted_dlr" if k > 1 else "cross_entropy"
    attacked = apgd(f, PLANE, labels, threat, key=KEY, steps=30, restarts=2, loss=loss)
    nearest = fab(f, PLANE, labels, norm=norm, steps=30)
    for fooled in (classes(f, attacked) != labels, nearest.fooled(threat.eps)):
        assert fooled[sure].mean() > 0.9
        assert not fooled[none].any()


def test_where_the_gradient_turns_one_step_is_not_enough():
    # On a saddle the first gradient knows one of two directions.
    def f(x):
        return 0.05 - 4 * (x[:, :1] - 0.5) * (x[:, 1:] - 0.5)

    x, labels, threat = np.array([[0.52, 0.5]], np.float32), np.array([1]), Threat("linf", 0.2)
    assert classes(f, attacks.fgsm(f, x, labels, threat)) == 1
    assert classes(f, apgd(f, x, labels, threat, key=KEY, steps=50, restarts=3)) == 0
    # (0.52 + t − 0.5)(t) = 0.0125
    exact = -0.01 + np.sqrt(0.01**2 + 0.0125)
    assert fab(f, x, labels, steps=30).distance[0] == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_a_line_the_distance_is_known(norm):
    w, b = np.array([0.3, -0.9], np.float32), np.float32(0.2)
    f = Partial(lambda w, x: x @ w[:, None] + b, w)
    labels = classes(f, PLANE)
    exact = np.abs(PLANE @ w + b) / (np.abs(w).sum() if norm == "linf" else np.linalg.norm(w))
    found = fab(f, PLANE, labels, norm=norm, steps=10)
    free = (PLANE - exact[:, None] > 0).all(axis=1) & (PLANE + exact[:, None] < 1).all(axis=1)
    assert free.sum() > 5
    np.testing.assert_allclose(found.distance[free], exact[free], rtol=2e-3, atol=1e-5)
    assert (found.distance >= exact * (1 - 1e-4)).all()
    assert (classes(f, found.attacked) != labels).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_curve_over_eps_is_that_of_exact_distances(norm):
    w, b = np.array([0.3, -0.9], np.float32), np.float32(0.2)
    f = Partial(lambda w, x: x @ w[:, None] + b, w)
    inner = 0.3 + 0.4 * PLANE  # far from the pixels' bounds
    labels = classes(f, inner)
    labels[:5] = 1 - labels[:5]
    exact = np.abs(inner @ w + b) / (np.abs(w).sum() if norm == "linf" else np.linalg.norm(w))
    exact[:5] = 0
    found = fab(f, inner, labels, norm=norm, steps=10)
    ordered = np.sort(exact)
    eps = np.append(0, (ordered[5:-1] + ordered[6:]) / 2)  # between two distances each
    curve = attacks.robust_curve(found, eps)
    np.testing.assert_array_equal(curve.value, [(exact > one).mean() for one in eps])
    assert (np.diff(curve.value) <= 0).all()
    wilson = statistics.proportion(exact > eps[3])
    assert (curve.low[3], curve.high[3]) == pytest.approx((wilson.low, wilson.high))
    assert attacks.robust_curve(found, eps[3]).value == curve.value[[3]]
    with pytest.raises(TypeError, match="smallest must be what fab"):
        attacks.robust_curve.__wrapped__(f, eps)
    for wrong in ([], [-0.1], [np.inf]):
        with pytest.raises(ValueError, match="eps must be one or more finite numbers"):
            attacks.robust_curve(found, np.array(wrong))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_way_to_a_plane_is_the_shortest(norm):
    rng, solved = np.random.default_rng(3), 0
    project = jax.jit(to_plane, static_argnames="norm")
    for _ in range(20):
        x, w, value = rng.uniform(0, 1, 6), rng.normal(size=6), 0.6 * rng.normal()
        given = (jnp.asarray(one, jnp.float32) for one in (x, w, value))
        delta = np.asarray(project(*given, 0.0, 1.0, norm=norm))
        assert (x + delta > -1e-6).all()
        assert (x + delta < 1 + 1e-6).all()
        if norm == "linf":
            ones, eye = np.ones((6, 1)), np.eye(6)
            found = scipy.optimize.linprog(
                [0] * 6 + [1],
                A_ub=np.block([[eye, -ones], [-eye, -ones]]),
                b_ub=np.zeros(12),
                A_eq=[[*w, 0]],
                b_eq=[-value],
                bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
            )
            least, length = found.fun, np.abs(delta).max()
        elif norm == "l1":  # up and down apart
            found = scipy.optimize.linprog(
                np.ones(12),
                A_eq=[[*w, *-w]],
                b_eq=[-value],
                bounds=[*((0, one) for one in 1 - x), *((0, one) for one in x)],
            )
            least, length = found.fun, np.abs(delta).sum()
        else:
            found = scipy.optimize.minimize(
                lambda z: (z**2).sum(),
                np.zeros(6),
                jac=lambda z: 2 * z,
                bounds=list(zip(-x, 1 - x, strict=True)),
                constraints={"type": "eq", "fun": lambda z, w=w, v=value: w @ z + v},
                method="SLSQP",
            )
            least, length = np.sqrt(found.fun), np.linalg.norm(delta)
        if found.success:
            solved += 1
            assert length == pytest.approx(least, abs=2e-4)
            assert w @ delta == pytest.approx(-value, abs=1e-4)
    assert solved > 10


def test_checkpoints_are_the_papers():
    # Equation 3 of the paper: p = 0, .22, and p + max(p − p_before − .03, .06).
    shares, wanted = [0, 0.22], []
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    wanted = [int(np.ceil(100 * share - 1e-9)) for share in shares[1:] if 100 * share < 100 - 1e-9]
    assert checkpoints(100) == wanted == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == []


def test_ratios_of_logits_are_their_formulas_and_know_no_scale():
    rng = np.random.default_rng(5)
    for k in (3, 4, 10):
        outputs, labels = rng.normal(size=(6, k)).astype(np.float32), rng.integers(0, k, 6)
        targets = (labels + 1 + rng.integers(0, k - 1, 6)) % k
        for z, y, t, one, aimed in zip(
            outputs,
            labels,
            targets,
            dlr(outputs, labels),
            targeted_dlr(outputs, labels, targets),
            strict=True,
        ):
            ordered = np.sort(z)[::-1]
            other = np.delete(z, y).max()
            assert one == pytest.approx((other - z[y]) / (ordered[0] - ordered[2]), rel=1e-5)
            rest = ordered[2] if k == 3 else (ordered[2] + ordered[3]) / 2
            assert aimed == pytest.approx((z[t] - z[y]) / (ordered[0] - rest), rel=1e-5)
        np.testing.assert_allclose(dlr(7 * outputs + 3, labels), dlr(outputs, labels), rtol=1e-4)
    for k in (1, 2):
        outputs, labels = rng.normal(size=(6, k)).astype(np.float32), rng.integers(0, 2, 6)
        for value in (dlr(outputs, labels), targeted_dlr(outputs, labels, 1 - labels)):
            np.testing.assert_allclose(value, attacks.margin(outputs, labels))
    assert np.isfinite(dlr(np.zeros((1, 4), np.float32), np.array([0]))).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_ball_and_bounds_hold_exactly(norm):
    images = RNG.uniform(0, 1, (6, 7, 6, 2)).astype(np.float32)
    images[0], images[1] = 0, 1
    f, threat = network(3, 84), Threat(norm, 0.3)
    labels = classes(f, images)
    found = {
        "apgd": apgd(f, images, labels, threat, key=KEY, steps=6),
        "square": square(f, images, labels, threat, key=KEY, queries=12),
        "autoattack": autoattack(f, images, labels, threat, key=KEY, version=("apgd-ce", "fab-t")).attacked,
    }
    for name, attacked in found.items():
        delta = attacked.astype(float) - images
        order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
        size = np.linalg.norm(delta.reshape(6, -1), ord=order, axis=1).max()
        assert size <= threat.eps, name
        assert (attacked.min(), attacked.max()) >= (0, 0), name
        assert attacked.max() <= 1, name
        assert attacked.dtype == np.float32, name


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_an_eps_of_zero_changes_nothing(norm):
    f, threat = network(4), Threat(norm, 0.0)
    labels = classes(f, PLANE)
    np.testing.assert_array_equal(apgd(f, PLANE, labels, threat, key=KEY, steps=3), PLANE)
    found = autoattack(f, PLANE, labels, threat, key=KEY, version=("apgd-ce", "apgd-t"))
    assert found.robust_accuracy.value == 1
    np.testing.assert_array_equal(found.attacked, PLANE)


def test_auto_pgd_climbs_to_the_grid_s_best_point():
    f, threat = network(1, seed=4), Threat("linf", 0.03)
    labels = classes(f, PLANE)
    best = may_be_fooled(f, labels, threat)
    left = best < 0  # those that cannot be fooled keep on being attacked
    attacked = apgd(f, PLANE, labels, threat, key=KEY, steps=40, restarts=3)
    reached = np.asarray(attacks.margin(f(attacked), labels))
    assert left.sum() > 3
    np.testing.assert_allclose(reached[left], best[left], atol=0.01)


def test_bumps_are_the_papers():
    """Algorithm 3's pattern, by loops over rectangles as it is written."""

    def half(rows, columns):
        found, top, left = np.zeros((rows, columns)), rows // 2, columns // 2
        for ring in range(max(rows // 2 + 1, columns // 2 + 1)):
            found[max(top - ring, 0) : top + ring + 1, max(left - ring, 0) : left + ring + 1] += (
                1 / (ring + 1) ** 2
            )
        return found / np.linalg.norm(found)

    bump = jax.jit(bump_of, static_argnums=(1, 2), static_argnames="turned")
    for side in (3, 5, 6, 9):
        wanted = np.concatenate([half(side // 2, side), -half(side - side // 2, side)])
        wanted /= np.linalg.norm(wanted)
        for turned, expected in ((False, wanted), (True, wanted.T)):
            found = np.asarray(bump(side, 12, 11, 2, 1, turned=turned))
            np.testing.assert_allclose(found[2 : 2 + side, 1 : 1 + side], expected, atol=1e-6)
            assert np.abs(found).sum() == pytest.approx(np.abs(wanted).sum(), rel=1e-5)


def test_square_for_l2_uses_the_whole_ball_and_finds_more_than_noise():
    images = RNG.uniform(0.3, 0.7, (20, 10, 10, 1)).astype(np.float32)
    f, threat = network(3, 100, seed=2), Threat("l2", 0.5)
    labels = classes(f, images)
    attacked = square(f, images, labels, threat, key=KEY, queries=150)
    lengths = np.linalg.norm((attacked - images).reshape(20, -1), axis=1)
    np.testing.assert_allclose(lengths, 0.5, rtol=1e-4)
    noise = attacks.random_sign(images, threat, key=KEY)
    fooled, by_noise = (np.mean(classes(f, points) != labels) for points in (attacked, noise))
    assert fooled > by_noise + 0.2
    with pytest.raises(ValueError, match="5 × 5 pixels at least"):
        square(lambda x: x.mean((1, 2)), images[:, :4], labels // 2, threat, key=KEY, queries=2)


@pytest.mark.parametrize("k", [1, 4, *(pytest.param(k, marks=pytest.mark.matrix) for k in (2, 3, 10))])
def test_each_attack_takes_what_the_ones_before_left(k):
    images = RNG.uniform(0.2, 0.8, (16, 5, 5, 1)).astype(np.float32)
    f, threat = network(k, 25, seed=7), Threat("linf", 0.05)
    labels = classes(f, images)
    labels[0] = (labels[0] + 1) % max(k, 2)  # one is wrong already
    found = autoattack(f, images, labels, threat, key=KEY, queries=20, batch_size=8)
    assert found.attacks == ("clean", *attacks.STANDARD)
    assert found.fooled_by[0] == 0
    np.testing.assert_array_equal(found.attacked[0], images[0])
    for place, name in enumerate(found.attacks):
        left = (found.fooled_by < 0) | (found.fooled_by > place)
        assert found.accuracy[name].value == left.mean()
        assert found.seconds[name] >= 0
    wrong = classes(f, found.attacked) != labels
    np.testing.assert_array_equal(wrong, found.fooled_by >= 0)
    assert found.robust_accuracy.value == 1 - wrong.mean()
    assert found.robust_accuracy.value <= robust_accuracy(f, pgd(f, images, labels, threat), labels).value
    assert str(found).count("\n") == 4


def test_where_all_are_wrong_already_nothing_is_attacked():
    f, threat = network(3), Threat("linf", 0.1)
    found = autoattack(f, PLANE, (classes(f, PLANE) + 1) % 3, threat, key=KEY, version="apgd-ce")
    assert found.robust_accuracy.value == 0
    assert not found.fooled_by.any()
    nearest = fab(f, PLANE, (classes(f, PLANE) + 1) % 3, steps=2)
    assert not nearest.distance.any()
    np.testing.assert_array_equal(nearest.attacked, PLANE)


def test_a_stopped_run_goes_on_from_its_folder(tmp_path, monkeypatch):
    f, threat = network(3), Threat("linf", 0.05)
    labels, calls = classes(f, PLANE), []
    options = {"key": KEY, "version": "apgd-ce", "batch_size": 20}
    monkeypatch.setattr(attacks._autoattack, "_PART", 20)
    whole = autoattack(f, PLANE, labels, threat, **options)
    plain = attacks._autoattack._attacked

    def stopping(*args):
        calls.append(len(args[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(attacks._autoattack, "_attacked", stopping)
    with pytest.raises(KeyboardInterrupt):
        autoattack(f, PLANE, labels, threat, folder=tmp_path, **options)
    found = autoattack(f, PLANE, labels, threat, folder=tmp_path, **options)
    assert calls == [20, 20, 20]  # the first batch was not attacked again
    np.testing.assert_array_equal(found.attacked, whole.attacked)
    np.testing.assert_array_equal(found.fooled_by, whole.fooled_by)
    # Another threat is another run, and so is another cut into parts.
    autoattack(f, PLANE, labels, Threat("linf", 0.06), folder=tmp_path, **options)
    assert len(calls) == 5
    options["batch_size"] = 40
    found = autoattack(f, PLANE, labels, threat, folder=tmp_path, **options)
    assert calls[5:] == [40]
    np.testing.assert_array_equal(found.attacked, autoattack(f, PLANE, labels, threat, **options).attacked)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_nan_is_an_error(norm):
    def f(x):
        return jnp.where(x[:, :1] > 0.5, jnp.nan, jnp.concatenate([x[:, :1], 5 + 0 * x[:, :1]], axis=1))

    x, y, threat = np.full((4, 2), 0.45, np.float32), np.ones(4, int), Threat(norm, 0.2)
    with pytest.raises(ValueError, match="NaN"):
        apgd(f, x, y, threat, key=KEY, steps=20)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_slope_that_is_nan_is_an_error(norm):
    # Outputs are finite everywhere; JAX's slope of √|x₀ − x₀| is NaN.
    def f(x):
        return jnp.concatenate([jnp.sqrt(jnp.abs(x[:, :1] - x[:, :1])) + x[:, 1:], 5 + 0 * x[:, :1]], axis=1)

    x, y, threat = np.full((4, 2), 0.45, np.float32), np.ones(4, int), Threat(norm, 0.2)
    with pytest.raises(ValueError, match="NaN"):
        apgd(f, x, y, threat, key=KEY, steps=20)


def test_wrong_arguments_are_named():
    f, threat = network(3), Threat("linf", 0.1)
    labels = classes(f, PLANE)
    for version in ("plus", (), ("pgd",)):
        with pytest.raises(ValueError, match=r"version must be 'standard' or some of"):
            autoattack(f, PLANE, labels, threat, key=KEY, version=version)
    with pytest.raises(ValueError, match=r"x must be images \(m, h, w, c\) for the square attack"):
        autoattack(f, PLANE, labels, threat, key=KEY)
    with pytest.raises(ValueError, match="norm must be"):
        fab(f, PLANE, labels, norm="l3")
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]"):
        square(f, PLANE.reshape(-1, 1, 2, 1), labels, threat, key=KEY, share=0.0)
