"""PyTorch modules against the same networks written in JAX; `make torch` runs this."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: `make torch` runs this")

from torch import nn  # noqa: E402

from companion import networks  # noqa: E402
from companion.attacks import Threat, pgd, robust_accuracy, transfer  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
THREAT = Threat("linf", 0.1)
X = np.random.default_rng(0).random((7, 2, 3)).astype(np.float32)
Y = np.arange(7) % 3


def module(k=3, device="cpu"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, k)).to(device)


def twin(net):
    """The same network in JAX."""
    w1, b1, w2, b2 = (np.from_dlpack(p.detach().cpu()) for p in net.parameters())
    return lambda x: jnp.tanh(x.reshape(len(x), 6) @ w1.T + b1) @ w2.T + b2


def climb(f):
    """Ten steps up the first output, in one compiled loop."""
    step = jax.grad(lambda x: f(x)[:, 0].sum())
    return jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, x: x + 0.1 * step(x), x))


def single(f):
    return jax.vmap(lambda x: f(x[None])[0])


# What is computed of a function of inputs.
USES = {
    "outputs": lambda f: f(X),
    "jit": lambda f: jax.jit(f)(X),
    "gradient": lambda f: jax.grad(lambda x: (f(x) ** 2).sum())(X),
    "loop": lambda f: climb(f)(X),
    "scan": lambda f: jax.lax.scan(lambda x, y: (x + y, f((x + y)[None])), 0 * X[0], X)[1],
    "vmap": lambda f: single(f)(X),
    "vmap twice": lambda f: jax.jit(jax.vmap(single(f)))(np.stack([X, 2 * X])),
    "vmap of gradients": lambda f: jax.vmap(jax.grad(lambda x: f(x[None])[0, 0]))(X),
    "Jacobian": lambda f: jax.jit(jax.jacrev(f))(X),
    "no example": lambda f: f(X[:0]),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("use", USES)
def test_it_is_the_network_that_jax_would_compute(use, k, device):
    net = module(k, device)
    found, wanted = (USES[use](f) for f in (networks.from_torch(net, batch_size=3), twin(net)))
    assert (found.shape, found.dtype) == (wanted.shape, np.float32)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_attacks_are_those_on_the_network_of_jax():
    net = module()
    theirs, ours = networks.from_torch(net), twin(net)
    attacked = pgd(theirs, X, Y, THREAT, steps=5)
    np.testing.assert_allclose(attacked, pgd(ours, X, Y, THREAT, steps=5), atol=1e-5)
    np.testing.assert_array_equal(
        robust_accuracy(theirs, attacked, Y).value, robust_accuracy(ours, attacked, Y).value
    )
    accuracy = transfer({"theirs": attacked}, {"theirs": theirs, "ours": ours}, X, Y).accuracy["theirs"]
    assert accuracy["theirs"] == accuracy["ours"]


def test_attacks_stay_compiled_and_see_the_weights_of_now(monkeypatch):
    net = module()
    f = networks.from_torch(net)
    pgd(f, X, Y, THREAT, steps=2)
    asked = []
    net.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    with torch.no_grad():
        net[3].weight.mul_(-1)
    found = pgd(f, X, Y, THREAT, steps=2)
    assert 1 not in asked  # tracing asks one example of zeros
    np.testing.assert_allclose(found, pgd(twin(net), X, Y, THREAT, steps=2), atol=1e-5)


@pytest.mark.parametrize(
    "around", [torch.enable_grad, torch.no_grad, torch.inference_mode], ids=lambda one: one.__name__
)
def test_the_module_is_left_as_it_was(around):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    net[3].eval()
    net[1].weight.grad = torch.full((8, 6), 2.0)
    f, before = networks.from_torch(net), {name: value.clone() for name, value in net.state_dict().items()}
    with around():
        gradient = jax.jit(jax.grad(lambda x: f(x).sum()))(X)
        again = jax.jit(jax.grad(lambda x: f(x).sum()))(X)
        enabled = torch.is_grad_enabled()
    # Evaluation: running statistics and no Dropout, so an affine map, whose gradient is one for all.
    np.testing.assert_array_equal(gradient, again)
    np.testing.assert_allclose(gradient, np.broadcast_to(gradient[0], X.shape), rtol=1e-5)
    assert enabled == (around is torch.enable_grad)
    assert [one.training for one in net.modules()] == [True, True, True, True, False, True]
    assert [p.grad is None for p in net.parameters()] == [False] + 5 * [True]
    assert bool((net[1].weight.grad == 2).all())
    assert all(bool((value == before[name]).all()) for name, value in net.state_dict().items())


def test_two_threads_leave_the_module_in_its_own_mode():
    inside, waits = threading.Event(), [0.4, 0.2]

    class Slow(nn.Module):
        def forward(self, x):
            if len(x) > 1:
                wait = waits.pop()
                inside.set()
                time.sleep(wait)
            return x.flatten(1)

    net = Slow()
    f = networks.from_torch(net)
    threads = [threading.Thread(target=f, args=(X,)) for _ in range(2)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    for thread in threads:
        thread.join()
    assert net.training
    assert not waits


class Calls(nn.Module):
    """A module of one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: x.flatten(1).double(), TypeError, r"one tensor of float32, got torch\.float64"),
        (lambda x: (x.flatten(1), x), TypeError, "one tensor of float32, got tuple"),
        (lambda x: x, ValueError, r"outputs \(n, k\), got \(1, 2, 3\) for 1 inputs"),
        (lambda x: x.flatten(1).sum(1), ValueError, r"outputs \(n, k\), got \(1,\) for 1 inputs"),
        (lambda x: x.flatten(1).sum(0)[None].expand(2, -1), ValueError, r"got \(2, 6\) for 1 inputs"),
    ],
    ids=["float64", "two outputs", "images", "no outputs", "another n"],
)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_outputs_of_another_kind_are_named(function, error, message, wrap):
    with pytest.raises(error, match=message):
        wrap(networks.from_torch(Calls(function)))(X)


