"""Certificates: never broken by an attack, as tight as they can be; label flips against all subsets."""

import itertools
import math
import sys
from pathlib import Path

import jax
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused

from companion import data, guarantees, regression, results
from companion.architectures import conv, fc, myrtle
from companion.attacks import Threat, autoattack, outputs_of, pgd
from companion.guarantees import certified_accuracy, flip_accuracy, flips, lipschitz, modulus, radius
from companion.kernels import gram

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from guarantees import under_fire

rng = np.random.default_rng(0)


# The feature map, against the oracle's kernels


def layers_of(name, depth, activation, w_std, b_std):
    """The oracle's network and ours."""
    scales = {"activation": activation, "w_std": w_std, "b_std": b_std}
    weights = ("dense", w_std, b_std)
    if name == "fc":
        return [weights, (activation,)] * depth + [weights], fc(depth, **scales)
    middle = [("conv", 3, w_std, b_std), (activation,)] * depth
    end = ("global_avg_pool",) if name == "pooled" else ("flatten",)
    return [*middle, end, weights], conv(depth, pool=name == "pooled", **scales)


def distance(layers, x1, x2, kind):
    """‖φ(x1) − φ(x2)‖ of a pair, from the definition in float64."""
    both = np.stack([x1, x2])
    k = oracles.kernels(both, both, layers)[0 if kind == "nngp" else 1]
    return math.sqrt(max(k[0, 0] + k[1, 1] - 2 * k[0, 1], 0))


NETWORKS = [
    (name, depth, activation, kind)
    for name, depth in (("fc", 1), ("fc", 3), ("conv", 2), ("pooled", 2))
    for activation in ("relu", "erf")
    for kind in ("nngp", "ntk")
]


@pytest.mark.parametrize(("name", "depth", "activation", "kind"), NETWORKS)
@settings(max_examples=12)
@given(
    w_std=st.sampled_from([0.7, 2**0.5, 3.0]),
    b_std=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 2**31),
    length=st.sampled_from([1e-3, 0.1, 1.0]),
    way=st.sampled_from(["random", "one pixel", "flat", "to 0", "turn"]),
)
def test_features_never_move_farther_than_proved(
    name, depth, activation, kind, w_std, b_std, seed, length, way
):
    layers, architecture = layers_of(name, depth, activation, w_std, b_std)
    draw = np.random.default_rng(seed)
    shape = (4,) if name == "fc" else (3, 3, 1)
    x = draw.uniform(size=shape) * draw.choice([1.0, 0.01])
    step = {
        "random": draw.normal(size=shape),
        "one pixel": np.eye(x.size)[draw.integers(x.size)].reshape(shape),
        "flat": np.ones(shape),
        "to 0": -x,
        "turn": draw.permutation(x.ravel()).reshape(shape),
    }[way]
    other = np.clip(x + length * step / np.linalg.norm(step), 0, 1)
    eps = np.linalg.norm(other - x)
    bound = modulus(architecture, x[None], eps, kind=kind)[0, 0]
    # Differences of kernels of size 10 have lost what is below 1e-7.
    assert distance(layers, x, other, kind) <= bound + 3e-7
    constant = lipschitz(architecture, shape, kind=kind)
    assert (
        constant == math.inf
        if (activation, kind) == ("relu", "ntk")
        else bound == pytest.approx(constant * eps)
    )


@pytest.mark.parametrize(
    ("name", "depth", "activation", "kind", "start"),
    [
        ("fc", 1, "relu", "nngp", 0.5),
        ("fc", 3, "relu", "nngp", 0.5),
        ("conv", 1, "relu", "nngp", 0.5),
        ("fc", 1, "erf", "nngp", 0.0),
        ("fc", 3, "erf", "nngp", 0.0),
        ("conv", 1, "erf", "nngp", 0.0),
        ("fc", 1, "erf", "ntk", 0.0),
    ],
)
def test_the_constant_is_the_slope_somewhere_to_one_percent(name, depth, activation, kind, start):
    layers, architecture = layers_of(name, depth, activation, 2**0.5, 0.1)
    shape, middle = ((4,), (0,)) if name == "fc" else ((3, 3, 1), (1, 1, 0))
    x = np.full(shape, start)
    other = x.copy()
    other[middle] += 1e-3
    slope = distance(layers, x, other, kind) / 1e-3
    assert 0.99 <= slope / lipschitz(architecture, shape, kind=kind) <= 1 + 1e-6


