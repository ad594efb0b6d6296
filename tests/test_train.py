"""`training.train`: against a plain loop written out, repeated, killed, continued, and attacked."""

import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from companion import networks
from companion.attacks import Threat, free_training, margin, pgd, training_attack
from companion.catastrophic import noisy_fgsm
from companion.dynamics import KernelPath
from companion.empirical import empirical_ntk
from companion.networks import evaluation, linearize_at, linearized
from companion.storage import _checkpoint
from companion.training import Probe, Switch, _arguments, linear_features, linear_solution, train
from companion.training._step import Recipe

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(60, 6)).astype(np.float32)
Y = (X.sum(axis=1) > 3).astype(int) + (X[:, 0] > 0.7)
MODEL = networks.mlp(3, depth=1, width=16)
SGD = optax.sgd(0.1, momentum=0.9)
LINF = Threat("linf", 0.1)
OPTIONS = {"epochs": 3, "optimizer": SGD, "key": jax.random.key(5), "batch_size": 20}


def same(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), one, other))


def near(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


def minibatches(key, epochs, size):
    """All minibatches and the key of each step: one permutation an epoch."""
    key = jax.random.fold_in(key, 2)
    for epoch in range(epochs):
        order_key, step_key = jax.random.split(jax.random.fold_in(key, epoch))
        order = np.asarray(jax.random.permutation(order_key, len(X)))
        for i in range(len(X) // size):
            yield epoch + i * size / len(X), order[i * size : (i + 1) * size], jax.random.fold_in(step_key, i)


def cross_entropy(params, x, labels):
    logits = MODEL.apply(params, {}, x, True)[0]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(x)), labels])


def by_hand(attacked, epochs=3):
    """Momentum by its definition, minibatch by minibatch."""
    params, _ = MODEL.init(jax.random.fold_in(OPTIONS["key"], 0), X[:1])
    velocity = jax.tree.map(jnp.zeros_like, params)
    for epoch, rows, key in minibatches(OPTIONS["key"], epochs, 20):
        x = attacked(params, X[rows], Y[rows], key, epoch)
        gradient = jax.grad(cross_entropy)(params, x, Y[rows])
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
    return params


