"""Functions, keys and labels of the user's are checked alike wherever they come in."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from jax.tree_util import Partial

from companion import attacks, catastrophic, networks, training
from companion import regression as rg
from companion.architectures import conv, fc, myrtle
from companion.attacks import Threat
from companion.catastrophic._one_step import _leading
from companion.dynamics._measures import largest
from companion.empirical import empirical_ntk
from companion.kernels import gram, keep_compiled
from companion.regression import from_coefficients

X = np.random.default_rng(0).uniform(0.2, 0.8, (4, 2)).astype(np.float32)
IMAGES = np.random.default_rng(1).uniform(0.2, 0.8, (2, 4, 4, 1)).astype(np.float32)
Y, ALPHA, KEY = np.array([0, 1, 0, 1]), np.ones((4, 1), np.float32), jax.random.key(0)
THREAT = Threat("linf", 0.1)


def good(x):
    return x[:, :1] - 0.5


def of(kernel):
    return rg.fit(kernel, X, np.ones((4, 1)), k_train_train=np.eye(4))


# What takes a function of inputs, as a call of it alone.
PREDICT = {
    "pgd": lambda f: attacks.pgd(f, X, Y, THREAT, steps=1),
    "fgsm": lambda f: attacks.fgsm(f, X, Y, THREAT),
    "gradient_cosine": lambda f: attacks.gradient_cosine(good, f, X, Y),
    "sanity_checks": lambda f: attacks.sanity_checks(f, X, Y, THREAT, key=KEY, steps=1),
    "gradient_directions": lambda f: catastrophic.gradient_directions(f, X, Y, top=1),
    "local_linearity": lambda f: catastrophic.local_linearity(f, X, Y, THREAT, key=KEY),
}
WRONG = {
    "nan": (lambda x: good(x) * jnp.nan, "NaN"),
    "gradient nan": (lambda x: jnp.sqrt(good(x) * 0), "NaN"),
    "mixing": (lambda x: good(x) - good(x).mean(0), "mixes examples: its output for x.0. changes with x.1."),
    "one axis": (lambda x: x[:, 0], r"must return outputs \(m, k\)"),
    "one row": (lambda x: good(x)[:0], r"must return outputs \(m, k\)"),
    "a pair": (lambda x: (x, x), r"must return outputs \(m, k\)"),
    "no function": (3, "must be a function"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", PREDICT)
@pytest.mark.usefixtures("as_users_run")
def test_functions_of_inputs(name, wrong):
    function, message = WRONG[wrong]
    with pytest.raises((ValueError, TypeError), match=message):
        PREDICT[name](function)


# These take no gradient.
@pytest.mark.parametrize("wrong", ["nan", "mixing", "one axis", "one row", "a pair", "no function"])
@pytest.mark.usefixtures("as_users_run")
def test_functions_of_images(wrong):
    function, message = WRONG[wrong]
    function = function if wrong == "no function" else lambda x, f=function: f(x.reshape(len(x), -1))
    with pytest.raises((ValueError, TypeError), match=message):
        attacks.square(function, IMAGES, Y[:2], THREAT, key=KEY, queries=2)


@pytest.mark.parametrize("wrong", ["nan", "one axis", "one row"])
@pytest.mark.parametrize(
    "call",
    [lambda f: attacks.transfer({"x": X}, {"f": f}, X, Y), lambda f: attacks.robust_accuracy(f, X, Y)],
    ids=["transfer", "robust_accuracy"],
)
def test_functions_that_are_only_evaluated(call, wrong):
    function, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        call(lambda x: np.asarray(function(x)))


def test_infinite_outputs_are_refused():
    with pytest.raises(ValueError, match="for 4 of 4 examples, or infinity"):
        attacks.pgd(lambda x: jnp.exp(1e4 * x[:, :1]), X, Y, THREAT, steps=1)


@pytest.mark.parametrize("kind", [Partial, lambda f: f], ids=["Partial", "closure"])
def test_a_mixing_function_is_refused_at_every_call(kind):
    function = kind(WRONG["mixing"][0])
    for _ in range(2):
        with pytest.raises(ValueError, match="mixes examples"):
            attacks.pgd(function, X, Y, THREAT, steps=1)


@pytest.mark.parametrize(
    "loss", [lambda f, y: f.sum(), lambda f, y: f, lambda f, y: f[:0, 0]], ids=["sum", "column", "none"]
)
@pytest.mark.parametrize("name", ["pgd", "square", "gradient_cosine", "sanity_checks"])
def test_losses_of_other_shapes(name, loss):
    call = {
        "pgd": lambda: attacks.pgd(good, X, Y, THREAT, loss=loss),
        "square": lambda: attacks.square(
            lambda x: x.mean((1, 2)), IMAGES, Y[:2], THREAT, key=KEY, queries=2, loss=loss
        ),
        "gradient_cosine": lambda: attacks.gradient_cosine(good, good, X, Y, loss=loss),
        "sanity_checks": lambda: attacks.sanity_checks(good, X, Y, THREAT, key=KEY, loss=loss),
    }[name]
    with pytest.raises(ValueError, match=r"loss must return values \(m,\)"):
        call()


KERNELS = {
    "nan": (lambda a, b, get: a @ b.T * jnp.nan, "NaN"),
    "shape": (lambda a, b, get: a @ b.T[:, :1], r"kernel must return shape \(\d, \d\)"),
    "mixing": (lambda a, b, get: (a - a.mean(0)) @ (b - b.mean(0)).T, "kernel mixes examples"),
    # 1 on its diagonal, whatever it mixes.
    "scaling": (
        lambda a, b, get: jnp.exp(-(((a / (a.std(0) + 0.1))[:, None] - b / (b.std(0) + 0.1)) ** 2).mean(-1)),
        "kernel mixes examples",
    ),
    "asymmetric": (lambda a, b, get: a @ b.T + a[:, :1] - b[:, 0], "kernel must be symmetric"),
    "gradient nan": (lambda a, b, get: jnp.sqrt(((a[:, None] - b) ** 2).sum(-1)), "NaN"),
}


@pytest.mark.parametrize("tile", [1, None])
@pytest.mark.parametrize("wrong", ["nan", "shape", "mixing", "scaling", "asymmetric"])
def test_kernels_in_gram(wrong, tile):
    kernel, message = KERNELS[wrong]
    with pytest.raises(ValueError, match=message):
        gram(kernel, X, tile=tile)


def test_an_entry_of_rounding_is_no_mixing():
    # Θ(x₀, x₁) is 0 up to rounding, which differs by the company: 1e-8 against −1e-8.
    def kernel(a, b, get):
        return a @ b.T + 1e-8 * jnp.where((a[0] == a[-1]).all(), 1, -1)

    np.testing.assert_allclose(gram(kernel, np.eye(2, 4, dtype=np.float32)), np.eye(2), atol=1e-7)


@pytest.mark.parametrize("wrong", [name for name in KERNELS if name != "asymmetric"])
@pytest.mark.parametrize(
    "call",
    [lambda f: f.gradient(X), lambda f: attacks.one_step(f, X, Y, THREAT)],
    ids=["gradient", "one_step"],
)
def test_kernels_in_a_predictor(call, wrong):
    kernel, message = KERNELS[wrong]
    with pytest.raises(ValueError, match=message):
        call(from_coefficients(kernel, X, ALPHA))


class Own:
    """A kernel and a network of a user's, who counts how often JAX reads them."""

    def __init__(self):
        self.traces = 0

    def kernel(self, a, b, get):
        self.traces += isinstance(a, jax.core.Tracer)
        return jnp.exp(-((a[:, None] - b) ** 2).sum(-1))

    def mixing(self, a, b, get):
        return KERNELS["mixing"][0](a, b, get)

    def network(self, x):
        self.traces += isinstance(x, jax.core.Tracer)
        return jnp.tanh(x[:, :1] - 0.5)

    def apply(self, w, x):
        self.traces += isinstance(x, jax.core.Tracer)
        return jnp.tanh(x @ w)