@pytest.mark.parametrize("depth", [1, 3])
def test_the_bound_of_the_relu_ntk_is_sharp_where_there_are_no_biases(depth):
    layers, architecture = layers_of("fc", depth, "relu", 2**0.5, 0.0)
    x, other = np.array([1.0, 0, 0, 0]), np.array([1.0, 1e-4, 0, 0])
    found = distance(layers, x, other, "ntk") / modulus(architecture, x[None], 1e-4)[0, 0]
    assert 0.99 <= found <= 1
    # It grows like a root: a hundred times nearer is ten times nearer in features.
    near, far = modulus(architecture, x[None], [1e-6, 1e-4])[0]
    assert far / near == pytest.approx(10, rel=0.01)


def test_known_constants():
    assert lipschitz(fc(1), (28, 28, 1), kind="nngp") == pytest.approx(2**0.5 / 28)
    assert lipschitz(fc(4, w_std=1.0), 9, kind="nngp") == pytest.approx(1 / 3 / 4)
    same = [
        lipschitz(each, (8, 8, 3), kind="nngp") for each in (fc(4), conv(4), conv(4, pool=True), myrtle(5))
    ]
    assert same == pytest.approx([lipschitz(fc(1), 192, kind="nngp")] * 4)  # √2 keeps it at every depth
    # Without biases 4/π of each layer is reached at 0; with them erf flattens.
    assert lipschitz(fc(2, activation="erf", w_std=1.0, b_std=0.0), 1, kind="nngp") == pytest.approx(
        4 / np.pi
    )
    assert lipschitz(fc(1, activation="erf", w_std=1.0, b_std=1.0), 1, kind="nngp") == pytest.approx(
        (4 / np.pi / 5**0.5) ** 0.5
    )
    # The slope of erf's NTK grows with the inputs.
    small, large = (lipschitz(fc(1, activation="erf"), 9, kind="ntk", bounds=(0.0, b)) for b in (1.0, 30.0))
    assert large > 1.5 * small


# Radii


PAIR = data.load("digits", classes=(4, 9), n_train=60, n_test=60)
TEN = data.load("digits", n_train=80, n_test=60)
EPS = (0.1, 0.2, 0.4)


def kept_within(f, x, eps, attack):
    """How many inputs are certified at ε, and how many of these an attack moves to another class."""
    before = classes(f, x)
    inside = radius(f, x) > eps
    after = classes(f, attack(f, x, before, Threat("l2", eps)))
    return inside.sum(), (inside & (before != after)).sum()


