"""`gram(..., executor=...)`: the bytes of one process, whoever computes the tiles."""

import copy
import pickle
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from companion.architectures import conv, fc, myrtle
from companion.kernels import _elsewhere, gram

X = np.random.default_rng(0).random((11, 6), np.float32)
Z = np.random.default_rng(1).random((5, 6), np.float32)


def both(executor=None):
    return {
        "self": gram(fc(1), X, tile=4, executor=executor),
        "cross": gram(fc(1), Z, X, tile=4, executor=executor),
    }


@pytest.fixture(scope="module")
def alone():
    return both()


def test_threads_make_the_same_bytes(alone):
    with ThreadPoolExecutor(3) as executor:
        found = both(executor)
    for name, matrix in alone.items():
        np.testing.assert_array_equal(found[name], matrix)


class Failing(ThreadPoolExecutor):
    """Loses every tile after the first few."""

    left = 3

    def submit(self, *args):
        self.left -= 1
        if self.left >= 0:
            return super().submit(*args)
        lost = Future()
        lost.set_exception(ConnectionError("the worker is gone"))
        return lost


def test_what_was_made_before_a_worker_was_lost_is_kept(alone, tmp_path, monkeypatch):
    with Failing(1) as executor, pytest.raises(ConnectionError, match="the worker is gone"):
        gram(fc(1), X, tile=4, out=tmp_path, executor=executor)
    done = int(np.load(tmp_path / "done.npy").sum())
    assert 0 < done <= 3
    made, real = [], _elsewhere._tile
    monkeypatch.setattr(_elsewhere, "_tile", lambda *args: made.append(threading.get_ident()) or real(*args))
    with ThreadPoolExecutor(2) as executor:
        found = gram(fc(1), X, tile=4, out=tmp_path, executor=executor)
    np.testing.assert_array_equal(found, alone["self"])
    assert len(made) == 6 - done


def test_a_kernel_of_ones_own_is_compiled_once_a_process():
    traced = []

    def kernel(x1, x2, get):
        traced.append(get)
        return x1 @ x2.T

    with ThreadPoolExecutor(1) as executor:
        found = gram(kernel, X, tile=4, executor=executor)
    np.testing.assert_allclose(found, X @ X.T, rtol=1e-6)
    assert len(traced) <= 4  # two to see that entries mix no inputs, one for the plan, one for all tiles


def test_another_machine_is_refused():
    here = _elsewhere._machine()
    with pytest.raises(ValueError, match=r"workers like this process.*: jax 0\.1 there, \S+ here$"):
        _elsewhere._same_machine(here | {"jax": "0.1"}, here)


def test_an_architecture_is_pickled_as_what_it_was_made_of():
    for one in (fc(2, width=3), conv(1, activation="erf"), conv(1, pool=True), myrtle(5)):
        assert pickle.loads(pickle.dumps(one)) is one
        assert copy.deepcopy(one) is one