KEPT = {
    "gram": lambda own: gram(keep_compiled(own.kernel), X),
    "fit": lambda own: rg.fit(keep_compiled(own.kernel), X, np.ones((4, 1)))(X),
    "pgd": lambda own: attacks.pgd(keep_compiled(own.network), X, Y, THREAT, steps=2),
    "outputs": lambda own: attacks.robust_accuracy(keep_compiled(own.network), X, Y).value,
    "empirical_ntk": lambda own: empirical_ntk(keep_compiled(own.apply), np.ones((2, 1), np.float32), X),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_compiled_is_read_in_the_first_of_three_calls_alone(name):
    own = Own()
    first = KEPT[name](own)
    count = own.traces
    for _ in range(2):
        np.testing.assert_array_equal(KEPT[name](own), first)
    assert own.traces == count > 0


def test_only_what_was_marked_is_kept():
    scale = 1.0

    def kernel(a, b, get):
        return scale * a @ b.T

    once = gram(kernel, X)
    scale = 2.0
    np.testing.assert_allclose(gram(kernel, X), 2 * once, rtol=1e-6)
    np.testing.assert_allclose(gram(keep_compiled(kernel), X), 2 * once, rtol=1e-6)
    scale = 3.0
    np.testing.assert_allclose(gram(kernel, X), 2 * once, rtol=1e-6)


def test_a_kept_kernel_is_asked_once_whether_it_mixes_examples():
    asked = []

    @keep_compiled
    def kernel(a, b, get):
        asked.append(isinstance(a, jax.core.Tracer))
        return a @ b.T

    for _ in range(2):
        gram(kernel, X)
    assert asked.count(False) == 2
    with pytest.raises(ValueError, match="kernel mixes examples"):
        gram(keep_compiled(Own().mixing), X)


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(3, "function must be one, got 3"), (Unhashable(), "must have a hash")],
    ids=["3", "hash"],
)
@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_kept_compiled(wrong, message):
    with pytest.raises(TypeError, match=message):
        keep_compiled(wrong)