def classes(f, x):
    outputs = outputs_of(f, x, 256)
    return (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def strong(f, x, labels, threat):
    return pgd(f, x, labels, threat, steps=10, restarts=2, key=jax.random.key(0))


more = pytest.mark.matrix


@pytest.mark.parametrize(
    ("kernel", "kind", "images", "ridge", "t"),
    [
        (fc(1), "nngp", PAIR, 0.3, math.inf),
        (fc(1), "nngp", TEN, 0.3, math.inf),
        (fc(1), "ntk", PAIR, 0.3, 20.0),
        pytest.param(fc(1), "nngp", PAIR, 1e-3, 20.0, marks=more),
        pytest.param(fc(2, activation="erf"), "nngp", PAIR, 0.1, math.inf, marks=more),
        pytest.param(fc(2, activation="erf"), "ntk", PAIR, 0.3, 5.0, marks=more),
        pytest.param(conv(1), "nngp", PAIR, 0.3, math.inf, marks=more),
    ],
)
def test_pgd_moves_nothing_inside_its_radius(kernel, kind, images, ridge, t):
    f = regression.fit(kernel, images.x_train, data.targets(images.y_train), kind=kind, ridge=ridge).at(t)
    found = np.array([kept_within(f, images.x_test, eps, strong) for eps in EPS])
    assert found[0, 0] > 20
    assert (found[:, 1] == 0).all()


@pytest.mark.parametrize(
    "version", [("apgd-ce", "fab-t"), pytest.param("standard", marks=more)], ids=["two of four", "all"]
)
def test_autoattack_moves_nothing_inside_its_radius(version):
    f = regression.fit(fc(1), PAIR.x_train, data.targets(PAIR.y_train), kind="nngp", ridge=0.3)

    def every(f, x, labels, threat):
        options = {"key": jax.random.key(0), "queries": 200, "version": version}
        return autoattack(f, x, labels, threat, **options).attacked

    number, moved = kept_within(f, PAIR.x_test, 0.4, every)
    assert number > 20
    assert moved == 0


def test_autoattack_was_recorded_just_inside_twenty_thousand_radii():
    found = results.load("guarantee_benchmark", "cpu")
    cases = np.array(list(found.values["cases"].values()))
    assert found.values["pairs"] == cases[:, 0].sum() >= 20_000
    assert found.values["broken"] == cases[:, 1].sum() == 0
    assert found.values["beyond"] == cases[:, 3].sum() > 1000  # the same attack is not idle farther out
    assert found.provenance["config"]["restarts"] == 10


def test_the_record_s_attack_counts_what_it_breaks(monkeypatch):
    f = regression.fit(fc(1), PAIR.x_train, data.targets(PAIR.y_train), kind="nngp", ridge=0.3)
    x, options = PAIR.x_test, {"restarts": 1, "group": 60}  # the shapes of the test above: compiled once
    pairs, broken, share, _ = under_fire(f, x, jax.random.key(0), **options)
    assert (pairs, broken) == (60, 0)
    assert 0 < share < 1
    monkeypatch.setattr(guarantees, "radius", lambda f, x: np.full(len(x), 20.0))
    assert under_fire(f, x, jax.random.key(0), **options)[:2] == (60, 60)


def linear(a, b, get):
    return a @ b.T


def test_of_a_linear_kernel_the_radius_is_the_distance_to_the_hyperplane():
    x = rng.uniform(size=(9, 5)).astype(np.float32)
    f = regression.fit(linear, x, rng.choice([-1.0, 1], size=(9, 1)), ridge=0.1, resolution=2e-6)
    w = x.T.astype(float) @ f.coefficients
    found = radius(f, x, lipschitz=1)
    np.testing.assert_allclose(found, np.abs(x @ w)[:, 0] / np.linalg.norm(w), rtol=0.02, atol=2e-3)
    toward = -np.sign(x @ w) * w.T / np.linalg.norm(w)
    assert (classes(f, (x + found[:, None] * toward).astype(np.float32)) == classes(f, x)).all()
    assert (
        classes(f, (x + 1.1 * found[:, None] * toward + 0.02 * toward).astype(np.float32)) != classes(f, x)
    ).all()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    ridge=st.sampled_from([0.0, 1e-4, 1e-2, 1.0]),
    t=st.sampled_from([0.1, 10.0, math.inf]),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    outputs=st.sampled_from([1, 3]),
    twins=st.booleans(),
    kernel=st.sampled_from([(fc(1), "nngp"), (fc(1), "ntk")]),
)
@pytest.mark.filterwarnings("ignore::companion.regression.PrecisionWarning")
def test_nothing_drawn_is_nearer_than_its_radius(seed, ridge, t, scale, outputs, twins, kernel):
    draw = np.random.default_rng(seed)
    x = (scale * draw.uniform(size=(8, 6))).astype(np.float32)
    if twins:  # almost equal inputs of opposite classes: the worst for a float32 kernel
        x[4:] = x[:4] * (1 + np.float32(1e-6))
    y = draw.normal(size=(8, outputs))
    f = regression.fit(kernel[0], x, y, kind=kernel[1], ridge=ridge * scale**2).at(t / scale**2)
    z = np.concatenate([x[:4], (scale * draw.uniform(size=(4, 6))).astype(np.float32)])
    found, before = radius(f, z), classes(f, z)
    gradient = np.asarray(f.gradient(z)).reshape(8, outputs, 6)
    ways = [
        draw.normal(size=(8, 6)),
        x - z,
        x[::-1] - z,
        *(s * g for g in np.moveaxis(gradient, 1, 0) for s in (1, -1)),
    ]
    for way in ways:
        length = np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-30)
        inside = (z + 0.999 * np.minimum(found, 1e6)[:, None] * way / length).astype(np.float32)
        nearer = np.linalg.norm(inside.astype(float) - z, axis=1) < found
        assert (classes(f, inside) == before)[nearer].all()


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
@pytest.mark.parametrize("kernel", [fc(3), fc(2, activation="erf"), pytest.param(conv(1), marks=more)])
def test_rounding_is_as_small_as_the_certificate_takes_it_to_be(kernel, kind):
    x = np.concatenate([TEN.x_train[:20], TEN.x_train[:20] * (1 - np.float32(1e-6))])
    wide = gram(kernel, x.astype(float), kind=kind)
    apart = np.abs(gram(kernel, x, kind=kind) - wide) / np.sqrt(np.outer(wide.diagonal(), wide.diagonal()))
    f = regression.fit(kernel, x, data.targets(np.arange(40) % 2), kind=kind, ridge=0.1)
    from companion.guarantees import _radius

    assert apart.max() < _radius._errors(f, True, np.ones(40), 1.0)[0] / 3


