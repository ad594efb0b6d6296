"""The precision of the inputs decides, in all public functions of arrays, whatever JAX is set to."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from companion import attacks, catastrophic, clocks, dynamics, features, guarantees, networks, normalization
from companion import regression as rg
from companion import statistics as st
from companion.architectures import conv, fc, myrtle
from companion.attacks import Threat
from companion.empirical import empirical_ntk, empirical_ntk_fn
from companion.kernels import gram, plan
from companion.regression import from_coefficients
from companion.training import (
    gradient_descent,
    linear_features,
    linear_solution,
    train,
    train_to_residual,
)

RNG = np.random.default_rng(0)
X, IMAGES = RNG.uniform(0.2, 0.8, (4, 3)), RNG.uniform(0.2, 0.8, (2, 8, 8, 1))
Y, ALPHA, W = np.array([0, 1, 0, 1]), RNG.standard_normal((4, 2)), RNG.standard_normal((3, 2))
ONE_HOT = np.eye(2)[Y] - 0.5
KERNEL = X @ X.T + np.eye(4)
PATH = np.stack([KERNEL, KERNEL + 1, 2 * KERNEL + np.diag([1.0, 2, 3, 4])])
KEY, THREAT = jax.random.key(0), Threat("linf", 0.1)
SGD = optax.sgd(0.1, momentum=0.9)
FC, MLP, CNN = fc(1, width=4), networks.mlp(2, depth=1, width=4), networks.small_cnn(2, width=2)


def _linear(w, x):
    return jnp.tanh(x @ w)


def _f(a):
    return Partial(_linear, jnp.asarray(a(W), jnp.float32))


def _features(a):
    return rg.fit(FC, a(X), ALPHA, k_train_train=KERNEL)


def _variables(model, a, x):
    return model.init(KEY, a(x))


def _of(model, x, of=lambda model: model):
    """A network at its own initialization, in the inputs' precision."""
    return lambda a: of(model).apply(*of(model).init(KEY, a(x)), a(x), False)[0]


def _twice(a):
    made = empirical_ntk_fn(FC.apply)
    return made(jax.tree.map(a, FC.init(KEY, X)), a(X))


@dataclass(frozen=True)
class Case:
    """A call with arrays made by `a`, the type of its result, and what it makes of other types.

    `gives`: the result's type, None for that of the inputs. `half`: "refused" by name, or "exact": taken as
    float64, as NumPy's functions do. `double_off`: whether float64 is served where JAX is set to float32.
    """

    call: Callable[..., Any]
    gives: Any = None
    half: str = "refused"
    double_off: bool = True
    rtol: float = 2e-4
    off_by: float = 2e-5