@pytest.mark.usefixtures("as_users_run")
def test_only_a_predictor_is_one():
    f = from_coefficients(fc(1), X, ALPHA)
    attacks.one_step(jax.tree.map(lambda part: 2 * part, f), X, Y, THREAT)
    for other in (Partial(good), good, attacks.two_logits(f)):
        with pytest.raises(TypeError, match=r"f must come from regression\.fit, got "):
            attacks.one_step(other, X, Y, THREAT)


def trained(**options):
    model, optimizer = networks.mlp(2, depth=1, width=2), optax.sgd(0.1)
    return training.train(
        model, X, Y, epochs=1, optimizer=optimizer, batch_size=2, **({"key": KEY} | options)
    )


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"attack": lambda predict, x, y, key, epoch: x[:1]},
            ValueError,
            r"attack must .* \(2, 2\).*\(1, 2\)",
        ),
        ({"attack": lambda predict, x, y, key, epoch: (x, x)}, ValueError, "attack must return an array"),
        (
            {"penalty": lambda predict, x, y, key, epoch: predict(x)},
            ValueError,
            r"penalty must .* shape \(\)",
        ),
        (
            {"loss": lambda outputs, y: outputs.sum()},
            ValueError,
            "loss must return one value for each example",
        ),
        (
            {"attack": lambda predict, x, y, key, epoch: x * jnp.nan},
            FloatingPointError,
            "may have returned NaN",
        ),
        (
            {"attack": training.Switch(None, None, lambda run: "yes")},
            TypeError,
            "rule must return True or False",
        ),
        ({"key": 0}, TypeError, "key must be a JAX random key"),
    ],
    ids=["attack short", "attack pair", "penalty long", "loss sum", "attack nan", "rule word", "key number"],
)
@pytest.mark.usefixtures("as_users_run")
def test_functions_in_training(options, error, words):
    with pytest.raises(error, match=words):
        trained(**options)


def test_a_network_that_mixes_has_no_empirical_kernel():
    with pytest.raises(ValueError, match=r"apply_fn mixes examples: .*batch_statistics=True"):
        empirical_ntk(lambda w, x: (x - x.mean(0)) @ w, np.ones((2, 1), np.float32), X)