def test_the_norm_is_that_of_the_definition_with_and_without_a_spectrum():
    from companion.guarantees import _radius

    f = regression.fit(fc(1), TEN.x_train, data.targets(TEN.y_train), kind="nngp", ridge=0.1)
    k, alpha = gram(fc(1), TEN.x_train.astype(float), kind="nngp"), f.coefficients
    apart = alpha[:, 3] - alpha[:, 7]
    expected = math.sqrt(apart @ k @ apart)
    given = regression.from_coefficients(fc(1), TEN.x_train, alpha, kind="nngp")
    for each in (f, given):
        norms, _ = _radius._norms(each, np.ones(80), 0.0, 64)
        assert norms[3, 7] == norms[7, 3] == pytest.approx(expected, rel=1e-4)
        np.testing.assert_allclose(radius(each, TEN.x_test), radius(f, TEN.x_test), rtol=0.05, atol=1e-3)


def test_digits_have_the_certificates_that_were_promised():
    curves = {}
    for pair in ((0, 1), (4, 9)):
        digits = data.load("mnist5k", classes=pair, n_train=400)
        f = regression.fit(fc(1), digits.x_train, data.targets(digits.y_train), kind="nngp")
        f = f.with_ridge(f.eigenvalues.mean())
        right = classes(f, digits.x_test) == digits.y_test
        curves[pair] = certified_accuracy(radius(f, digits.x_test), right, [0.5, 1.0, 2.0])
    assert curves[0, 1].value[1] >= 0.99
    assert curves[0, 1].value[2] >= 0.75
    assert curves[4, 9].value[0] >= 0.70
    assert (curves[4, 9].low[:2] < curves[4, 9].value[:2]).all()


def test_certified_accuracy_counts_what_is_right_and_farther_than_eps():
    found = certified_accuracy(
        np.array([0.0, 0.5, 1.0, 2.0]), np.array([True, True, True, False]), [0, 0.5, 0.9, 3]
    )
    assert found.value.tolist() == [0.75, 0.25, 0.25, 0.0]
    assert found.n == 4


# Label flips


def targets_of(labels, k):
    return 2.0 * labels[:, None] - 1 if k == 2 else np.eye(k)[labels] * 3 - 0.2


def predictions(kernel, cross, labels, k, *, ridge, t):
    """Classes after training on some labels, from the definition."""
    values, vectors = np.linalg.eigh(kernel)
    gains = (1 - np.exp(-(values + ridge) * t)) / (values + ridge)
    outputs = cross @ (vectors * gains) @ vectors.T @ targets_of(labels, k)
    return (outputs[:, 0] > 0).astype(int) if k == 2 else outputs.argmax(axis=1)


