"""What an attack's failure means: the warnings one by one, random search, transfer between functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from refusals import assert_refused

from companion.attacks import (
    AttackWarning,
    AutoAttack,
    SanityChecks,
    Threat,
    fab,
    gradient_cosine,
    pgd,
    robust_accuracy,
    sanity_checks,
    square,
    transfer,
)
from companion.statistics import accuracy, proportion

KEY = jax.random.key(0)
ONES = np.ones(100, int)


def inputs(*groups, pixels=1):
    """(100, pixels): the first pixel at the given values in the given numbers, the others at 1/2."""
    first = np.concatenate([np.full((n, 1), value, np.float32) for value, n in groups])
    return np.pad(first, ((0, 0), (0, pixels - 1)), constant_values=0.5)


# Sanity checks: f(x) > 0 is right, and the attack goes downhill.


def healthy(x):
    return x - 0.45


def saturated(x):
    # Flat above 0.8, where two examples of a hundred are: too few to look unbreakable.
    return jnp.minimum(x, 0.8) - 0.45


def bowl(x):
    # With a step too long, the attack jumps from one side of the bowl to the other: f(0.6) < 0 < f(0.4).
    return (x - 0.575) ** 2 - 0.05**2


def barrier(x):
    # From 0.5 downhill is a dip at 0.48, where small steps stay; a long one falls behind its wall. The second
    # pixel leads out of the dip, far beyond eps. From 0.8 all is downhill.
    first, second = x[:, :1], x[:, 1:]
    dip = jnp.where(first > 0.42, 0.01 + (first - 0.48) ** 2, first - 0.425)
    return jnp.where(first > 0.62, first - 0.75, dip) + 0.04 * (second - 0.5)


def two_valleys(x):
    # From 0.2 it is downhill to below 0, from 0.8 to a bottom above 0.
    return jnp.where(x < 0.5, 0.25 - x, 0.05 + (x - 0.8 + 0.05) ** 2)


def test_a_healthy_attack_raises_no_warning():
    # Half of the examples are close enough to be fooled by eps = 0.1.
    x = inputs((0.5, 50), (0.6, 50))
    found = sanity_checks(healthy, x, ONES, Threat("linf", 0.1), key=KEY)
    assert isinstance(found, SanityChecks)
    assert found.messages == ()
    assert found.zero_gradient == 0
    right = {"clean": 100, "one_step": 50, "few_steps": 50, "more_steps": 50, "unbounded": 0}
    for name, n in right.items():
        assert getattr(found, name) == accuracy(np.repeat([[1.0], [-1.0]], [n, 100 - n], axis=0), ONES)
    # Of the fifty that can be fooled, a random sign fools about a half.
    assert 60 <= 100 * found.random.value <= 90


@pytest.mark.parametrize(
    ("predict", "x", "threat", "steps", "values", "message"),
    [
        (
            saturated,
            inputs((0.5, 98), (0.9, 2)),
            Threat("linf", 0.1),
            10,
            {"zero_gradient": 0.02, "few_steps": 0.02, "unbounded": 0.02},
            "zero gradients at 2.0% of the inputs",
        ),
        (
            bowl,
            inputs((0.5, 100)),
            Threat("linf", 0.1),
            1,
            {"clean": 1, "one_step": 0, "few_steps": 0, "more_steps": 1, "unbounded": 0},
            r"more steps are weaker \(accuracy 1.000 against 0.000\)",
        ),
        (
            barrier,
            inputs((0.5, 30), (0.8, 70), pixels=2),
            Threat("linf", 0.1),
            10,
            {"clean": 1, "one_step": 0, "few_steps": 0.3, "more_steps": 0.3, "unbounded": 0},
            r"one step is stronger than many \(accuracy 0.000 against 0.300\)",
        ),
        (
            two_valleys,
            inputs((0.2, 80), (0.8, 20)),
            Threat("linf", 0.1),
            10,
            {"clean": 1, "one_step": 0.2, "few_steps": 0.2, "more_steps": 0.2, "unbounded": 0.2},
            "the unbounded attack leaves an accuracy of 0.200",
        ),
        (
            healthy,
            inputs((0.5, 100)),
            Threat("linf", 0.01),
            10,
            {"random": 1, "one_step": 1, "few_steps": 1, "more_steps": 1, "unbounded": 0},
            r"random signs are as strong as the attack \(accuracy 1.000 against 1.000\)",
        ),
    ],
    ids=["flat", "weaker", "one step", "unbounded", "random"],
)
def test_each_warning_comes_alone(predict, x, threat, steps, values, message):
    with pytest.warns(AttackWarning, match=message) as caught:
        found = sanity_checks(predict, x, ONES, threat, key=KEY, steps=steps)
    assert len(caught) == len(found.messages) == 1
    assert str(caught[0].message) == found.messages[0]
    for name, value in values.items():
        got = getattr(found, name)
        assert getattr(got, "value", got) == pytest.approx(value), name


@pytest.mark.filterwarnings("ignore::companion.attacks.AttackWarning")
def test_an_eps_that_turns_all_inputs_gray_is_named():
    # From 0.5 and 0.9 every input comes to the middle of (-1, 2) by 1.5 at most, and farther ones by 1.5.
    x = inputs((0.5, 50), (0.9, 50))
    for eps, wanted in {1.5: True, 1.4: False}.items():
        found = sanity_checks(healthy, x, ONES, Threat("linf", eps, (-1.0, 2.0)), key=KEY)
        said = [message for message in found.messages if message.startswith(f"eps = {eps:g} is half of the")]
        assert bool(said) == wanted
    assert sanity_checks(healthy, x, ONES, Threat("l2", 1.5, (-1.0, 2.0)), key=KEY).messages == found.messages


def test_a_certain_network_masks_its_gradients_with_some_losses_only():
    # tanh in float32: s f = 1 to the last bit, and its derivative is 0.
    def f(x):
        return jnp.tanh(200 * (x - 0.45))

    x, threat = inputs((0.6, 100)), Threat("linf", 0.2)
    with pytest.warns(AttackWarning) as caught:
        found = sanity_checks(f, x, ONES, threat, key=KEY)
    assert [str(one.message)[:12] for one in caught] == [one[:12] for one in found.messages]
    assert {message.split(" at ")[0].split(" leaves")[0].split(" are")[0] for message in found.messages} == {
        "zero gradients",
        "the unbounded attack",
        "random signs",
    }
    assert found.zero_gradient == found.few_steps.value == found.unbounded.value == 1
    assert found.random.value < 0.7

    # A large logit saturates the cross-entropy, not the margin.
    def certain(x):
        return 2000 * (x - 0.45)

    with pytest.warns(AttackWarning):
        found = sanity_checks(certain, x, ONES, threat, key=KEY, loss="cross_entropy")
    assert found.zero_gradient == found.few_steps.value == 1
    assert sanity_checks(certain, x, ONES, threat, key=KEY).few_steps.value == 0


def reached(right):
    """What AutoAttack would return of 100 inputs of which these many resist."""
    fooled = np.where(np.arange(100) < right, -1, 1).astype(np.int32)
    share = {"clean": proportion(fooled > -2), "apgd-ce": proportion(fooled < 0)}
    return AutoAttack(np.zeros((100, 1), np.float32), fooled, tuple(share), share, dict.fromkeys(share, 0.0))


def test_an_attack_that_leaves_more_than_autoattack_is_told_of():
    x, threat = inputs((0.9, 60), (0.5, 40)), Threat("linf", 0.1)  # 60 resist: f = x − 0.45
    with pytest.warns(AttackWarning, match=r"more than AutoAttack \(accuracy 0.600 against 0.570\)") as told:
        found = sanity_checks(healthy, x, ONES, threat, key=KEY, found=reached(57))
    assert len(told) == len(found.messages) == 1
    assert sanity_checks(healthy, x, ONES, threat, key=KEY, found=reached(58)).messages == ()
    with pytest.raises(ValueError, match="found must be of these 99 inputs, got one of 100"):
        sanity_checks(healthy, x[:99], ONES[:99], threat, key=KEY, found=reached(58))


def test_an_attack_with_no_room_raises_no_warning():
    # With eps = 0 all attacks but the unbounded one are the clean inputs; here in L2, by class, in batches.
    x = np.random.default_rng(0).uniform(size=(30, 2, 3)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)

    def f(x):
        return x.reshape(len(x), -1) @ w

    labels = np.asarray(f(x)).argmax(axis=1)
    found = sanity_checks(f, x, labels, Threat("l2", 0.0), key=KEY, batch_size=30)
    assert found.messages == ()
    assert found.unbounded.value == 0
    assert found.random.value == found.few_steps.value == found.one_step.value == 1


# Square attack

IMAGES = np.random.default_rng(0).uniform(size=(12, 6, 6, 2)).astype(np.float32)
FILTER = np.random.default_rng(1).normal(size=(72, 1)).astype(np.float32)


def masked(w, x):
    # A linear function in steps of 1/256: its gradient is zero wherever there is one.
    jax.debug.callback(lambda: CALLS.append(1))
    return jnp.round(256 * linear(w, x)) / 256


def linear(w, x):
    return x.reshape(len(x), -1) @ w - 0.5 * w.sum()


CALLS = []
MASKED = Partial(masked, FILTER)
CLASSES = (linear(FILTER, IMAGES)[:, 0] > 0).astype(int)


def outputs(x):
    """Positive where the class is still the clean one."""
    return (2 * CLASSES - 1) * linear(FILTER, x)[:, 0]


def test_random_search_finds_what_masked_gradients_hide():
    threat = Threat("linf", 0.15)
    np.testing.assert_array_equal(pgd(MASKED, IMAGES, CLASSES, threat), IMAGES)
    found = square(MASKED, IMAGES, CLASSES, threat, key=KEY, queries=500)
    # At best a linear function falls by eps times its absolute weights.
    possible = outputs(IMAGES) < 0.7 * 0.15 * np.abs(FILTER).sum()
    assert possible.mean() > 0.5
    assert (outputs(found)[possible] < 0).all()


def test_random_search_changes_every_pixel_fully_and_never_past_the_bounds():
    low, high = np.maximum(IMAGES - np.float32(0.25), 0), np.minimum(IMAGES + np.float32(0.25), 1)
    found = square(MASKED, IMAGES, CLASSES, Threat("linf", 0.25), key=KEY, queries=20)
    assert (np.isclose(found, low, atol=1e-6) | np.isclose(found, high, atol=1e-6)).all()


def test_one_query_is_stripes_and_more_are_never_weaker():
    one, some, many = (
        square(MASKED, IMAGES, CLASSES, Threat("linf", 0.02), key=KEY, queries=queries)
        for queries in (1, 40, 400)
    )
    stripes, uncut = np.sign(one - IMAGES), (IMAGES > 0.03) & (IMAGES < 0.97)
    column = np.sign(np.where(uncut, stripes, 0).sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(stripes[uncut], np.broadcast_to(column, uncut.shape)[uncut])
    assert len(np.unique(column, axis=0)) > 6  # every image draws its own
    for stronger in (some, many):
        assert (outputs(stronger) <= outputs(one) + 1 / 256).all()
    # Of all that the signs could do, four hundred queries on 72 numbers do most.
    share = (outputs(IMAGES) - outputs(many)) / (0.02 * np.abs(FILTER).sum())
    assert share[outputs(many) > 0.01].min() > 0.6


def test_random_search_repeats_with_its_key_whatever_the_batch():
    threat, options = Threat("linf", 0.05), {"queries": 60}
    whole = square(MASKED, IMAGES, CLASSES, threat, key=KEY, **options)
    np.testing.assert_array_equal(square(MASKED, IMAGES, CLASSES, threat, key=KEY, **options), whole)
    # Some are fooled early: they stay as they are, also where others beside them go on.
    assert 0 < (outputs(whole) < 0).mean() < 1
    np.testing.assert_array_equal(
        square(MASKED, IMAGES, CLASSES, threat, key=KEY, **options, batch_size=1), whole
    )
    other = square(MASKED, IMAGES, CLASSES, threat, key=jax.random.key(1), **options)
    assert (other != whole).any(axis=(1, 2, 3)).all()


def test_random_search_spends_no_more_queries_than_allowed_and_none_when_all_are_fooled():
    def spent(labels, queries):
        CALLS.clear()
        square(MASKED, IMAGES, labels, Threat("linf", 1e-4), key=KEY, queries=queries)
        jax.effects_barrier()
        return len(CALLS)

    assert np.abs(outputs(IMAGES)).min() > 0.02  # out of reach of eps
    assert spent(CLASSES, 25) == 25
    assert spent(CLASSES, 1) == 1
    assert spent(1 - CLASSES, 25) == 1


# Transfer

RIGHT_CLEAN = np.array([[0.9], [0.9], [0.9], [0.1]], np.float32)
LABELS = np.array([1, 1, 1, 1])
ATTACKED = {
    "strong": np.array([[0.1], [0.1], [0.9], [0.1]], np.float32),
    "weak": np.array([[0.9], [0.4], [0.9], [0.9]], np.float32),
}


def strict(x):
    assert isinstance(x, np.ndarray)  # as a network of another framework would want
    return x - 0.5


def test_a_cosine_is_at_most_one():
    def slope(z):
        return z @ jnp.asarray([[1.0], [2.0], [3.0]])

    same = gradient_cosine(slope, slope, np.full((4, 3), 0.5, np.float32), np.ones(4, int))
    np.testing.assert_array_equal(np.arccos(same), 0)


def test_long_work_shows_how_far_it_is_where_asked(capsys):
    x, threat = inputs((0.5, 50), (0.6, 50)), Threat("linf", 0.1)
    silent = transfer(ATTACKED, {"a": strict}, RIGHT_CLEAN, LABELS)
    sanity_checks(healthy, x, ONES, threat, key=KEY, steps=2)
    assert capsys.readouterr().err == ""
    shown = transfer(ATTACKED, {"a": strict, "b": strict}, RIGHT_CLEAN, LABELS, progress=True)
    assert "6/6" in capsys.readouterr().err  # two attacks and no attack, on two networks
    np.testing.assert_array_equal(shown.flipped[:, 0], silent.flipped[:, 0])
    sanity_checks(healthy, x, ONES, threat, key=KEY, steps=2, progress=True)
    bars = capsys.readouterr().err
    assert all(f"{steps * len(x)}/{steps * len(x)}" in bars for steps in (2, 8, 50))


def test_transfer_is_what_can_be_counted_by_hand():
    lenient = Partial(lambda x: x - 0.3)
    hostile = Partial(lambda x: 0 * x - 1)
    targets = {"strict": strict, "lenient": lenient, "hostile": hostile}
    found = transfer(ATTACKED, targets, RIGHT_CLEAN, LABELS, batch_size=3)
    assert found.attacks == ("strong", "weak")
    assert found.networks == ("strict", "lenient", "hostile")
    # Clean, all but the last example are right, and none of the hostile target's.
    flipped = [[[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4], [[0, 1, 0, 0], [0] * 4, [0] * 4]]
    np.testing.assert_array_equal(found.flipped, np.array(flipped, bool))
    counts = {
        ("strong", "strict"): 2,
        ("strong", "lenient"): 2,
        ("weak", "strict"): 1,
        ("weak", "lenient"): 0,
    }
    for (attack, target), n in counts.items():
        expected = accuracy(np.repeat([[1.0], [-1.0]], [n, 3 - n], axis=0), np.ones(3, int))
        assert found.success[attack][target] == expected
    assert found.success["strong"]["hostile"] is found.success["weak"]["hostile"] is None
    for attack, target, value in (
        ("strong", "strict", 0.25),
        ("weak", "strict", 0.75),
        ("weak", "lenient", 1),
        ("weak", "hostile", 0),
    ):
        assert found.accuracy[attack][target] == robust_accuracy(
            lambda x, f=targets[target]: np.concatenate([-np.asarray(f(x)), np.asarray(f(x))], 1),
            ATTACKED[attack],
            LABELS,
        )
        assert found.accuracy[attack][target].value == value
    # Common flips over all: 2 of 2, then 0 of 1; 1 where there are none to disagree on.
    expected = [[[1, 1, 0], [1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1], [0, 1, 1]]]
    np.testing.assert_array_equal(found.agreement, expected)


def test_transfer_counts_classes_too():
    # Three outputs: the largest is the class. The attack rotates the outputs of the second example.
    clean = np.eye(3, dtype=np.float32)
    attacked = clean.copy()
    attacked[1] = [0.2, 0.1, 0.0]
    found = transfer(
        {"turned": attacked}, {"same": lambda x: x, "other": lambda x: x[:, ::-1]}, clean, np.arange(3)
    )
    np.testing.assert_array_equal(found.flipped, [[[False, True, False], [False, True, False]]])
    assert found.success["turned"]["same"].value == 1 / 3
    # Reversed, only the middle one is right when clean.
    assert found.success["turned"]["other"].value == 1
    assert found.success["turned"]["other"].n == 1
    assert found.agreement[0, 0, 1] == 1


def quadratic(matrix, x):
    return 0.5 * ((x @ matrix) * x).sum(axis=1, keepdims=True)


def symmetric(seed, d):
    matrix = np.random.default_rng(seed).normal(size=(d, d))
    return (matrix + matrix.T).astype(np.float32)


def test_the_cosine_of_gradients_is_numpy_s():
    x, labels = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32), np.arange(11) % 2
    a, b = symmetric(1, 5), symmetric(2, 5)
    one, two = x.astype(float) @ a, x.astype(float) @ b
    expected = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    f, g = Partial(quadratic, a), Partial(quadratic, b)
    for batch in (256, 4):
        np.testing.assert_allclose(gradient_cosine(f, g, x, labels, batch_size=batch), expected, atol=1e-6)
    # A loss scales the gradient of one output, and its sign is the same for both functions.
    np.testing.assert_allclose(gradient_cosine(f, g, x, labels, loss="cross_entropy"), expected, atol=1e-5)
    np.testing.assert_allclose(gradient_cosine(f, f, x, labels), 1, atol=1e-6)
    np.testing.assert_allclose(gradient_cosine(f, Partial(quadratic, -a), x, labels), -1, atol=1e-6)


def test_the_cosine_of_several_outputs_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    w, v, x = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=(9, 4))
    labels = np.arange(9) % 3

    def direction(w):
        outputs = x @ w
        outputs[np.arange(9), labels] = -np.inf
        return w.T[outputs.argmax(axis=1)] - w.T[labels]

    one, two = direction(w), direction(v)
    expected = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    found = gradient_cosine(lambda x: x @ w, lambda x: x @ v, x, labels)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_independent_gradients_are_as_orthogonal_as_their_dimension_allows():
    d, m = 100, 400
    x = np.random.default_rng(0).normal(size=(m, d)).astype(np.float32)
    found = gradient_cosine(
        Partial(quadratic, symmetric(1, d)), Partial(quadratic, symmetric(2, d)), x, np.ones(m, int)
    )
    assert abs(found.mean()) < 4 / np.sqrt(m * d)
    np.testing.assert_allclose(found.std(), d**-0.5, rtol=0.15)


def test_the_cosine_with_a_zero_gradient_is_zero_and_tiny_gradients_have_one():
    x, labels = np.ones((2, 2), np.float32), np.ones(2, int)

    def f(x):
        return x.sum(axis=1, keepdims=True)

    np.testing.assert_array_equal(gradient_cosine(f, lambda x: 0 * f(x), x, labels), [0, 0])
    np.testing.assert_allclose(gradient_cosine(f, lambda x: 1e-30 * f(x), x, labels), [1, 1], rtol=1e-6)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (
                lambda: transfer([RIGHT_CLEAN], {"a": strict}, RIGHT_CLEAN, LABELS),
                "attacks must be a mapping",
            ),
            (lambda: transfer(ATTACKED, strict, RIGHT_CLEAN, LABELS), "networks must be a mapping"),
            (
                lambda: transfer(ATTACKED, {"a": 3}, RIGHT_CLEAN, LABELS),
                r"networks\['a'\] must be a function",
            ),
            (
                lambda: sanity_checks(healthy, RIGHT_CLEAN, LABELS, Threat("linf", 0.1), key=KEY, found=3),
                "found must be what autoattack returns",
            ),
            (
                lambda: pgd(lambda x: (x > 0.5).astype(int), RIGHT_CLEAN, LABELS, Threat("linf", 0.1)),
                "predict must return outputs of floating point, got int32",
            ),
            (
                lambda: pgd(healthy, RIGHT_CLEAN, LABELS, Threat("linf", 0.1), loss=["dlr"]),
                "loss must be one of",
            ),
            (lambda: fab(healthy, RIGHT_CLEAN, LABELS, bounds=None), "bounds must be two numbers"),
            (lambda: fab(healthy, RIGHT_CLEAN, LABELS, bounds=(1, 0)), "bounds must be two increasing"),
            (lambda: transfer({}, {"a": strict}, RIGHT_CLEAN, LABELS), "at least one attack .* got 0 and 1"),
            (lambda: transfer(ATTACKED, {}, RIGHT_CLEAN, LABELS), "at least one .* one network, got 2 and 0"),
            (
                lambda: transfer({"a": RIGHT_CLEAN[:3]}, {"b": strict}, RIGHT_CLEAN, LABELS),
                r"attacks\['a'\] must hold 4 inputs as x does, got 3",
            ),
            (
                lambda: transfer({"a": RIGHT_CLEAN[:, [0, 0]]}, {"b": strict}, RIGHT_CLEAN, LABELS),
                r"x and attacks\['a'\] must hold inputs of one shape, got \(1,\) and \(2,\)",
            ),
            (
                lambda: transfer({"a": RIGHT_CLEAN * np.nan}, {"b": strict}, RIGHT_CLEAN, LABELS),
                r"attacks\['a'\] has 4 NaN or infinite",
            ),
            (
                lambda: transfer(ATTACKED, {"b": strict}, RIGHT_CLEAN, LABELS, batch_size=0),
                "batch_size must be at least 1",
            ),
            (lambda: gradient_cosine(3, healthy, RIGHT_CLEAN, LABELS), "first must be a function"),
            (
                lambda: gradient_cosine(healthy, sum, RIGHT_CLEAN, LABELS),
                r"second must return outputs \(m, k\)",
            ),
            (
                lambda: gradient_cosine(healthy, healthy, RIGHT_CLEAN, LABELS, loss="hinge"),
                r"loss must be one of \['cross_entropy', 'dlr', 'margin', 'squared'\] or .*, got 'hinge'",
            ),
            (
                lambda: gradient_cosine(healthy, healthy, RIGHT_CLEAN, LABELS, batch_size=0),
                "batch_size must be at least 1",
            ),
            (
                lambda: sanity_checks(healthy, RIGHT_CLEAN, LABELS, Threat("linf", 0.1), key=KEY, steps=0),
                "steps must be at least 1, got 0",
            ),
        ]
    )
