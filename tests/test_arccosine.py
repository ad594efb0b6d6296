"""The polynomials behind the fused kernels, against NumPy's own arccosine and exact series."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from companion.architectures._arccosine import angle_and_rest, arcsin

# Gaps from the smallest float32 that matters up to a right angle.
GAPS = np.concatenate([[0.0], np.geomspace(1e-14, 1, 400)])


def exact(m):
    """φ and sin φ − φ cos φ by 1 − cos φ = 2 sin²(φ/2), and below φ = 0.1 by the Taylor series."""
    angle = 2 * np.arcsin(np.sqrt(m / 2))
    series = angle**3 / 3 - angle**5 / 30 + angle**7 / 840 - angle**9 / 45360
    return angle, np.where(angle < 0.1, series, np.sin(angle) - angle * np.cos(angle))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-7), (np.float64, 3e-14)])
@pytest.mark.usefixtures("x64")
def test_angles_are_relatively_exact_from_zero_to_a_right_angle(dtype, tolerance):
    m = GAPS.astype(dtype)
    found, wanted = angle_and_rest(jnp.asarray(m)), exact(m.astype(float))
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-7), (np.float64, 1e-14)])
@pytest.mark.usefixtures("x64")
def test_arcsine_is_relatively_exact(dtype, tolerance):
    c = np.concatenate([-np.geomspace(1e-8, 1, 200), [0.0], np.linspace(0, 1, 200)]).astype(dtype)
    np.testing.assert_allclose(arcsin(jnp.asarray(c)), np.arcsin(c.astype(float)), rtol=tolerance)


@pytest.mark.usefixtures("x64")
def test_derivatives_are_those_of_the_functions():
    m = np.linspace(0.01, 0.99, 50)
    slope, rest_slope = (
        jax.vmap(jax.grad(lambda m, i=i: angle_and_rest(m)[i]))(jnp.asarray(m)) for i in (0, 1)
    )
    # Central differences: their error is about (1e-6)² f''' + 1e-16 / 1e-6.
    up, down = exact(m + 1e-6), exact(m - 1e-6)
    np.testing.assert_allclose(slope, (up[0] - down[0]) / 2e-6, rtol=1e-7)
    np.testing.assert_allclose(rest_slope, (up[1] - down[1]) / 2e-6, rtol=1e-7)
    c = np.linspace(-0.9, 0.9, 51)
    np.testing.assert_allclose(jax.vmap(jax.grad(arcsin))(jnp.asarray(c)), (1 - c**2) ** -0.5, rtol=1e-12)


def test_at_zero_the_derivatives_are_zero_and_not_infinite():
    for i in (0, 1):
        assert jax.grad(lambda m, i=i: angle_and_rest(m)[i])(jnp.float32(0)) == 0
        # Two computations of one norm differ by an ε, and leave a gap of its square.
        assert jax.grad(lambda m: angle_and_rest(m)[0])(jnp.float32(1e-14)) == 0


def test_what_rounds_below_zero_counts_as_zero():
    # A gap that XLA computes twice, and rounds otherwise: its root was NaN where nothing was optimized.
    for m in (-1e-24, -1e-15):
        assert [float(value) for value in angle_and_rest(jnp.float32(m))] == [0, 0]
        assert jax.grad(lambda m: angle_and_rest(m)[0])(jnp.float32(m)) == 0
    assert np.isnan(angle_and_rest(jnp.float32(np.nan))[0])