def test_standard_training_is_the_plain_loop():
    run = train(MODEL, X, Y, **OPTIONS)
    near(run.variables[0], by_hand(lambda params, x, *_: x), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(run.epochs, [0, 1, 2, 3])


def test_fgsm_training_is_the_plain_loop():
    def attacked(params, x, labels, key, epoch):
        step = 0.1 * jnp.sign(jax.grad(cross_entropy, 1)(params, x, labels))
        return jnp.clip(x + step, 0, 1)

    run = train(MODEL, X, Y, attack=training_attack(LINF, steps=1, random_start=False), **OPTIONS)
    near(run.variables[0], by_hand(attacked), rtol=1e-3, atol=1e-5)


def test_pgd_training_with_a_ramp_is_the_plain_loop():
    def attacked(params, x, labels, key, epoch):
        share, now = min(1, epoch / 2), jnp.asarray(x)
        for _ in range(3):
            now = now + share * 0.05 * jnp.sign(jax.grad(cross_entropy, 1)(params, now, labels))
            now = jnp.clip(jnp.clip(now, x - share * 0.1, x + share * 0.1), 0, 1)
        return now

    attack = training_attack(LINF, steps=3, step_size=0.05, random_start=False, ramp=2)
    near(train(MODEL, X, Y, attack=attack, **OPTIONS).variables[0], by_hand(attacked), rtol=1e-3, atol=1e-5)


def test_free_training_is_the_plain_loop():
    params, _ = MODEL.init(jax.random.fold_in(OPTIONS["key"], 0), X[:1])
    velocity, delta = jax.tree.map(jnp.zeros_like, params), np.zeros((20, 6), np.float32)
    for _, rows, _ in minibatches(OPTIONS["key"], 3, 20):
        for _ in range(4):
            x = np.clip(X[rows] + np.clip(delta, -0.1, 0.1), 0, 1)
            gradient, ascent = jax.grad(cross_entropy, (0, 1))(params, x, Y[rows])
            velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
            params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
            delta = np.clip(np.clip(x + 0.1 * np.sign(ascent), X[rows] - 0.1, X[rows] + 0.1), 0, 1) - X[rows]
    run = train(MODEL, X, Y, attack=free_training(LINF, replays=4), **OPTIONS)
    near(run.variables[0], params, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("random_start", [False, True])
def test_attacks_stay_in_ball_and_box_and_raise_the_loss(norm, random_start):
    params, _ = MODEL.init(jax.random.key(0), X[:1])
    predict = Partial(evaluation(MODEL), (params, {}))
    attack = training_attack(Threat(norm, 0.1), steps=5, random_start=random_start)
    attacked = attack(predict, jnp.asarray(X), jnp.asarray(Y), jax.random.key(1), jnp.inf)
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    delta = np.asarray(attacked) - X
    length = np.abs(delta).max(axis=1) if norm == "linf" else np.linalg.norm(delta, axis=1)
    assert length.max() == pytest.approx(0.1, rel=1e-5)
    assert cross_entropy(params, attacked, Y) > cross_entropy(params, X, Y) + 0.01


def test_no_steps_from_x_change_nothing():
    attack = training_attack(LINF, steps=0, random_start=False)
    np.testing.assert_array_equal(attack(lambda x: x, X, Y, jax.random.key(0), 1.0), X)


def test_default_step_sizes():
    choices = ((10, True), (1, True), (1, False))
    sizes = [training_attack(LINF, steps=s, random_start=r).args[1] for s, r in choices]
    assert sizes == pytest.approx([0.025, 0.125, 0.1])


def test_strengths_share_compiled_code():
    weak, strong = training_attack(LINF, steps=1), training_attack(Threat("linf", 0.3), steps=9, ramp=2)
    assert jax.tree.structure(weak) == jax.tree.structure(strong)


@pytest.mark.parametrize("attack", [None, training_attack(LINF, steps=2), free_training(LINF, replays=2)])
def test_a_run_repeats_to_the_last_bit_and_the_key_matters(attack):
    one, two = (train(MODEL, X, Y, attack=attack, **OPTIONS) for _ in range(2))
    assert same(one.variables, two.variables)
    other = train(MODEL, X, Y, attack=attack, **OPTIONS | {"key": jax.random.key(6)})
    assert not same(one.variables, other.variables)


def test_records_do_not_change_the_run():
    plain = train(MODEL, X, Y, **OPTIONS)
    watched = train(
        MODEL, X, Y, record=(0, 0.3, 1, 1.7), x_test=X, labels_test=Y, test_attack=training_attack(LINF,
        steps=3), probe=Probe(X[:4]), keep=True, **OPTIONS,
    )  # fmt: skip
    assert same(plain.variables, watched.variables)
    np.testing.assert_allclose(watched.epochs, [0, 1 / 3, 1, 5 / 3])


def test_records_are_what_they_say():
    run = train(
        MODEL, X, Y, record=(0, 1, 3), x_test=X, labels_test=Y, test_attack=training_attack(LINF, steps=3),
        probe=Probe(X[:4]), keep=(0, 3), **OPTIONS,
    )  # fmt: skip
    assert list(run.snapshots) == [0, 3]
    assert same(run.snapshots[3], run.variables)
    outputs = MODEL.apply(*run.variables, X, False)[0]
    np.testing.assert_allclose(run.predict(MODEL)(X), outputs, rtol=1e-6)
    first = MODEL.apply(*run.snapshots[0], X, False)[0]
    np.testing.assert_allclose(run.predict(MODEL, epoch=0)(X), first, rtol=1e-6)
    with pytest.raises(ValueError, match=r"epoch must be one of the snapshots \[0.*3.*\], got 2"):
        run.predict(MODEL, epoch=2)
    assert run.clean[-1] == np.mean(np.asarray(outputs.argmax(axis=1)) == Y)
    assert run.robust[-1] <= run.clean[-1]
    for epoch, kernel in ((0, run.kernels[0]), (3, run.kernels[-1])):
        full = empirical_ntk(evaluation(MODEL), run.snapshots[epoch], X[:4], reduce="full")
        np.testing.assert_allclose(kernel, full, rtol=1e-5, atol=1e-6 * np.abs(full).max())


def test_the_recorded_loss_is_the_mean_over_the_steps_since_the_last_record():
    frozen = train(MODEL, X, Y, record=(0, 1 / 3, 1), **OPTIONS | {"optimizer": optax.sgd(0.0), "epochs": 1})
    params = frozen.variables[0]
    losses = [cross_entropy(params, X[rows], Y[rows]) for _, rows, _ in minibatches(OPTIONS["key"], 1, 20)]
    assert np.isnan(frozen.loss[0])
    np.testing.assert_allclose(frozen.loss[1:], [losses[0], np.mean(losses[1:])], rtol=1e-5)


def test_robust_accuracy_of_a_large_attack_is_zero_and_of_none_is_clean():
    for eps, wanted in ((0.0, lambda run: run.clean), (1.0, lambda run: np.zeros(1))):
        attack = training_attack(Threat("linf", eps), steps=10, random_start=False)
        run = train(MODEL, X, Y, record=[3], x_test=X, labels_test=Y, test_attack=attack, **OPTIONS)
        np.testing.assert_array_equal(run.robust, wanted(run))


def test_adversarial_training_is_more_robust_where_that_can_be():
    # One feature is fragile and perfect, the other robust and right nine times in ten.
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    s = 2 * labels - 1
    robust = np.where(rng.uniform(size=400) < 0.9, s, -s)
    x = np.stack([0.5 + 0.05 * s, 0.5 + 0.4 * robust], axis=1).astype(np.float32)
    attack = training_attack(Threat("linf", 0.1), steps=5)
    model, adam = networks.mlp(2, depth=1, width=32), optax.adam(0.02)
    options = {"epochs": 100, "optimizer": adam, "key": jax.random.key(0), "batch_size": 100, "record": [100]}
    options |= {"x_test": x, "labels_test": labels, "test_attack": attack}
    standard, adversarial = (train(model, x, labels, attack=a, **options) for a in (None, attack))
    assert standard.clean[-1] > 0.98
    assert standard.robust[-1] < 0.5
    assert adversarial.robust[-1] == pytest.approx(np.mean(robust == s), abs=0.02)


def test_the_adversarial_probe_sees_attacked_inputs():
    attack = training_attack(LINF, steps=1, random_start=False)
    options = OPTIONS | {"epochs": 0, "probe": Probe(X[:5], "trace", attack, Y[:5])}
    run = train(MODEL, X, Y, record=[0], keep=True, **options)
    params, _ = run.variables
    step = 0.1 * np.sign(jax.grad(cross_entropy, 1)(params, X[:5], Y[:5]))
    moved = np.clip(X[:5] + step, 0, 1)
    wanted = empirical_ntk(evaluation(MODEL), run.variables, moved, reduce="trace")
    np.testing.assert_allclose(run.kernels[0], wanted, rtol=1e-4, atol=1e-5)
    assert not np.allclose(wanted, empirical_ntk(evaluation(MODEL), run.variables, X[:5], reduce="trace"))


class Normalized(nn.Module):
    """A network whose outputs in training mode depend on the batch."""

    norm: str = "batch"

    @nn.compact
    def __call__(self, x, training=False):
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not training, momentum=0.9)(x))