NUMPY = {"gives": np.float64, "half": "exact"}
CASES = {
    "architectures.fc": Case(lambda a: FC.kernel(a(X))),
    "architectures.fc apply": Case(lambda a: FC.apply(jax.tree.map(np.float32, _START), a(X))),
    "architectures.conv": Case(lambda a: conv(1, width=2).kernel(a(IMAGES))),
    "architectures.conv pooled": Case(lambda a: conv(1, width=2, pool=True).kernel(a(IMAGES))),
    "attacks.cross_entropy": Case(lambda a: attacks.cross_entropy(a(ALPHA), Y), half="any"),
    "attacks.margin": Case(lambda a: attacks.margin(a(ALPHA), Y), half="any"),
    "attacks.squared": Case(lambda a: attacks.squared(a(ALPHA), Y), half="any"),
    "attacks.fgsm": Case(lambda a: attacks.fgsm(_f(a), a(X), Y, THREAT)),
    "attacks.pgd": Case(lambda a: attacks.pgd(_f(a), a(X), Y, THREAT, steps=2, key=None)),
    "attacks.pgd of a closure": Case(lambda a: attacks.pgd(lambda x: x @ W[:, :1], a(X), Y, THREAT, steps=2)),
    "attacks.gradient_cosine": Case(lambda a: attacks.gradient_cosine(_f(a), _f(a), a(X), Y)),
    "attacks.one_step": Case(
        lambda a: attacks.one_step(from_coefficients(FC, X.astype("f4"), a(ALPHA)), a(X), Y, THREAT)
    ),
    "attacks.random_sign": Case(lambda a: attacks.random_sign(a(X), THREAT, key=KEY)),
    "attacks.random_uniform": Case(lambda a: attacks.random_uniform(a(X), THREAT, key=KEY), off_by=0.2),
    "attacks.robust_accuracy": Case(lambda a: attacks.robust_accuracy(_f(a), a(X), Y).value, np.float64),
    "attacks.sanity_checks": Case(
        lambda a: attacks.sanity_checks(_f(a), a(X), Y, Threat("linf", 0.0), key=KEY, steps=1).clean.value,
        np.float64,
    ),
    "attacks.dlr": Case(lambda a: attacks.dlr(a(ALPHA), Y), half="any"),
    "attacks.targeted_dlr": Case(lambda a: attacks.targeted_dlr(a(ALPHA), Y, 1 - Y), half="any"),
    "attacks.apgd": Case(lambda a: attacks.apgd(_f(a), a(X), Y, THREAT, steps=2, key=KEY)),
    "attacks.fab": Case(lambda a: attacks.fab(_f(a), a(X), Y, steps=2).attacked),
    "attacks.autoattack": Case(
        lambda a: attacks.autoattack(_f(a), a(X), Y, THREAT, key=KEY, version="fab-t").attacked
    ),
    "attacks.square": Case(
        lambda a: attacks.square(lambda x: x.mean((1, 2)) - 0.5, a(IMAGES), Y[:2], THREAT, key=KEY, queries=9)
    ),
    "attacks.training_attack": Case(
        lambda a: attacks.training_attack(THREAT, steps=1, random_start=False)(_f(a), a(X), Y, KEY, 0.0),
        half="any",
        double_off=False,
    ),
    "attacks.transfer": Case(
        lambda a: attacks.transfer({"x": a(X)}, {"f": _f(a)}, a(X), Y).flipped * 1.0, np.float64
    ),
    "attacks.two_logits": Case(lambda a: attacks.two_logits(lambda x: x)(a(X[:, :1])), half="any"),
    "catastrophic.gradient_directions": Case(
        lambda a: np.abs(catastrophic.gradient_directions(_f(a), a(X), Y, top=2)[0])
    ),
    "catastrophic.local_linearity": Case(
        lambda a: catastrophic.local_linearity(_f(a), a(X), Y, Threat("linf", 1e-3), key=KEY), off_by=1e-2
    ),
    "catastrophic.spectrum_signals": Case(
        lambda a: catastrophic.spectrum_signals(a(PATH))["effective rank"], **NUMPY
    ),
    "clocks.adversarial": Case(lambda a: clocks.adversarial(FC, a(X), 1.0, strength=0.1), np.float64),
    "clocks.clocked": Case(
        lambda a: clocks.clocked(rg.fit(KERNEL, targets=a(ALPHA)), a(X[:, 0])).coefficients, np.float64
    ),
    "clocks.input_gradients": Case(
        lambda a: clocks.input_gradients(fc(1, activation="erf"), a(X)), np.float64
    ),
    "clocks.learn": Case(
        lambda a: (
            clocks.learn(rg.fit(FC, a(X), a(ONE_HOT)), a(X), Y, THREAT, rate=0.1, steps=1, key=KEY).clocks
        ),
        np.float64,
        double_off=False,
        rtol=1e-2,
    ),
    "dynamics.alignment": Case(lambda a: dynamics.alignment(a(KERNEL), a(ALPHA)), np.float64),
    "dynamics.class_blocks": Case(lambda a: dynamics.class_blocks(a(KERNEL), Y).within, np.float64),
    "dynamics.collapse_invariant": Case(
        lambda a: dynamics.collapse_invariant(a(X), Y, a(W), dynamics.Blocks(1.0, 0.5, 0.2)), **NUMPY
    ),
    "dynamics.neural_collapse": Case(lambda a: dynamics.neural_collapse(a(X), Y, a(W)).nc3, **NUMPY),
    "dynamics.variability": Case(lambda a: dynamics.variability(a(KERNEL), Y), np.float64),
    "dynamics.concentration": Case(lambda a: dynamics.concentration(a(KERNEL), top=2), np.float64),
    "dynamics.distances": Case(lambda a: dynamics.distances(a(PATH)), np.float64),
    "dynamics.effective_rank": Case(lambda a: dynamics.effective_rank(a(KERNEL)), np.float64),
    "dynamics.inner_products": Case(lambda a: dynamics.inner_products(a(PATH)), np.float64),
    "dynamics.per_output": Case(lambda a: dynamics.per_output(a(KERNEL), 2)),
    "dynamics.polar": Case(lambda a: dynamics.polar(a(PATH))[1], np.float64),
    "dynamics.rotation": Case(lambda a: dynamics.rotation(a(PATH), top=2), np.float64),
    "dynamics.specialization": Case(
        lambda a: dynamics.specialization(a(PATH[:2]), a(np.abs(ALPHA)))[0], np.float64
    ),
    "dynamics.successive": Case(lambda a: dynamics.successive(a(PATH)), np.float64),
    "dynamics.velocity": Case(lambda a: dynamics.velocity(a(PATH), np.arange(3.0)), np.float64),
    "empirical.empirical_ntk": Case(lambda a: empirical_ntk(FC.apply, jax.tree.map(a, _START), a(X))),
    "empirical.empirical_ntk_fn": Case(
        lambda a: empirical_ntk_fn(FC.apply)(jax.tree.map(np.float32, _START), a(X))
    ),
    "features.attack_shares": Case(
        lambda a: features.attack_shares(_features(a), a(X), a(X[::-1].copy()), Y), np.float64
    ),
    "features.class_difference": Case(lambda a: features.class_difference(_features(a), a(X), 0)),
    "features.classifier": Case(
        lambda a: features.classifier(_features(a), 2)(a(X)), double_off=False, rtol=1e-3
    ),
    "features.correct": Case(lambda a: features.correct(_features(a), a(X), Y) * 1.0, np.float64),
    "features.correct_under_attack": Case(
        lambda a: features.correct_under_attack(_features(a), a(X), Y, THREAT) * 1.0, np.float64
    ),
    "features.determined_dataset": Case(
        lambda a: features.determined_dataset(_f(a), a(X), Y, THREAT, steps=2)[0]
    ),
    "features.mean_correlation": Case(
        lambda a: features.mean_correlation(a(ALPHA)[:, None], a(ALPHA), key=KEY, resamples=9).value, **NUMPY
    ),
    "guarantees.fit_adversarial": Case(
        lambda a: guarantees.fit_adversarial(FC, a(X), Y, THREAT, ridge=1.0).coefficients,
        np.float64,
        double_off=False,
        rtol=1e-2,
    ),
    "guarantees.modulus": Case(lambda a: guarantees.modulus(FC, a(X), 0.1), np.float64),
    "guarantees.poison": Case(
        lambda a: guarantees.poison(FC, a(X), a(2.0 * Y[:, None] - 1), a(X), Y, THREAT, steps=1, ridge=1.0)
    ),
    "guarantees.radius": Case(
        lambda a: guarantees.radius(rg.fit(FC, a(X), a(ALPHA), kind="nngp", ridge=1.0), a(X)),
        np.float64,
        double_off=False,
        off_by=1e-3,
    ),
    "features.correlation": Case(
        lambda a: features.correlation(a(ALPHA)[:, None], a(ALPHA)).r.value, **NUMPY
    ),
    "features.exciting": Case(
        lambda a: features.exciting(_features(a), 0, THREAT, a(X), steps=1), double_off=False
    ),
    "features.holm": Case(lambda a: features.holm(a(np.array([0.25, 0.5]))), **NUMPY),
    "features.match": Case(lambda a: features.match(a(np.eye(4)), a(np.eye(4)), top=2)[1], **NUMPY),
    "features.outputs": Case(lambda a: features.outputs(_features(a), a(X)), np.float64, rtol=1e-3),
    "features.principal_angles": Case(
        lambda a: features.principal_angles(a(np.eye(4)), a(np.eye(4)), top=2), **NUMPY
    ),
    "kernels.gram": Case(lambda a: gram(FC, a(X))),
    "kernels.gram of a function": Case(lambda a: gram(lambda x, y, get: x @ y.T * np.float64(2), a(X))),
    "kernels.gram of two": Case(lambda a: gram(conv(1, width=2, pool=True), a(IMAGES), a(IMAGES[:1]))),
    "kernels.plan": Case(lambda a: np.dtype(plan(FC, a(X)).dtype).type(plan(FC, a(X)).tiles)),
    "networks.mlp": Case(_of(MLP, X)),
    "networks.small_cnn": Case(_of(CNN, IMAGES)),
    "networks.resnet": Case(_of(networks.resnet(2, blocks=(1,), width=2), IMAGES)),
    "networks.evaluation": Case(lambda a: networks.evaluation(MLP)(MLP.init(KEY, a(X)), a(X))),
    "networks.predict_fn": Case(lambda a: networks.predict_fn(MLP, MLP.init(KEY, a(X)))(a(X))),
    "networks.linearized": Case(_of(MLP, X, networks.linearized)),
    "normalization.input_statistics": Case(
        lambda a: normalization.input_statistics(a(IMAGES), "standardized")[0], np.float32
    ),
    "normalization.on_normalized_inputs": Case(_of(CNN, IMAGES, normalization.on_normalized_inputs)),
    "normalization.variance_ratio": Case(lambda a: normalization.variance_ratio(a(X), 2), np.float64),
    "regression.from_coefficients": Case(
        lambda a: from_coefficients(FC, a(X), a(ALPHA))(a(X)), double_off=False
    ),
    "regression.from_coefficients of float32": Case(
        lambda a: from_coefficients(FC, X.astype("f4"), ALPHA)(a(X)), gives=np.float32
    ),
    "regression.from_coefficients gradient": Case(
        lambda a: from_coefficients(FC, a(X), a(ALPHA)).gradient(a(X + 0.1)), double_off=False, rtol=1e-3
    ),
    "regression.coefficient_matrix": Case(
        lambda a: rg.coefficient_matrix(rg.fit(a(KERNEL), targets=a(ALPHA))), np.float64
    ),
    "regression.fit coefficients": Case(
        lambda a: rg.fit(a(KERNEL), targets=a(ALPHA)).coefficients, np.float64
    ),
    "regression.fit_logistic": Case(
        lambda a: rg.fit_logistic(a(KERNEL), targets=np.sign(ALPHA[:, :1]), times=[1.0])[0].coefficients,
        np.float64,
    ),
    "regression.contributions": Case(
        lambda a: rg.contributions(rg.fit(KERNEL, targets=ALPHA), a(KERNEL), modes=1), np.float64
    ),
    "regression.fit of inputs": Case(
        lambda a: rg.fit(FC, a(X), a(ALPHA)).coefficients, np.float64, rtol=1e-2
    ),
    "regression.fit": Case(lambda a: rg.fit(a(KERNEL), targets=a(ALPHA)).eigenvalues, np.float64),
    "regression.fit_robust": Case(
        lambda a: rg.fit_robust(a(KERNEL), targets=a(ALPHA)).coefficients, np.float64, rtol=1e-2
    ),
    "regression.fit from_kernel": Case(
        lambda a: rg.fit(KERNEL, targets=ALPHA).from_kernel(a(KERNEL)), np.float64
    ),
    "regression.fit cholesky": Case(
        lambda a: rg.fit(a(KERNEL), targets=a(ALPHA), solver="cholesky").coefficients, np.float64
    ),
    "regression.fit cholesky in float32": Case(
        lambda a: rg.fit(a(KERNEL), targets=a(ALPHA), solver=rg.Cholesky("float32")).coefficients, np.float64
    ),
    "regression.fit top": Case(
        lambda a: rg.fit(a(KERNEL), targets=a(ALPHA), solver=rg.Top(2, key=KEY)).eigenvalues, np.float64
    ),
    "statistics.accuracy": Case(lambda a: st.accuracy(a(ALPHA), Y).value, **NUMPY),
    "statistics.mean": Case(lambda a: st.mean(a(ALPHA[:, 0])).value, **NUMPY),
    "statistics.power_law": Case(lambda a: st.power_law(a(X[0]), a(X[1:3]))[0].value, **NUMPY),
    "training.gradient_descent": Case(
        lambda a: gradient_descent(_linear, a(W), a(X), a(ALPHA), a(X), learning_rate=0.1, record=[0, 2])
    ),
    "training.linear_features": Case(
        lambda a: linear_features(MLP, _variables(MLP, a, X), a(X), a(ALPHA), top=1)[0], np.float64
    ),
    "training.linear_solution": Case(
        lambda a: jax.tree.leaves(linear_solution(MLP, _variables(MLP, a, X), a(X), a(ALPHA), ridge=0.1)[0])[
            0
        ],
        rtol=1e-3,
    ),
    "training.train": Case(
        lambda a: networks.predict_fn(
            MLP,
            train(
                MLP, a(X), Y, epochs=2, optimizer=SGD, key=KEY, batch_size=2, x_test=a(X), labels_test=Y
            ).variables,
        )(a(X)),
    ),
    "training.train_to_residual": Case(
        lambda a: (
            train_to_residual(
                lambda w, x: x @ w, a(0 * W[:, :1]), a(X), a(X[:, :1]), learning_rate=0.2, residuals=(0.5,)
            )[0].params
        ),
        rtol=1e-3,
    ),
}
_START = jax.tree.map(np.asarray, FC.init(KEY, X))

