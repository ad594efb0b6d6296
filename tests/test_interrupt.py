"""Ctrl-C: it waits for a safe point, is never lost, and ends long work without a crash."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from companion._core.interrupt import deferred, in_short_loops, safe_point
from companion.attacks import Threat, pgd, square
from companion.empirical import empirical_ntk


@pytest.fixture
def heeded():
    """Ctrl-C does what Python lets it do, whatever the parent has set."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("heeded")
def test_it_waits_for_the_safe_point():
    reached = []

    @deferred()
    def work():
        safe_point()
        ctrl_c()
        reached.append("work")
        safe_point()
        reached.append("more")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["work"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    safe_point()


X, KEY = np.full((4, 4, 4, 1), 0.5, np.float32), jax.random.key(0)
IN_PARTS = {
    "pgd": lambda f: pgd(f, X, np.ones(4, int), Threat("linf", 0.1), steps=1, batch_size=2),
    "square": lambda f: square(f, X, np.ones(4, int), Threat("linf", 0.1), key=KEY, queries=2, batch_size=2),
    "empirical_ntk": lambda f: empirical_ntk(lambda w, x: f(w * x), jnp.ones(()), X),
}


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("name", IN_PARTS)
def test_it_ends_attacks_and_empirical_kernels_between_parts(name):
    sent = []

    def f(x):
        if not sent:  # while JAX traces it
            sent.append(ctrl_c())
        return x.reshape(len(x), -1)[:, :1]

    with pytest.raises(KeyboardInterrupt):
        IN_PARTS[name](f)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    IN_PARTS[name](f)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("error", [None, ValueError])
def test_it_is_not_lost_without_a_safe_point_or_with_an_error(error):
    @deferred()
    def work():
        ctrl_c()
        if error:
            raise error

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert type(caught.value.__context__) is (error or type(None))


@pytest.mark.usefixtures("heeded")
def test_a_second_one_ends_at_once():
    reached = []

    @deferred()
    def work():
        ctrl_c()
        reached.append("first")
        ctrl_c()
        reached.append("second")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["first"]


@pytest.mark.usefixtures("heeded")
def test_an_inner_block_leaves_it_to_the_outer_one():
    reached = []

    @deferred()
    def work():
        deferred()(ctrl_c)()
        reached.append("after the inner one")
        safe_point()
        reached.append("after the safe point")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["after the inner one"]


@pytest.mark.usefixtures("heeded")
def test_a_handler_of_the_user_s_stays():
    heard = []
    own = lambda *_: heard.append(1)  # noqa: E731
    signal.signal(signal.SIGINT, own)
    with deferred():
        assert signal.getsignal(signal.SIGINT) is own
        ctrl_c()
        safe_point()
    assert heard == [1]


@pytest.mark.usefixtures("heeded")
def test_other_threads_leave_it_alone():
    found = []

    def work():
        with deferred():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_short_loops_make_every_step_once():
    parts = []
    size = in_short_loops(lambda first, stop: parts.append(range(first, stop)), 3, 100)
    assert [step for part in parts for step in part] == list(range(3, 100))
    assert [len(part) for part in parts[:4]] == [1, 2, 4, 8]
    assert in_short_loops(lambda first, stop: parts.append(range(first, stop)), 0, size, size) == 2 * size
    assert len(parts[-1]) == size


def test_short_loops_end_where_they_are_told():
    parts = []
    in_short_loops(lambda first, stop: parts.append(stop) or stop >= 3, 0, 100)
    assert parts == [1, 3]


def test_slow_loops_are_cut(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    parts = []

    def advance(first, stop):
        clock[0] += 0.1 * (stop - first)
        parts.append(stop - first)

    in_short_loops(advance, 0, 100, size=32)
    assert parts[:4] == [32, 16, 8, 8]


# The network sends the signal once it is traced, so that it comes while XLA compiles, or soon after.
INTERRUPTED = """
import os, signal, subprocess, sys
import jax, jax.numpy as jnp, numpy as np, optax
from companion import training
from companion.attacks import Threat, training_attack
from companion.networks import Model

signal.signal(signal.SIGINT, signal.default_int_handler)
work, delay, folder = sys.argv[1:]
x = np.random.default_rng(0).random((40, 6), np.float32)

def net(w, x):
    global delay
    if delay:
        subprocess.Popen(["sh", "-c", f"sleep {delay}; kill -INT {os.getpid()}"])
        delay = ""
    for _ in range(8):
        x = jnp.tanh(x @ w)
    return x

w = jnp.eye(6)
if work == "train":
    model = Model("net", lambda key, x: (w, ()), lambda w, state, x, training: (net(w, x), state))
    training.train(model, x, np.arange(40) % 6, epochs=10**9, optimizer=optax.sgd(0.0), key=jax.random.key(0),
        batch_size=10, folder=folder, record=[0], attack=training_attack(Threat("linf", 0.1), steps=3))
elif work == "residual":
    training.train_to_residual(net, w, x, x, learning_rate=1e-9, residuals=[0.001], max_steps=10**9)
elif work == "descent":
    training.gradient_descent(net, w, x, x, x, learning_rate=1e-9, record=[0, 10**9])
"""


def interrupted(work, delay, folder):
    command = [sys.executable, "-c", INTERRUPTED, work, str(delay), folder]
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert "KeyboardInterrupt" in run.stderr, run.stderr[-2000:]
    assert run.returncode in (1, -signal.SIGINT), (run.returncode, run.stderr[-2000:])
    assert not [*folder.glob(".*.part")]


def test_an_interrupted_training_does_not_crash(tmp_path):
    interrupted("train", 0.02, tmp_path)


EXPERIMENT = """
import atexit, os, signal, time
from companion.experiments import __main__ as command

def campaign(*_, **options):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(print, "Python's own end")
command.campaign = campaign
command.main(["scale", "--profile", "quick"])
"""


def test_an_interrupted_experiment_ends_by_the_signal():
    run = subprocess.run(
        [sys.executable, "-c", EXPERIMENT], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == -signal.SIGINT
    assert run.stderr.strip().startswith("KeyboardInterrupt: what is recorded stays")
    assert run.stdout == ""


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("work", ["train", "residual", "descent"])
def test_long_work_interrupted_at_any_moment_does_not_crash(work, seed, tmp_path):
    chance = random.Random(seed)
    for _ in range(3):
        interrupted(work, round(chance.uniform(0, 2.5), 3), tmp_path)
