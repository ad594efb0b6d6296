"""Tiled Gram matrices: equal to one call of the library, whatever the tiles; exactly symmetric."""

import functools
import json
import subprocess
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused

from companion.architectures import conv, fc
from companion.kernels import Plan, _plan, _tiles, gram, plan
from companion.neural_tangents import stax

rng = np.random.default_rng(0)
X1 = rng.uniform(size=(13, 4, 4, 1)).astype(np.float32)
X2 = rng.uniform(size=(7, 4, 4, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("architecture", "kind", "tile"),
    [
        *((fc(2), "ntk", tile) for tile in (1, 4, 5, 13, 100)),
        (fc(2), "nngp", 5),
        (conv(2), "ntk", 5),
        (conv(2), "nngp", 4),
    ],
)
def test_tiles_do_not_change_the_kernel(architecture, kind, tile):
    whole = architecture.kernel(X1, X2, kind)
    np.testing.assert_allclose(gram(architecture, X1, X2, kind=kind, tile=tile), whole, rtol=2e-6)


@pytest.mark.parametrize("tile", [3, 13])
def test_one_set_gives_an_exactly_symmetric_matrix(tile):
    kernel = gram(fc(3), X1, tile=tile)
    np.testing.assert_array_equal(kernel, kernel.T)
    np.testing.assert_allclose(kernel, gram(fc(3), X1, X1.copy(), tile=tile), rtol=1e-3)
    off = ~np.eye(len(X1), dtype=bool)
    np.testing.assert_allclose(kernel[off], gram(fc(3), X1, X1.copy())[off], rtol=2e-6)


@pytest.mark.usefixtures("x64")
def test_any_neural_tangents_kernel_function_works():
    kernel_fn = stax.serial(stax.Flatten(), stax.Dense(1), stax.Erf(), stax.Dense(1))[2]
    x = X1.astype(np.float64)
    np.testing.assert_allclose(gram(kernel_fn, x, tile=4), kernel_fn(x, None, "ntk"), rtol=1e-12)
    assert gram(kernel_fn, x).dtype == np.float64


@pytest.mark.usefixtures("x64")
def test_the_matrix_is_positive_semi_definite_in_float64():
    eigenvalues = np.linalg.eigvalsh(gram(fc(2), X1.astype(np.float64)))
    assert eigenvalues[0] > 0


def test_float64_inputs_are_computed_in_float64_whatever_jax_is_set_to():
    kernel = gram(fc(2), X1.astype(float))
    assert kernel.dtype == np.float64
    assert np.abs(kernel - gram(fc(2), X1)).max() > 0
    # Σ(x, x) = Σ_{l=0..depth} of the same variance has a closed form on the diagonal: Θ = 3 q for two layers.
    q = 2 * (X1.astype(float).reshape(13, -1) ** 2).mean(1) + 0.01
    q1 = q + 0.01
    q2 = q1 + 0.01
    np.testing.assert_allclose(np.diag(kernel), q2 + q1 + q, rtol=1e-7)


@pytest.mark.usefixtures("x64")
def test_float32_agrees_with_float64():
    single, double = gram(fc(3), X1, X2), gram(fc(3), X1.astype(float), X2.astype(float))
    np.testing.assert_allclose(single, double, rtol=1e-5)


def test_progress_is_shown_on_request(capfd):
    gram(fc(1), X1, tile=4, progress=True)
    assert "ntk tiles" in capfd.readouterr().err
    gram(fc(1), X1, tile=4)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named():
    assert_refused(
        [
            (lambda: gram(fc(1), X1, X2[:, :3]), "one shape"),
            (lambda: gram(fc(1), X1, kind="cntk"), "kind must be 'ntk' or 'nngp', got 'cntk'"),
            (lambda: gram(fc(1), X1, tile=0), "tile must be at least 1, got 0"),
            (lambda: gram(fc(1), X1, memory=0), "memory must be at least 1, got 0"),
            (
                lambda: gram(fc(1), X1, memory=100, tile=4),
                "memory must be at least .* for tiles of 4 × 4, got 100",
            ),
            (lambda: gram(fc(1), np.where(X1 > 0.5, np.nan, X1)), "x1 has .* NaN or infinite entries"),
            (
                lambda: gram(fc(1), X1, np.full_like(X2, np.inf)),
                "x2 has 112 NaN or infinite entries of 112",
            ),
            (lambda: gram(fc(1), X1[:0]), "at least one example"),
        ],
        ValueError,
    )


def scaled(factor):
    def kernel(x1, x2, get):
        return factor["value"] * (x1.reshape(len(x1), -1) @ x2.reshape(len(x2), -1).T)

    return kernel


def test_a_function_that_reads_a_changing_variable_is_not_stale():
    factor = {"value": 1.0}
    kernel = scaled(factor)
    first = gram(kernel, X1, X2)
    factor["value"] = 3.0
    np.testing.assert_allclose(gram(kernel, X1, X2), 3 * first, rtol=1e-6)


def test_equal_architectures_are_compiled_once_for_each_shape(monkeypatch):
    assert fc(2) is fc(depth=2)
    gram(fc(2, b_std=0.3), X1, tile=5)
    monkeypatch.setattr(jax, "jit", None)
    gram(fc(depth=2, b_std=0.3), X1[:10], tile=5)
    with pytest.raises(TypeError):
        gram(fc(2, b_std=0.3), X1[:10], tile=4)


@given(
    n=st.integers(1, 40),
    other=st.none() | st.integers(1, 40),
    side=st.integers(1, 48),
    devices=st.integers(1, 8),
)
@settings(max_examples=200)
def test_tiles_cover_everything_once(n, other, side, devices):
    layout = _plan.make_layout(n, other or n, side, symmetric=other is None, devices=devices)
    assert layout.rows % devices == 0
    assert layout.rows < side + devices
    owned = np.zeros((n, other or n), int)
    for i, j in layout.corners():
        owned[i : i + layout.rows, j : j + layout.columns] += 1
        if other is None and i != j:
            owned[j : j + layout.columns, i : i + layout.rows] += 1
    assert (owned == 1).all()


def test_tiles_are_equal_and_as_few_as_their_size_allows():
    cut = functools.partial(_plan.make_layout, symmetric=True, devices=1)
    assert cut(5000, 5000, 512).rows == 500
    assert cut(1030, 1030, 512).rows == 344  # a third
    assert cut(13, 13, 512).rows == 13
    assert cut(1000, 1000, 100).rows == 100


@pytest.fixture
def one_core(monkeypatch):
    monkeypatch.setattr(_plan, "cores", lambda: 1)


def watch_blocks(monkeypatch, sent):
    """Call `sent` for every tile that is begun."""
    compiled = _plan.compiled

    def watched(*arguments):
        block = compiled(*arguments)

        def run(*x):
            sent()
            return block(*x)

        run.memory_analysis = block.memory_analysis
        return run

    monkeypatch.setattr(_plan, "compiled", watched)


def test_without_threads_two_tiles_are_in_flight_and_the_next_is_sent_before_one_is_collected(monkeypatch):
    events, place = [], _tiles.place
    monkeypatch.setattr(_plan, "_by_threads", lambda _: False)
    watch_blocks(monkeypatch, lambda: events.append("sent"))
    monkeypatch.setattr(_tiles, "place", lambda *a: (events.append("placed"), place(*a)))
    gram(fc(1), X1, tile=5)
    assert events == ["sent"] + ["sent", "placed"] * 5 + ["placed"]


@pytest.mark.parametrize("cores", [1, 3, 100])
def test_on_a_cpu_two_tiles_are_at_work_for_each_core(monkeypatch, cores):
    monkeypatch.setattr(_plan, "cores", lambda: cores)
    expected = min(2 * cores, 16)
    together, place, working, most = threading.Barrier(expected), _tiles.place, [], []

    def meet(*arguments):
        if len(working) < expected:  # the first ones wait for each other
            working.append(threading.get_ident())
            together.wait(timeout=200)
        most.append(len(set(working)))
        place(*arguments)

    monkeypatch.setattr(_tiles, "place", meet)
    kernel = gram(fc(1), X1, X1, tile=3)
    assert most == [expected] * 25
    np.testing.assert_allclose(kernel, gram(fc(1), X1), rtol=2e-6)


def test_threads_are_fewer_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(_plan, "cores", lambda: 8)
    enough = plan(fc(1), X1, tile=3).tile_bytes
    one = (enough - X1.nbytes) // 16
    for at_once in (16, 5, 2):
        least = at_once * one + X1.nbytes
        assert plan(fc(1), X1, tile=3, memory=least).tile_bytes == least
        assert plan(fc(1), X1, tile=3, memory=least + one - 1).tile_bytes == least
    assert plan(fc(1), X1, tile=3, memory=2 * one).tile_bytes == 2 * one
    with pytest.raises(ValueError, match=f"memory must be at least {2 * one} for tiles of 3 × 3"):
        plan(fc(1), X1, tile=3, memory=2 * one - 1)


def test_after_an_error_in_one_thread_no_other_tile_is_begun(monkeypatch, one_core):
    begun, ended, stop = [], [], threading.Event()
    watch_blocks(monkeypatch, lambda: begun.append(1))

    def fail(*_):
        ended.append(1)
        if len(ended) == 1:
            raise ArithmeticError("in a thread")
        assert stop.wait(timeout=200)

    monkeypatch.setattr(_tiles, "place", fail)
    monkeypatch.setattr(_tiles, "threading", types.SimpleNamespace(Lock=threading.Lock, Event=lambda: stop))
    before = threading.active_count()
    with pytest.raises(ArithmeticError, match="in a thread"):
        gram(fc(1), X1, X1, tile=1)
    assert len(begun) <= 2  # of 169
    assert threading.active_count() == before


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("enough", [True, False])
def test_inputs_go_to_the_device_once_if_they_fit(monkeypatch, enough):
    put, sent = jax.device_put, []
    monkeypatch.setattr(jax, "device_put", lambda x, place: (sent.append(x.ndim), put(x, place))[1])
    all_of_it = plan(fc(1), X1, tile=3, memory=10**6).tile_bytes
    memory = all_of_it - (0 if enough else 1)
    assert plan(fc(1), X1, tile=3, memory=memory).tile_bytes == all_of_it - (0 if enough else X1.nbytes)
    kernel = gram(fc(1), X1, tile=3, memory=memory)
    assert (sent.count(X1.ndim) == 5) == enough
    np.testing.assert_array_equal(kernel, gram(fc(1), X1, tile=3))


def test_a_plan_says_what_gram_does_and_takes():
    x = np.random.default_rng(0).uniform(size=(1000, 7)).astype(np.float32)
    told = plan(fc(1), x, time=True)
    assert isinstance(told, Plan)
    assert (told.shape, told.tile, told.tiles) == ((1000, 1000), (500, 500), 3)
    assert told.output_bytes == gram(fc(1), x).nbytes == 4_000_000
    assert told.tile_bytes >= 2 * 500 * 500 * 4 + x.nbytes
    assert told.seconds > 0
    assert plan(fc(1), x, x[:9]).tile == (500, 9)
    assert "3 tiles of one triangle, 500 × 500" in str(told)
    assert "4 MB" in str(told)
    assert "about" in str(told)
    assert "about" not in str(plan(fc(1), x))


@pytest.mark.parametrize("architecture", [fc(1), conv(1), conv(1, pool=True)], ids=lambda a: a.name)
def test_tiles_shrink_until_the_compiler_says_that_they_fit(architecture):
    free = plan(architecture, X1)
    least = plan(architecture, X1, tile=1)
    sides = []
    for memory in np.geomspace(least.tile_bytes, free.tile_bytes, 5).astype(int):
        told = plan(architecture, X1, memory=int(memory))
        assert told.tile_bytes <= memory
        sides.append(told.tile[0])
        kernel = gram(architecture, X1, memory=int(memory))
        np.testing.assert_allclose(kernel, gram(architecture, X1), rtol=2e-6)
    assert sides == sorted(sides)
    assert sides[0] < sides[-1]
    with pytest.raises(ValueError, match=r"memory must be at least .* for the smallest tile .*, got 100"):
        gram(architecture, X1, memory=100)


def test_the_pixels_of_a_kernel_decide_the_tile_first():
    x = np.zeros((300, 32, 32, 3), np.float32)
    assert plan(fc(1), x).tile == (300, 300)
    assert plan(lambda a, b, get: a.sum((1, 2)) @ b.sum((1, 2)).T, x).tile == (30, 30)
    assert plan(conv(1), x).tile == (30, 30)
    assert plan(conv(1), x, tile=7).tile == (7, 7)


@pytest.mark.usefixtures("one_core")
def test_a_kernel_that_the_compiler_says_nothing_of_is_planned_by_rule(monkeypatch):
    compiled = _plan.compiled

    def silent(*arguments):
        block = functools.partial(compiled(*arguments))
        block.memory_analysis = lambda: None
        return block

    monkeypatch.setattr(_plan, "compiled", silent)
    told = plan(conv(1), X1, tile=4)
    # Two tiles at work: each 16 entries, three times 16 pixels of each, and two blocks of 4 inputs.
    assert told.tile_bytes == 2 * 4 * (16 * (1 + 3 * 16) + 2 * 4 * 16) + X1.nbytes
    assert plan(conv(1), X1, memory=10_000).tile_bytes <= 10_000


PEAK = """
import json
import numpy as np
from companion.architectures import fc
from companion.kernels import gram, plan

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

x = np.random.default_rng(0).uniform(size=(6000, 300)).astype(np.float32)
told = plan(fc(2), x, tile=250)
gram(fc(2), x[:500], tile=250)  # the same tile: compiled, threads started
before = status("VmRSS")
kernel = gram(fc(2), x, tile=250)
print(json.dumps([status("VmHWM") - before, told.output_bytes, told.tile_bytes]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_peak_memory_is_the_result_and_what_the_plan_says():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    peak, output, tile = json.loads(done.stdout)
    # 12 MB for what the allocator keeps: a twelfth of the result, so a second copy of it would show.
    assert output <= peak <= output + 1.25 * tile + 12e6


@pytest.mark.usefixtures("as_users_run")
def test_wrong_kinds_are_named():
    assert_refused(
        [
            (
                lambda: gram(fc(1), np.ones((2, 3), np.uint8)),
                TypeError,
                "x1 must be float32 or float64, got uint8",
            ),
            (lambda: gram(fc(1), np.ones((2, 3), np.float16)), TypeError, "got float16"),
            (lambda: gram(5, X1), TypeError, "kernel must be an Architecture or a function"),
            (lambda: gram(lambda a, b, get: a.sum(), X1), ValueError, r"kernel must return shape \(2, 2\)"),
            (lambda: gram(lambda a, b: a @ b.T, X1), TypeError, r"fc\(1\) with its parentheses"),
            (lambda: gram(fc, X1), TypeError, r"fc\(1\) with its parentheses"),
            (
                lambda: gram(fc(1), np.float32(1e25) * X1),
                ValueError,
                r"the kernel matrix\[0:13, 0:13\] has .* NaN or infinite",
            ),
            (
                lambda: gram(lambda a, b, get: jnp.outer(a.sum((1, 2)), jnp.ones(len(b))), X1),
                ValueError,
                "symmetric",
            ),
            (lambda: gram(fc(1), X1, memory=1.5), TypeError, "memory must be an integer, got 1.5"),
            (lambda: plan(5, X1), TypeError, "kernel must be an Architecture or a function"),
            (lambda: jax.jit(lambda x: gram(fc(1), x))(X1), TypeError, "x1 is being traced"),
            (lambda: fc(1).kernel(X1, get="cntk"), ValueError, "get must be 'ntk', 'nngp' or a tuple"),
        ]
    )