# Names of public modules that are in no case, and why.
OTHERWISE = {
    "no arrays": """attacks.AttackWarning attacks.AutoAttack attacks.Loss attacks.STANDARD
        attacks.Smallest attacks.SanityChecks attacks.Threat attacks.Transfer
        attacks.free_training catastrophic.Detector catastrophic.Score catastrophic.alarmed
        catastrophic.gradalign catastrophic.noisy_fgsm data.Dataset data.load dynamics.KernelPath
        dynamics.Blocks dynamics.Collapse
        clocks.Learned features.Correlation features.Usefulness kernels.Plan kernels.keep_compiled
        networks.Model
        networks.from_apply networks.from_architecture
        networks.from_equinox networks.from_flax networks.from_torch
        normalization.BatchNorm normalization.Inputs normalization.Variance
        normalization.layer regression.Cholesky regression.KernelPredictor regression.Plan regression.plan
        regression.PrecisionWarning regression.Top statistics.Estimate
        training.Probe attacks.Replay training.Run training.Switch training.Trained
        architectures.Architecture""",
    "Python's numbers, read as float64": """catastrophic.alarm catastrophic.calibrate catastrophic.collapsed
        catastrophic.fallen catastrophic.onset catastrophic.score dynamics.angle dynamics.lazy_onset
        dynamics.remaining statistics.paired_shares""",
    "only what `fit` made, in float64": """regression.condition_number regression.learned_fraction
        regression.rounding_error regression.target_energy""",
    "labels or booleans": """attacks.robust_curve data.targets features.mean_accuracy features.usefulness
        guarantees.Flips guarantees.flips guarantees.flip_accuracy guarantees.shared_flip_accuracy
        statistics.proportion""",
    "radii, in float64": "guarantees.certified_accuracy guarantees.lipschitz",
    "networks of other sizes, or a part of a case above": """networks.cnn networks.resnet18
        networks.linearize_at normalization.normalize_inputs normalization.training_mode""",
    "one expression of activations, inside a network": "normalization.batch_statistics",
    "refused in float64 on some processors: see below": "architectures.myrtle",
}
MODULES = (
    "architectures attacks catastrophic clocks data dynamics empirical features guarantees kernels networks "
    "normalization regression statistics training"
)


