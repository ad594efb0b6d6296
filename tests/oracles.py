"""Slow oracles in NumPy float64, written from the definitions: what the fast code is held against.

Nothing here imports jax, neural-tangents or companion. Closed forms are added, never sped up.
"""

import numpy as np

# A network is a tuple of layers, each a tuple of a name and its numbers:
#   ("dense", w_std, b_std)   ("conv", size, w_std, b_std)   3 x 3 and so on, SAME padding, stride 1
#   ("relu",)   ("erf",)   ("layer_norm",)   ("avg_pool", size)   ("flatten",)   ("global_avg_pool",)
#   ("residual", layers)      the layers' output plus their input


def kernels(x1, x2, layers):
    """NNGP and NTK of an infinitely wide network, NTK parameterization: two arrays (n1, n2).

    Follows the covariance K[i, j, p, q] of every pair of inputs at every pair of pixels, and the tangent
    kernel beside it, through each layer: (n1 + n2)^2 x pixels^2 numbers. Inputs (n, d) or (n, h, w, c).
    """
    x = np.concatenate([x1, x2]).astype(np.float64)
    if x.ndim == 2:
        x = x[:, None, None, :]
    k = np.einsum("iabc,jdec->ijabde", x, x) / x.shape[-1]
    k, t = _through(layers, k, np.zeros_like(k))
    if k.shape[2:] != (1, 1, 1, 1):
        raise ValueError(f"the network ends with pixels {k.shape[2:4]}, wanted flattened outputs")
    n = len(x1)
    return k[:n, n:, 0, 0, 0, 0], t[:n, n:, 0, 0, 0, 0]


def _through(layers, k, t):
    for name, *numbers in layers:
        if name == "residual":
            branch_k, branch_t = _through(numbers[0], k, t)
            k, t = k + branch_k, t + branch_t
        else:
            k, t = _LAYERS[name](k, t, *numbers)
    return k, t


def _dense(k, t, w_std, b_std):
    # Weights and biases train: their own gradients contribute the layer's covariance.
    k = w_std**2 * k + b_std**2
    return k, k + w_std**2 * t


def _conv(k, t, size, w_std, b_std):
    def filtered(a):
        h, w = a.shape[2:4]
        out = np.zeros_like(a)
        half = size // 2
        for p in np.ndindex(h, w):
            for q in np.ndindex(h, w):
                for shift in np.ndindex(size, size):
                    pa, pb = p[0] + shift[0] - half, p[1] + shift[1] - half
                    qa, qb = q[0] + shift[0] - half, q[1] + shift[1] - half
                    if min(pa, qa) >= 0 and min(pb, qb) >= 0 and max(pa, qa) < h and max(pb, qb) < w:
                        out[:, :, p[0], p[1], q[0], q[1]] += a[:, :, pa, pb, qa, qb]
        return out / size**2

    k = w_std**2 * filtered(k) + b_std**2
    return k, k + w_std**2 * filtered(t)


def _variances(k):
    """K[i, i, p, p] laid out twice, to divide K[i, j, p, q] by: the left and the right one."""
    v = np.einsum("iiabab->iab", k)
    return v[:, None, :, :, None, None], v[None, :, None, None, :, :]


def _relu(k, t):
    # Cho and Saul 2009: arc-cosine kernels of degree 1 (for k) and 0 (for its derivative).
    left, right = _variances(k)
    scale = np.sqrt(left * right)
    cosine = np.clip(np.divide(k, scale, out=np.ones_like(k), where=scale > 0), -1, 1)
    angle = np.arccos(cosine)
    k = scale * (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)
    return k, t * (np.pi - angle) / (2 * np.pi)


def _erf(k, t):
    # Williams 1997: E[erf(u) erf(v)], and the same for the derivative 2 exp(-u^2) / sqrt(pi).
    left, right = _variances(k)
    product = (1 + 2 * left) * (1 + 2 * right)
    slope = 4 / np.pi / np.sqrt(product - 4 * k**2)
    return 2 / np.pi * np.arcsin(2 * k / np.sqrt(product)), t * slope


def _layer_norm(k, t):
    # Over infinitely many channels mean 0 and variance K[i, i, p, p] are exact, so both kernels are divided.
    # 1e-12 is the usual guard against a zero variance.
    left, right = _variances(k)
    scale = np.sqrt((left + 1e-12) * (right + 1e-12))
    return k / scale, t / scale


def _avg_pool(k, t, size):
    def pooled(a):
        n1, n2, h, w = a.shape[:4]
        windows = a.reshape(n1, n2, h // size, size, w // size, size, h // size, size, w // size, size)
        return windows.mean(axis=(3, 5, 7, 9))

    return pooled(k), pooled(t)


def _flatten(k, t):
    def diagonal_mean(a):
        pixels = a.shape[2] * a.shape[3]
        return np.einsum("ijabab->ij", a)[:, :, None, None, None, None] / pixels

    return diagonal_mean(k), diagonal_mean(t)


def _global_avg_pool(k, t):
    return k.mean(axis=(2, 3, 4, 5), keepdims=True), t.mean(axis=(2, 3, 4, 5), keepdims=True)


_LAYERS = {
    "dense": _dense,
    "conv": _conv,
    "relu": _relu,
    "erf": _erf,
    "layer_norm": _layer_norm,
    "avg_pool": _avg_pool,
    "flatten": _flatten,
    "global_avg_pool": _global_avg_pool,
}


def gradient_flow(k_train_train, k_test_train, y_train, rate_times_time):
    """f_t on train and test points, from f_0 = 0: K (I - exp(-rate t K)) K^-1 y, by eigendecomposition.

    `rate_times_time` is the factor of the kernel in the exponent (np.inf for the limit); y is (n, outputs).
    """
    values, vectors = np.linalg.eigh(np.asarray(k_train_train, np.float64))
    decay = np.exp(-rate_times_time * values)
    coefficients = vectors @ (((1 - decay) / values)[:, None] * (vectors.T @ y_train))
    return k_train_train @ coefficients, k_test_train @ coefficients


def ensemble_covariance(ntk, nngp, rate_times_time):
    """Covariance on test points of networks trained by gradient flow (Lee et al. 2019, equation 16).

    `ntk` and `nngp` are dicts with "train", "cross" (test, train) and, for nngp, "test".
    """
    values, vectors = np.linalg.eigh(ntk["train"])
    response = ntk["cross"] @ vectors * ((1 - np.exp(-rate_times_time * values)) / values) @ vectors.T
    crossed = response @ nngp["cross"].T
    return nngp["test"] + response @ nngp["train"] @ response.T - crossed - crossed.T


def central_difference(f, x, step):
    """Gradient of the scalar f at x by coordinates; its error is about step^2 f''' / 6 + 1e-16 f / step."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        move = np.zeros_like(x)
        move[index] = step
        gradient[index] = (f(x + move) - f(x - move)) / (2 * step)
    return gradient