KEYS = {
    "pgd": lambda key: attacks.pgd(good, X, Y, THREAT, steps=1, key=key),
    "square": lambda key: attacks.square(lambda x: x.mean((1, 2)), IMAGES, Y[:2], THREAT, key=key, queries=2),
    "random_sign": lambda key: attacks.random_sign(X, THREAT, key=key),
    "random_uniform": lambda key: attacks.random_uniform(X, THREAT, key=key),
    "sanity_checks": lambda key: attacks.sanity_checks(good, X, Y, Threat("linf", 0.4), key=key, steps=1),
    "local_linearity": lambda key: catastrophic.local_linearity(good, X, Y, THREAT, key=key),
    "Architecture.init": lambda key: fc(1, width=2).init(key, X),
    "Model.init": lambda key: networks.mlp(1, depth=1, width=2).init(key, X),
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.filterwarnings("ignore::companion.attacks.AttackWarning")
@pytest.mark.usefixtures("as_users_run")
def test_keys(name):
    several = jax.random.split(KEY, 3)
    for wrong in (0, np.uint32(0), "key", np.zeros(2), several, jax.random.key_data(several)):
        with pytest.raises(TypeError, match=r"key must be a JAX random key such as jax\.random\.key\(0\)"):
            KEYS[name](wrong)
    new, old = KEYS[name](KEY), KEYS[name](jax.random.PRNGKey(0))
    jax.tree.map(np.testing.assert_array_equal, new, old)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_gradient_directions_are_orthonormal_beyond_the_gradients_rank(rank):
    x, w = np.random.default_rng(2).random((4, 6)).astype("f4"), np.eye(6, 2, dtype=np.float32)
    directions, shares = catastrophic.gradient_directions(lambda x: x @ w, x, Y, top=rank)
    np.testing.assert_allclose(directions @ directions.T, np.eye(rank), atol=1e-6)
    # Two logits of a linear network: all gradients are multiples of one vector.
    np.testing.assert_allclose(np.abs(directions[0]), [0.5**0.5, 0.5**0.5, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(shares, np.eye(1, rank)[0], atol=1e-6)


def test_noise_has_no_direction_beyond_the_gradients_rank():
    gradients = np.outer([1.0, 2, 3, 4], [3.0, 4, 0, 0, 0]).astype(np.float32)
    expected = np.outer([1, 0, 0], [0.6, 0.8, 0, 0, 0])
    np.testing.assert_allclose(np.abs(_leading(gradients, 3)), expected, atol=1e-6)
    assert not np.asarray(_leading(0 * gradients, 3)).any()


@pytest.mark.parametrize("n", [30, 600])
def test_eigenvectors_are_orthonormal_beyond_the_kernels_rank(n):
    factor = np.random.default_rng(3).standard_normal((n, 3))
    values, vectors = largest(factor @ factor.T, 8)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-8)
    np.testing.assert_allclose(np.sort(values)[::-1][:3], scipy.linalg.svdvals(factor) ** 2, rtol=1e-8)
    fitted = rg.fit(factor[:30] @ factor[:30].T, targets=np.ones((30, 1)))
    np.testing.assert_allclose(fitted.eigenvectors.T @ fitted.eigenvectors, np.eye(30), atol=1e-10)


def test_kernels_without_an_inverse():
    zero = rg.fit(np.zeros((3, 3)), targets=np.ones((3, 1)))
    assert rg.condition_number(zero) == np.inf == rg.rounding_error(zero)
    assert rg.condition_number(zero.at(1.0)) == 0
    np.testing.assert_array_equal(rg.learned_fraction(zero.at(np.inf)), np.zeros(3))
    np.testing.assert_allclose(
        rg.fit(-np.eye(3), targets=np.ones((3, 1)), ridge=1.5, solver="cholesky").coefficients.ravel(), 2
    )
    with pytest.raises(ValueError, match="a ridge above minus its smallest eigenvalue"):
        rg.fit(-np.eye(3), targets=np.ones((3, 1)), solver="cholesky")
    with pytest.raises(ValueError, match="its smallest eigenvalue is -1"):
        rg.fit(-np.eye(3), targets=np.ones((3, 1)))


SMALL = {
    "small_cnn": (lambda: networks.small_cnn(2, width=1), 3, "4 × 4 pixels at least"),
    "cnn": (lambda: networks.cnn(2, width=1), 3, "4 × 4 pixels at least"),
    "myrtle": (lambda: myrtle(5), 12, "multiples of 8, 8 at least, got 12 × 12"),
}


@pytest.mark.parametrize("name", SMALL)
def test_images_too_small_are_told_what_would_do(name):
    make, side, message = SMALL[name]
    x = np.ones((2, side, side, 1), np.float32)
    with pytest.raises(ValueError, match=message):
        make().init(KEY, x)
    if name == "myrtle":
        with pytest.raises(ValueError, match=message):
            gram(make(), x)
    else:
        x = np.ones((2, 4, 4, 1), np.float32)
        assert np.isfinite(make().apply(*make().init(KEY, x), x, False)[0]).all()


def test_networks_of_images_refuse_flat_inputs():
    for model in (networks.small_cnn(2), networks.cnn(2), networks.resnet(2)):
        with pytest.raises(ValueError, match=r"wants x as images \(n, h, w, c\)"):
            model.init(KEY, X)
    with pytest.raises(ValueError, match=r"wants x1 as images \(n, h, w, c\)"):
        conv(1).kernel(X)


def test_importing_attacks_loads_no_framework_of_networks():
    code = "import sys, companion.attacks; print([m for m in sys.argv[1:] if m in sys.modules])"
    modules = ["flax", "optax", "neural_tangents", "matplotlib", "companion.training"]
    run = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert attacks.Replay is type(attacks.free_training(THREAT))