def _public(name):
    module = importlib.import_module(f"companion.{name}")
    ours = [k for k, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__]
    return {f"{name}.{one}" for one in getattr(module, "__all__", [k for k in ours if not k.startswith("_")])}


def test_every_public_function_of_arrays_is_here():
    public = set().union(*map(_public, MODULES.split())) - {
        "architectures.Activation",
        "empirical.Reduce",
        "empirical.Implementation",
    }
    told = {name for names in OTHERWISE.values() for name in names.split()}
    assert public == {name.split()[0] for name in CASES} | told
    assert not told & {name.split()[0] for name in CASES}


@pytest.fixture
def jax_in():
    """Set JAX's precision; put back at the end."""
    before = jax.config.jax_enable_x64
    yield lambda wide: jax.config.update("jax_enable_x64", wide)
    jax.config.update("jax_enable_x64", before)


# Wide JAX or not, and the inputs: each after the other, in one process.
ORDER = [(False, "f4"), (False, "f8"), (False, "f4"), (True, "f8"), (True, "f4"), (False, "f8")]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::companion.attacks.AttackWarning")
@pytest.mark.usefixtures("as_users_run")
def test_the_inputs_decide(name, jax_in):
    case, found = CASES[name], {}
    for wide, kind in ORDER:
        jax_in(wide)
        if kind == "f8" and not wide and not case.double_off:
            continue
        value = case.call(lambda array, kind=kind: np.asarray(array).astype(kind))
        dtype = np.dtype(case.gives or kind)
        assert np.asarray(value).dtype == dtype, (wide, kind)
        found.setdefault(kind, []).append(np.asarray(value))
    for values in found.values():
        for value in values[1:]:
            np.testing.assert_allclose(value, values[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["f4"][0], found["f8"][0], rtol=case.rtol, atol=case.off_by)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.half != "any"])
