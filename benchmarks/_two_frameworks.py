"""Small classifiers of 15 × 15 digits with the same weights in JAX and in PyTorch, for `autoattack.py`.

An MLP and a CNN with batch normalization, each trained on clean and on attacked digits, and kernel regression
with FC-1. Weights are a mapping from names to arrays, rounded to float16 before anything is measured.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np

from companion import data, networks, regression, training
from companion.architectures import fc
from companion.attacks import Threat, training_attack

WIDTH = {"mlp": 48, "cnn": 8}
N_KERNEL, RIDGE = 400, 0.02
KINDS = ("mlp", "mlp_pgd", "cnn", "cnn_pgd", "kernel")
TRAINED_AGAINST = Threat("linf", 0.15)


def pooled(x):
    """Means over 2 × 2 pixels of digits with a margin of one: the reference's Square fails on 14 × 14."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return x.reshape(len(x), 15, 2, 15, 2, 1).mean(axis=(2, 4)).astype(np.float32)


def digits(n_test=1000):
    """Training and test digits of 15 × 15 pixels; the embedded ones."""
    found = data.load("mnist5k", n_test=n_test)
    return pooled(found.x_train), found.y_train, pooled(found.x_test), found.y_test


def model(kind):
    """The network in JAX."""
    if kind.startswith("mlp"):
        return networks.mlp(10, depth=2, width=WIDTH["mlp"])
    return networks.small_cnn(10, width=WIDTH["cnn"], norm="batch")


def trained(kind, epochs=30):
    """Weights of a network, by name."""
    import optax

    x, y, *_ = digits()
    if kind == "kernel":
        f = regression.fit(fc(1), x[:N_KERNEL], data.targets(y[:N_KERNEL]), ridge=RIDGE, solver="cholesky")
        return {"coefficients": np.asarray(f.coefficients).astype(np.float16)}
    attack = training_attack(TRAINED_AGAINST, steps=7, ramp=epochs / 3) if "pgd" in kind else None
    run = training.train(
        model(kind), x, y, epochs=epochs, optimizer=optax.adam(2e-3), key=jax.random.key(0), attack=attack,
        record=[epochs],
    )  # fmt: skip
    leaves = jax.tree_util.tree_leaves_with_path(run.variables)
    return {_name(path): np.asarray(leaf).astype(np.float16) for path, leaf in leaves}


def _name(path):
    return re.sub(r"\W+", "_", jax.tree_util.keystr(path)).strip("_")


def in_jax(kind, weights):
    """The classifier as attacks take it."""
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    if kind == "kernel":
        x, *_ = digits()
        return regression.from_coefficients(fc(1), x[:N_KERNEL], weights["coefficients"])
    net = model(kind)
    like = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 15, 15, 1))))
    variables = jax.tree_util.tree_map_with_path(lambda path, _: jnp.asarray(weights[_name(path)]), like)
    return networks.predict_fn(net, variables)


def in_torch(kind, weights):
    """The same classifier as a PyTorch module of images (n, c, h, w)."""
    import torch

    def tensor(array):
        return torch.tensor(np.asarray(array, np.float32))

    if kind == "kernel":
        x, *_ = digits()
        return _kernel(tensor(x[:N_KERNEL].reshape(N_KERNEL, -1)), tensor(weights["coefficients"]))
    return (_mlp if kind.startswith("mlp") else _cnn)({name: tensor(one) for name, one in weights.items()})


def _dense(weights, name):
    import torch

    kernel, bias = weights[f"0_{name}_kernel"], weights[f"0_{name}_bias"]
    layer = torch.nn.Linear(*kernel.shape)
    layer.weight.data, layer.bias.data = kernel.T.contiguous(), bias
    return layer


def _mlp(weights):
    from torch import nn

    first, second, last = (_dense(weights, f"Dense_{number}") for number in range(3))
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last).eval()


def _cnn(weights):
    from torch import nn

    layers = []
    for number in range(2):
        kernel = weights[f"0_Conv_{number}_kernel"].permute(3, 2, 0, 1).contiguous()
        conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
        conv.weight.data, conv.bias.data = kernel, weights[f"0_Conv_{number}_bias"]
        norm = nn.BatchNorm2d(kernel.shape[0])
        norm.weight.data, norm.bias.data = (
            weights[f"0__BatchNorm_{number}_{name}"] for name in ("scale", "bias")
        )
        norm.running_mean, norm.running_var = (
            weights[f"1_batch_stats__BatchNorm_{number}_{name}"].reshape(-1) for name in ("mean", "var")
        )
        layers += [conv, norm, nn.ReLU(), nn.AvgPool2d(2)]
    # Pixels in JAX's order: channels last.
    return nn.Sequential(*layers, _ChannelsLast(), nn.Flatten(), _dense(weights, "Dense_0")).eval()


def _ChannelsLast():
    import torch

    class ChannelsLast(torch.nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    return ChannelsLast()


def _kernel(x_train, coefficients):
    """NTK of one hidden ReLU layer, σ_w² = 2, σ_b = 0.1, times coefficients: the formula as it is written."""
    import torch

    class Kernel(torch.nn.Module):
        def forward(self, x):
            x = x.flatten(1)
            covariance = 2 * x @ x_train.T / x.shape[1] + 0.01
            own, other = (2 * (z**2).sum(1) / x.shape[1] + 0.01 for z in (x, x_train))
            scale = torch.sqrt(own[:, None] * other)
            cosine = torch.clamp(covariance / scale, -1 + 1e-6, 1 - 1e-6)
            angle = torch.arccos(cosine)
            hidden = scale * (torch.sin(angle) + (torch.pi - angle) * cosine) / torch.pi + 0.01
            return (hidden + covariance * (torch.pi - angle) / torch.pi) @ coefficients

    return Kernel().eval()