@pytest.mark.parametrize("wide", [False, True])
def test_inputs_of_another_kind_are_named(wide, request):
    if wide:
        request.getfixturevalue("x64")
    f = networks.from_torch(module())
    for wrong, message in ((np.float64, "float64"), (np.float16, "float16"), (np.int32, "int32")):
        with pytest.raises(TypeError, match=f"x must be float32, .* got {message}"):
            f(X.astype(wrong))
    with pytest.raises(TypeError, match=r"x must be float32, .* got list"):
        f(X.tolist())
    with pytest.raises(ValueError, match=r"x must be a batch \(n, \.\.\.\), got shape \(3,\)"):
        f(X[0, 0])
    with pytest.raises(TypeError, match="x must be float32"):
        pgd(f, X.astype(float), Y, THREAT)
    assert jax.grad(lambda x: f(x).sum())(X).dtype == np.float32


def test_nan_is_refused_by_attacks():
    f = networks.from_torch(Calls(lambda x: x.flatten(1) * float("nan")))
    with pytest.raises(ValueError, match="NaN"):
        pgd(f, X, Y, THREAT)


@pytest.mark.usefixtures("as_users_run")
def test_what_is_no_module_of_float32_is_refused():
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got <built-in function len>"):
        networks.from_torch(len)
    with pytest.raises(TypeError, match=r"module must hold float32, got torch\.float64: module\.float\(\)"):
        networks.from_torch(module().double())
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        networks.from_torch(module(), batch_size=0)


def test_a_first_layer_may_write_into_its_inputs():
    net = nn.Sequential(nn.Threshold(0.5, 0.0, inplace=True), nn.Flatten())
    gradient = jax.grad(lambda x: networks.from_torch(net)(x).sum())(X)
    np.testing.assert_array_equal(gradient, X > 0.5)


def test_outputs_that_need_no_inputs_have_no_gradient():
    f = networks.from_torch(Calls(lambda x: torch.ones(len(x), 2)))
    np.testing.assert_array_equal(jax.grad(lambda x: f(x).sum())(X), 0 * X)