def test_running_statistics_are_carried_and_the_attacker_s_mode_matters():
    model = networks.from_flax(Normalized())
    attack = training_attack(LINF, steps=1, random_start=False)
    one, two = (train(model, X, Y, attack=attack, attack_training_mode=m, **OPTIONS) for m in (False, True))
    assert not same(one.variables[0], two.variables[0])
    plain = train(model, X, Y, **OPTIONS)
    mean = np.zeros(6)
    for _, rows, _ in minibatches(OPTIONS["key"], 3, 20):
        mean = 0.9 * mean + 0.1 * X[rows].mean(axis=0)
    np.testing.assert_allclose(plain.variables[1]["batch_stats"]["BatchNorm_0"]["mean"], mean, rtol=1e-4)


def arguments(folder):
    return OPTIONS | {
        "record": (0, 0.5, 1, 2, 3), "x_test": X, "labels_test": Y, "probe": Probe(X[:4]), "keep": True,
        "attack": training_attack(LINF, steps=2), "folder": folder,
    }  # fmt: skip


def test_a_run_goes_on_to_the_same_bits(tmp_path):
    whole = train(MODEL, X, Y, **arguments(tmp_path / "whole"))
    first = arguments(tmp_path / "parts") | {"epochs": 1, "record": (0, 0.5, 1)}
    train(MODEL, X, Y, **first)
    parts = train(MODEL, X, Y, **arguments(tmp_path / "parts"))
    assert same(whole.variables, parts.variables)
    for name in ("epochs", "loss", "clean", "robust"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert same([*whole.kernels], [*parts.kernels])
    assert same(whole.snapshots, parts.snapshots)
    again = train(MODEL, X, Y, **arguments(tmp_path / "parts"))
    assert same(whole.variables, again.variables)
    assert isinstance(again.kernels, KernelPath)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run of one epoch in a folder, not to be changed."""
    folder = tmp_path_factory.mktemp("stored")
    train(MODEL, X, Y, **arguments(folder) | {"epochs": 1, "record": (0, 0.5, 1)})
    return folder


def shifted(shift):
    """An attack that differs from others by what it closes over alone."""
    return lambda predict, x, labels, key, epoch: x + shift


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"key": jax.random.key(0)}, "key"),
        ({"batch_size": 30}, "batch size"),
        ({"attack": training_attack(LINF, steps=3)}, "attack"),
        ({"attack": None}, "attack"),
        ({"attack": training_attack(Threat("l2", 0.1), steps=2)}, "attack"),
        ({"attack": training_attack(LINF, steps=2, loss="margin", step_size=0.125)}, "attack"),
        ({"attack": training_attack(LINF, steps=2, random_start=False)}, "attack"),
        ({"epochs": 0, "record": ()}, "epochs must be at least 1"),
        ({"loss": "squared"}, "loss"),
        ({"loss": lambda outputs, labels: outputs[:, 0]}, "loss"),
        ({"penalty": lambda *_: 0.0}, "penalty"),
        ({"attack": shifted(0.1)}, "attack"),
        ({"attack": Switch(None, training_attack(LINF, steps=2), lambda run: False)}, "attack"),
        ({"test_attack": training_attack(LINF)}, "test attack"),
        ({"x_test": X[:5], "labels_test": Y[:5]}, "test data"),
        ({"clean_too": True}, "clean too"),
        ({"optimizer": optax.sgd(0.2, momentum=0.9)}, "optimizer"),
        ({"optimizer": optax.sgd(0.1, momentum=0.5)}, "optimizer"),
        ({"optimizer": optax.sgd(0.1)}, "optimizer"),
        ({"optimizer": optax.sgd(lambda step: 0.1, momentum=0.9)}, "optimizer"),
        ({"optimizer": optax.chain(optax.clip_by_global_norm(9.0), SGD)}, "optimizer"),
        ({"probe": Probe(X[:5])}, "probe"),
        ({"probe": Probe(X[:4], "full", training_attack(LINF), Y[:4])}, "probe"),
        ({"probe": None}, "probe"),
        ({"record": (0, 1, 3)}, "records"),
        ({"keep": False}, "keep"),
        ({"keep": (0, 1)}, "keep"),
        ({"start": MODEL.init(jax.random.key(9), X[:1])}, "start"),
    ],
    ids=itertools.count(),
)
def test_a_folder_of_another_run_is_refused(stored, change, named):
    with pytest.raises(ValueError, match=f"holds a run with other {named}[:,]|^{named}"):
        train(MODEL, X, Y, **arguments(stored) | change)


def test_a_folder_of_another_algorithm_is_refused(stored, monkeypatch):
    monkeypatch.setattr(_checkpoint, "ALGORITHM", 3)
    with pytest.raises(ValueError, match="holds a run with other algorithm:"):
        train(MODEL, X, Y, **arguments(stored))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: cut(folder / "checkpoint.npz"), "checkpoint.npz is damaged"),
        (
            lambda folder: np.savez(folder / "checkpoint.npz", a=1),
            "checkpoint.npz .* is no checkpoint of train",
        ),
        (lambda folder: (folder / "checkpoint.npz").unlink(), r"holds .*\.np. but no checkpoint.npz"),
        (lambda folder: cut(folder / "snapshots" / "1.0.npz"), "1.0.npz is damaged"),
        (lambda folder: np.savez(folder / "snapshots" / "1.0.npz", a=1), "1.0.npz is damaged .* a is"),
        (lambda folder: (folder / "snapshots" / "1.0.npz").unlink(), "lacks the network of epoch 1"),
        (lambda folder: (folder / "kernels" / "1.0.npy").unlink(), "lacks the kernel of epoch 1"),
        (lambda folder: np.save(folder / "kernels" / "a.npy", X), "a.npy is damaged or of another kind"),
    ],
    ids=itertools.count(),
)
def test_a_damaged_folder_is_refused(stored, tmp_path, harm, message):
    folder = shutil.copytree(stored, tmp_path / "run")
    harm(folder)
    with pytest.raises(ValueError, match=message):
        train(MODEL, X, Y, **arguments(folder))


def test_what_cannot_be_compared_is_said():
    penalty, params = functools.partial(max, threading.Lock()), MODEL.init(jax.random.key(0), X[:1])[0]
    recipe = Recipe(MODEL, SGD, margin, 20, 0, attack_training_mode=False, clean_too=False)
    with pytest.warns(UserWarning, match="_thread.lock of the penalty cannot be compared"):
        _arguments.identity(recipe, params, penalty=penalty)


@pytest.mark.matrix
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(tmp_path, monkeypatch):
    script = textwrap.dedent(
        """
        import sys, jax, numpy as np, optax
        from companion import networks
        from companion.attacks import Threat, training_attack
        from companion.training import Probe, train
        x = np.random.default_rng(0).uniform(size=(200, 8, 8, 1)).astype(np.float32)
        y = (x.mean(axis=(1, 2, 3)) > 0.5).astype(int)
        print("ready", flush=True)
        run = train(networks.small_cnn(2, width=8), x, y, epochs=8, optimizer=optax.sgd(0.05, momentum=0.9),
            key=jax.random.key(0), batch_size=20, attack=training_attack(Threat("linf", 0.1), steps=3),
            probe=Probe(x[:10]), keep=True, folder=sys.argv[1])
        leaves = jax.tree.leaves((run.variables, run.snapshots)) + [np.stack([*run.kernels]), run.loss]
        np.savez(sys.argv[2], *leaves)
        """
    )

    def start(folder, out):
        command = [sys.executable, "-c", script, str(tmp_path / folder), str(tmp_path / out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.getcwd()})

    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "whole"), str(tmp_path / "whole.npz")])
    exec(script, {})  # the undisturbed run, here

    seen, kills, rng = set(), 0, np.random.default_rng(2)
    while kills < 3:
        process = start("killed", "killed.npz")
        process.stdout.readline()
        process.stdout.close()
        marked = tmp_path / "killed" / "checkpoint.npz"
        before = marked.stat().st_mtime_ns if marked.exists() else None
        while process.poll() is None and (marked.stat().st_mtime_ns if marked.exists() else None) == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        seen.add(marked.stat().st_mtime_ns)
    assert kills, "the run ended before it could be killed once: make it longer"
    assert len(seen) == kills  # every killed run had got further
    with start("killed", "killed.npz") as process:
        assert process.wait() == 0
    with np.load(tmp_path / "whole.npz") as one, np.load(tmp_path / "killed.npz") as two:
        assert all((np.nan_to_num(one[name]) == np.nan_to_num(two[name])).all() for name in one.files)


def test_a_diverging_run_says_so():
    with pytest.raises(FloatingPointError, match="diverged in epoch 0: take a smaller learning rate"):
        train(MODEL, X, Y, **OPTIONS | {"optimizer": optax.sgd(1e30), "loss": "squared"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 61}, "batch_size must be at most 60"),
        ({"epochs": -1}, "epochs must be at least 0"),
        ({"record": (0, 4)}, "record must lie within 3 epochs, got 4"),
        ({"record": (0, 1), "keep": (2,)}, "keep must name epochs of record"),
        ({"test_attack": training_attack(LINF)}, "test_attack needs x_test"),
        ({"loss": "hinge"}, "loss must be one of"),
    ],
)
def test_wrong_arguments(change, message, as_users_run):
    with pytest.raises(ValueError, match=message):
        train(MODEL, X, Y, **OPTIONS | change)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("class",), "reduce must be 'full' or 'trace', got 'class'"),
        (("full", training_attack(LINF)), "a probe with an attack needs labels"),
    ],
    ids=["reduce", "labels"],
)
def test_a_wrong_probe_is_refused_when_it_is_made(more, message, as_users_run):
    with pytest.raises(ValueError, match=message):
        Probe(X[:3], *more)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probe": X[:3]}, r"probe must be a training.Probe, Probe\(x\), got ndarray"),
        ({"attack": pgd}, r"such as attacks.training_attack\(threat\) makes"),
        ({"attack": LINF}, r"such as attacks.training_attack\(threat\) makes"),
    ],
    ids=["probe", "an attack of its own loop", "a threat"],
)
def test_what_is_near_is_named(change, message, as_users_run):
    with pytest.raises(TypeError, match=message):
        train(MODEL, X, Y, **OPTIONS | change)


@pytest.mark.parametrize(
    "attack",
    [
        training_attack(LINF),
        free_training(LINF),
        noisy_fgsm(LINF),
        Switch(None, training_attack(LINF), lambda run: True),
    ],
    ids=["PGD", "free", "N-FGSM", "switch"],
)
def test_an_attack_that_would_clip_normalized_images_is_refused(attack):
    normalized = 4 * X - 2
    with pytest.raises(ValueError, match=r"^x must lie in the bounds .*normalized images"):
        train(MODEL, normalized, Y, **OPTIONS | {"attack": attack})


def test_so_is_one_of_the_records():
    attack, normalized = training_attack(LINF), 4 * X - 2
    test = {"x_test": normalized, "labels_test": Y, "test_attack": attack}
    with pytest.raises(ValueError, match=r"^x_test must lie in the bounds"):
        train(MODEL, X, Y, **OPTIONS | test)
    with pytest.raises(ValueError, match=r"^probe's x must lie in the bounds"):
        train(MODEL, X, Y, **OPTIONS | {"probe": Probe(normalized[:3], "full", attack, Y[:3])})
    wide = training_attack(Threat("linf", 0.1, bounds=(-2.0, 2.0)), steps=1)
    assert np.isfinite(train(MODEL, normalized, Y, **OPTIONS | {"attack": wide}).loss[-1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [(Y + 1, r"labels must lie in \[0, 3\)"), (Y[:5], r"labels must have shape \(60,\)")],
)
def test_wrong_labels(labels, message, as_users_run):
    with pytest.raises(ValueError, match=message):
        train(MODEL, X, labels, **OPTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": nn.Dense(3)}, "model must be a networks.Model, got Dense"),
        ({"optimizer": 0.1}, r"optimizer must come from Optax, such as optax.sgd\(0.1\), got 0.1"),
    ],
)
def test_what_is_no_model_or_optimizer_is_told_how_to_become_one(change, message, as_users_run):
    options = {"model": MODEL} | OPTIONS | change
    with pytest.raises(TypeError, match=message):
        train(options.pop("model"), X, Y, **options)


def test_a_linearized_run_does_not_go_on_as_a_centered_one(tmp_path):
    options = OPTIONS | {"start": linearize_at(MODEL.init(jax.random.key(0), X[:1])), "folder": tmp_path}
    train(linearized(MODEL), X, Y, **options)
    with pytest.raises(ValueError, match="holds a run with other model"):
        train(linearized(MODEL, center=True), X, Y, **options)


def doubled():
    variables = jax.tree.map(lambda a: a.astype(float), MODEL.init(jax.random.key(0), X[:1]))
    return variables, X.astype(float), RNG.normal(size=(60, 3))


def test_the_linear_solution_is_kernel_regression(x64):
    variables, x, targets = doubled()
    solved = linear_solution(MODEL, variables, x[:20], targets[:20], ridge=0.3)
    rows = jax.jacobian(lambda p: MODEL.apply(p, {}, x, False)[0])(variables[0])
    rows = np.concatenate([np.asarray(leaf).reshape(180, -1) for leaf in jax.tree.leaves(rows)], axis=-1)
    kernel = rows @ rows.T
    inner = kernel[:60, :60] + 0.3 * np.eye(60)
    wanted = kernel[60:, :60] @ np.linalg.solve(inner, targets[:20].ravel())
    found = linearized(MODEL, center=True).apply(*solved, x[20:], False)[0]
    np.testing.assert_allclose(found.ravel(), wanted, rtol=1e-7, atol=1e-9)
    known = linear_solution(MODEL, variables, x[:20], targets[:20], ridge=0.3, k_train_train=kernel[:60, :60])
    np.testing.assert_allclose(
        linearized(MODEL, center=True).apply(*known, x[20:], False)[0], found, rtol=1e-7, atol=1e-9
    )


def test_training_the_linearized_network_ends_at_the_solution(x64):
    variables, x, targets = doubled()
    model = linearized(MODEL, center=True)
    solved = linear_solution(MODEL, variables, x[:3], targets[:3], ridge=0)

    def squared(outputs, labels):
        # Each of three inputs is a class of its own, so a label names its targets.
        return 0.5 * ((outputs - jnp.asarray(targets)[labels]) ** 2).sum(axis=1)

    run = train(
        model, x[:3], np.arange(3), start=linearize_at(variables), epochs=4000, record=[],
        loss=squared, optimizer=optax.sgd(0.1, momentum=0.9), key=jax.random.key(0), batch_size=3,
    )  # fmt: skip
    wanted, found = (model.apply(*v, x, False)[0] for v in (solved, run.variables))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_features_add_up_to_the_solution(x64):
    variables, x, targets = doubled()
    values, features = linear_features(MODEL, variables, x[:5], targets[:5], top=15)
    solved = linear_solution(MODEL, variables, x[:5], targets[:5], ridge=0)
    model = linearized(MODEL, center=True)
    parts = [np.asarray(model.apply(*feature, x, False)[0]) for feature in features]
    np.testing.assert_allclose(sum(parts), model.apply(*solved, x, False)[0], rtol=1e-6, atol=1e-8)
    # One feature on its own training inputs is the projection of the targets on its eigenvector.
    kernel = empirical_ntk(evaluation(MODEL), variables, x[:5], reduce="full")
    vectors = np.linalg.eigh(kernel)[1][:, ::-1]
    np.testing.assert_allclose(values, np.linalg.eigvalsh(kernel)[::-1], rtol=1e-8)
    projected = vectors[:, 2] * (vectors[:, 2] @ targets[:5].ravel())
    np.testing.assert_allclose(parts[2][:5].ravel(), projected, rtol=1e-6, atol=1e-9)


def test_wrong_targets_and_singular_kernels():
    variables = MODEL.init(jax.random.key(0), X[:1])
    with pytest.raises(ValueError, match=r"network's output shape \(4, 3\), got \(4, 1\)"):
        linear_solution(MODEL, variables, X[:4], np.ones((4, 1), np.float32))
    with pytest.raises(ValueError, match=r"k_train_train .* not positive definite .* add a ridge"):
        linear_solution(MODEL, variables, X[[0, 0, 0]], np.ones((3, 3), np.float32), ridge=0)
    with pytest.raises(ValueError, match=r"k_train_train must have shape \(9, 9\), .* got \(12, 12\)"):
        linear_solution(
            MODEL, variables, X[:3], np.ones((3, 3), np.float32), k_train_train=np.eye(12, dtype=np.float32)
        )
    with pytest.raises(ValueError, match="top must be at most 12, got 13"):
        linear_features(MODEL, variables, X[:4], np.ones((4, 3), np.float32), top=13)