@pytest.mark.usefixtures("as_users_run")
def test_half_precision_is_refused_by_name_or_exact(name):
    case = CASES[name]
    if case.half == "exact":
        narrow = case.call(lambda array: np.asarray(array).astype("f2"))
        exact = case.call(lambda array: np.asarray(array).astype("f2").astype("f8"))
        np.testing.assert_allclose(narrow, exact, rtol=1e-12)
        return
    with pytest.raises(TypeError, match="float16"):
        case.call(lambda array: np.asarray(array).astype("f2"))


@pytest.mark.parametrize("kind", ["uint8", "int32", "bfloat16", "complex64"])
@pytest.mark.parametrize(
    "call", [lambda x: gram(FC, x), FC.kernel, from_coefficients(FC, X.astype("f4"), ALPHA)]
)
@pytest.mark.usefixtures("as_users_run")
def test_other_types_are_refused_by_name(call, kind):
    with pytest.raises(TypeError, match=f"float32 or float64, got {kind}"):
        call(jnp.asarray(np.ones((4, 3)), kind))


@pytest.mark.parametrize(
    "call",
    [lambda x: from_coefficients(FC, x, ALPHA), lambda x: features.classifier(_features(lambda _: x), 2)(x)],
)
def test_a_float64_predictor_says_what_jax_needs(call):
    with pytest.raises(ValueError, match=r"x_train is float64.*jax_enable_x64"):
        call(X)


def test_myrtle_in_float64_is_refused_where_it_would_crash(monkeypatch, jax_in):
    from numpy._core._multiarray_umath import __cpu_features__ as features

    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setitem(features, "AVX512F", True)
    for wide in (False, True):
        jax_in(wide)
        with pytest.raises(ValueError, match=r"Myrtle-5 relu in float64 .*--xla_cpu_max_isa=AVX2"):
            myrtle(5).kernel(IMAGES)
        assert jax.eval_shape(myrtle(5).kernel, IMAGES.astype("f4")).dtype == np.float32
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX2")
    assert jax.eval_shape(myrtle(5).kernel, IMAGES).dtype == np.float64