def all_changes(labels, k, r):
    """Every way to change exactly r labels."""
    for some in itertools.combinations(range(len(labels)), r):
        for new in itertools.product(*([c for c in range(k) if c != labels[j]] for j in some)):
            changed = labels.copy()
            changed[list(some)] = new
            yield changed


def small(k, n, seed):
    draw = np.random.default_rng(seed)
    a, z = draw.normal(size=(n, n + 2)), draw.normal(size=(5, n + 2))
    return a @ a.T / n, (z @ a.T) / n, draw.integers(k, size=n), draw.integers(k, size=5)


@pytest.mark.parametrize(("k", "n"), [(2, 8), (3, 5)])
@pytest.mark.parametrize(("ridge", "t"), [(0.0, math.inf), (0.5, math.inf), (0.0, 1.0), (0.3, 3.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_flips_are_those_of_all_subsets_and_do_flip(k, n, ridge, t, seed):
    kernel, cross, train, _ = small(k, n, seed)
    f = regression.fit(kernel, targets=targets_of(train, k), ridge=ridge).at(t)
    options = {"ridge": ridge, "t": t}
    before = predictions(kernel, cross, train, k, **options)
    expected = np.full(5, n + 1)
    for r in range(n, 0, -1):
        for changed in all_changes(train, k, r):
            expected[predictions(kernel, cross, changed, k, **options) != before] = r
    found = flips(f, None, before, k_test_train=cross)
    assert found.number.tolist() == expected.tolist()
    for i, (indices, new) in enumerate(zip(found.indices, found.labels, strict=True)):
        assert len(indices) == found.number[i] == len(set(indices))
        changed = train.copy()
        changed[indices] = new
        assert predictions(kernel, cross, changed, k, **options)[i] != before[i]


@pytest.mark.parametrize(("k", "n"), [(2, 8), (3, 5)])
def test_one_set_of_changes_for_all_inputs_does_not_pass_its_bound(k, n):
    kernel, cross, train, labels = small(k, n, 2)
    labels = predictions(kernel, cross, train, k, ridge=0.1, t=math.inf)
    f = regression.fit(kernel, targets=targets_of(train, k), ridge=0.1)
    budgets = [0, 1, 2, 3]
    bound = guarantees.shared_flip_accuracy(f, None, labels, budgets, k_test_train=cross)
    alone = flip_accuracy(flips(f, None, labels, k_test_train=cross), budgets).value
    worst = [
        min(
            (predictions(kernel, cross, changed, k, ridge=0.1, t=math.inf) == labels).mean()
            for used in range(r + 1)
            for changed in all_changes(train, k, used)
        )
        for r in budgets
    ]
    assert (alone <= bound).all()
    assert (bound <= np.array(worst) + 1e-12).all()
    assert bound[0] == 1


def test_what_is_wrong_or_a_tie_needs_no_flip():
    f = regression.fit(np.eye(3), targets=np.array([[1.0], [1.0], [-1.0]]))
    cross = np.array([[1.0, 2, 1], [1.0, 0, 1], [3.0, 1, 1]])
    found = flips(f, None, np.array([0, 1, 1]), k_test_train=cross)
    assert found.number.tolist() == [0, 0, 1]  # wrong; 1 − 1 = 0; 3 against 1
    assert found.indices[2].tolist() == [0]
    assert found.labels[2].tolist() == [0]
    assert flip_accuracy(found, [0, 1]).value.tolist() == [1 / 3, 0]


def test_flips_of_digits_are_those_of_the_kernel_given_and_refit():
    f = regression.fit(fc(1), PAIR.x_train, data.targets(PAIR.y_train), ridge=0.3)
    cross = gram(fc(1), PAIR.x_test, PAIR.x_train)
    found = flips(f, PAIR.x_test, PAIR.y_test)
    again = flips(f, None, PAIR.y_test, k_test_train=cross)
    assert found.number.tolist() == again.number.tolist()
    i = int(np.argmax(found.number))
    changed = PAIR.y_train.copy()
    changed[found.indices[i]] = found.labels[i]
    refitted = regression.fit(fc(1), PAIR.x_train, data.targets(changed), ridge=0.3)
    assert (refitted(PAIR.x_test[[i]])[0, 0] > 0) != (PAIR.y_test[i] == 1)
    assert found.number[i] > 1


# Refusals


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_refused_by_name():
    x = PAIR.x_train
    f = regression.fit(fc(1), x, data.targets(PAIR.y_train), ridge=0.3)
    smooth = regression.fit(fc(1, activation="erf"), x, data.targets(PAIR.y_train), ridge=0.3)
    conjugate = regression.fit(fc(1), x, data.targets(PAIR.y_train), kind="nngp", ridge=0.3)
    mean = regression.fit(fc(1), x, rng.normal(size=(60, 1)), ridge=0.3)
    many = regression.fit(fc(1), x, np.arange(180.0).reshape(60, 3), ridge=0.3)
    solved = regression.fit(fc(1), x, data.targets(PAIR.y_train), ridge=0.3, solver="cholesky")
    own = regression.fit(
        lambda a, b, get: a.reshape(len(a), -1) @ b.reshape(len(b), -1).T, x, np.ones((60, 1))
    )
    matrix = regression.fit(np.eye(2), targets=np.ones((2, 1)))
    right = np.ones(60, bool)
    assert_refused(
        [
            (
                lambda: flips(f, None, right[:0].astype(int), k_test_train=np.zeros((0, 60))),
                ValueError,
                "k_test_train must have a row for each input, at least one",
            ),
            (
                lambda: flips(f, x[:3], right[:2].astype(int), k_test_train=np.zeros((2, 60))),
                ValueError,
                "k_test_train must have a row for each of the 3 x, got 2",
            ),
            (lambda: lipschitz(linear, 4), TypeError, "architecture must come from"),
            (lambda: lipschitz(fc(1), ()), ValueError, "shape must be that of one input"),
            (lambda: lipschitz(fc(1), 4, kind="cntk"), ValueError, "kind must be"),
            (lambda: modulus(fc(1), x, -1.0), ValueError, "eps must be"),
            (lambda: radius(f.__call__, x), TypeError, "f must come from regression.fit"),
            (lambda: radius(own, x), TypeError, "lipschitz=L"),
            (lambda: radius(own, x, lipschitz=0.0), ValueError, "lipschitz must be more than"),
            (
                lambda: radius(f, x, lipschitz=0.05),
                ValueError,
                "lipschitz must be at least inf, the constant",
            ),
            (lambda: radius(conjugate, x, lipschitz=0.05), ValueError, "lipschitz must be at least 0.176777"),
            (lambda: radius(matrix, x), TypeError, "a matrix alone"),
            (lambda: radius(f, x.astype(float)), TypeError, "x must be in f's precision"),
            (lambda: radius(f, x[:, :4]), ValueError, "inputs of one shape"),
            (lambda: radius(smooth, 2 * x), ValueError, "x must lie in the bounds"),
            (lambda: certified_accuracy(np.ones(60), right[:3], 1.0), ValueError, "radii and right"),
            (lambda: certified_accuracy(np.ones(60), right, [-1.0]), ValueError, "eps must be"),
            (lambda: flips(solved, x, PAIR.y_train), TypeError, "no spectrum"),
            (lambda: flips(mean, x, PAIR.y_train), ValueError, "targets that are ±1"),
            (lambda: flips(many, x, PAIR.y_train), ValueError, "targets that are one-hot"),
            (lambda: flips(f, None, PAIR.y_train), TypeError, "k_test_train"),
            (lambda: flips(f, x, PAIR.y_train + 1), ValueError, "labels must lie"),
            (lambda: flip_accuracy(flips(f, x, PAIR.y_train), -1), ValueError, "budgets must be at least 0"),
        ]
    )
