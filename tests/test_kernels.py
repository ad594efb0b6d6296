"""Tiled Gram matrices: equal to one call of the library, whatever the tiles; exactly symmetric."""

import numpy as np
import pytest

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


@pytest.mark.usefixtures("as_users_run")
def test_integer_pixels_are_refused():
    with pytest.raises(TypeError, match="x1 must be floating point, got uint8"):
        gram(fc(1), np.ones((2, 3), np.uint8))
