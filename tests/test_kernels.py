"""Tiled Gram matrices: equal to one call of the library, whatever the tiles; exactly symmetric."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from companion import kernels
from companion.architectures import conv, fc
from companion.kernels import gram
from companion.neural_tangents import stax

rng = np.random.default_rng(0)
X1 = rng.uniform(size=(13, 4, 4, 1)).astype(np.float32)
X2 = rng.uniform(size=(7, 4, 4, 1)).astype(np.float32)


@pytest.mark.parametrize("tile", [1, 4, 5, 13, 100])
@pytest.mark.parametrize("architecture", [fc(2), conv(2)], ids=lambda a: a.name)
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
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


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X1, X2[:, :3]), {}, "one shape"),
        ((X1,), {"kind": "cntk"}, "kind must be 'ntk' or 'nngp', got 'cntk'"),
        ((X1,), {"tile": 0}, "tile must be at least 1, got 0"),
        ((np.where(X1 > 0.5, np.nan, X1),), {}, "x1 has .* NaN or infinite entries"),
        ((X1, np.full_like(X2, np.inf)), {}, "x2 has 112 NaN or infinite entries of 112"),
        ((X1[:0],), {}, "at least one example"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        gram(fc(1), *arguments, **options)


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


def test_equal_architectures_share_one_compiled_kernel():
    assert fc(2) is fc(depth=2)
    assert kernels._compiled(fc(2).kernel, "ntk") is kernels._compiled(fc(2).kernel, "ntk")


@pytest.mark.parametrize(
    ("architecture", "shape", "side"),
    [
        (fc(1), (9, 32, 32, 3), 512),
        (conv(1), (9, 32, 32, 3), 362),  # 362² entries of 1024 pixels: 2^27
        (conv(1, pool=True), (9, 32, 32, 3), 11),
        (lambda a, b, get: None, (9, 3072), 512),
    ],
    ids=["FC", "Conv", "pooled", "function"],
)
def test_the_default_tile_keeps_an_intermediate_near_half_a_gigabyte(architecture, shape, side):
    assert kernels._default_tile(architecture, np.zeros(shape)) == side


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: gram(fc(1), np.ones((2, 3), np.uint8)),
            TypeError,
            "x1 must be float32 or float64, got uint8",
        ),
        (lambda: gram(fc(1), np.ones((2, 3), np.float16)), TypeError, "got float16"),
        (lambda: gram(5, X1), TypeError, "kernel must be an Architecture or a function"),
        (lambda: gram(lambda a, b, get: a.sum(), X1), ValueError, r"kernel must return shape \(13, 13\)"),
        (lambda: gram(fc(1), np.float32(1e25) * X1), ValueError, "the kernel matrix has .* NaN or infinite"),
        (
            lambda: gram(lambda a, b, get: jnp.arange(13.0)[:, None] * jnp.ones(13), X1),
            ValueError,
            "symmetric",
        ),
        (lambda: jax.jit(lambda x: gram(fc(1), x))(X1), TypeError, "x1 is being traced"),
        (lambda: fc(1).kernel(X1, get="cntk"), ValueError, "get must be 'ntk', 'nngp' or a tuple"),
    ],
)
def test_wrong_kinds_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
