"""Experiments at toy size, through the same code and command line as the recorded ones."""

import dataclasses

import numpy as np
import pytest

from companion import data, regression, statistics
from companion.architectures import conv, fc
from companion.attacks import Threat, fgsm
from companion.experiments import attacks, convergence, scale
from companion.kernels import gram

TINY = convergence.Config(
    widths=(16, 256),
    seeds=2,
    n_images=10,
    trained_widths=(16, 256),
    trained_seeds=2,
    n_train=20,
    n_test=20,
    record=(0, 5, 20),
)


@pytest.fixture(scope="module")
def measured():
    return convergence.run(TINY)


def test_convergence_measures_every_width_and_seed(measured):
    shapes = {name: array.shape for name, array in measured.items()}
    assert shapes == {
        "widths": (2,),
        "kernel_error": (2, 2),
        "kernel": (10, 10),
        "kernels": (2, 10, 10),
        "labels": (10,),
        "trained_widths": (2,),
        "times": (3,),
        "deviation": (2, 2, 3),
        "frozen": (2, 2, 3),
        "moved": (2, 2, 3),
        "size": (3,),
    }
    assert (np.diff(measured["labels"]) >= 0).all()


def test_convergence_reports_the_distance_of_the_kernels_it_returns(measured):
    exact = measured["kernel"]
    distance = np.linalg.norm(measured["kernels"] - exact, axis=(1, 2)) / np.linalg.norm(exact)
    np.testing.assert_allclose(measured["kernel_error"][0], distance, rtol=1e-5)
    assert measured["kernel_error"][:, 1].mean() < measured["kernel_error"][:, 0].mean()


def test_convergence_starts_at_zero_and_wide_networks_stay_closer(measured):
    assert not measured["deviation"][:, :, 0].any()
    assert not measured["size"][0]
    assert (measured["deviation"][:, 1, -1] < measured["deviation"][:, 0, -1]).all()


def test_convergence_splits_the_distance_at_the_linearized_network(measured):
    whole, parts = measured["deviation"], (measured["frozen"], measured["moved"])
    assert (whole <= sum(parts) + 1e-6).all()
    assert (whole >= np.abs(parts[0] - parts[1]) - 1e-6).all()
    # One gradient step is the linearization's first step, up to the curvature of the flow in time.
    one = dataclasses.replace(TINY, record=(0, 1), step=1e-3, trained_widths=(64,))
    early = convergence.run(one)
    assert (early["moved"][:, :, 1] < 0.01 * early["size"][1]).all()


def test_every_profile_has_three_seeds_or_more():
    for config in convergence.PROFILES.values():
        assert min(config.seeds, config.trained_seeds) >= 3
        assert dataclasses.asdict(config)["record"][0] == 0


def test_scale_times_every_stage_and_predicts():
    measured = scale.run(scale.Config(n_train=300, n_test=200, n_attacked=8, eps=0.1, steps=2, auto=()))
    stages = {"gram", "solve", "cross", "predict", "product", "cubes"}
    assert set(measured) - stages == {"accuracy", "attack_seconds", "attacked", "peak", "residual"}
    measured = {name: value[0] for name, value in measured.items()}
    assert all(measured[name] > 0 for name in stages)
    assert 0 < measured["residual"] < 1e-9
    value, low, high = measured["accuracy"]
    assert 0.75 < low < value < high < 1  # 300 digits of ten classes
    clean, noisy, fast, slow = measured["attacked"][:, 0]
    assert clean >= noisy >= fast >= slow


def test_scale_predicts_what_regression_does():
    config = scale.Config(n_train=100, n_test=60, depth=1)
    digits = data.load("mnist5k", n_train=100, n_test=60)
    kernel = gram(fc(1), digits.x_train)
    fitted = regression.fit(
        kernel, targets=data.targets(digits.y_train, 10), ridge=config.ridge * float(np.diag(kernel).mean())
    )
    outputs = fitted.from_kernel(gram(fc(1), digits.x_test, digits.x_train))
    expected = np.float32(statistics.accuracy(outputs, digits.y_test).value)
    assert scale.run(config)["accuracy"][0, 0] == expected


def at_toy_size(config):
    """A run of scale with digits and no attacks."""
    options = {"dataset": "mnist5k", "n_train": 50, "n_test": 20, "n_attacked": 0}
    classes = config.classes and ("4", "9")
    beside = tuple(map(at_toy_size, config.beside))
    return dataclasses.replace(config, classes=classes, beside=beside, **options)


@pytest.mark.parametrize("profile", ["full", "paper"])
def test_scale_runs_at_any_size(profile):
    config = at_toy_size(scale.PROFILES[profile])
    chosen = dataclasses.replace(config, beside=config.beside[:2])  # a pair, and another depth
    assert scale.run(chosen)["accuracy"].shape == (1 + len(chosen.beside), 3)


def test_scale_finds_the_run_that_was_made_before_others_stood_beside_it():
    config = scale.PROFILES["paper"]
    names = [scale.EXPERIMENT.key(job) for job in scale.jobs(config)]
    assert names[0] == "cifar10, 50,000 images, seed 0, d88c68662949"
    assert names[-1].startswith("cifar10, 10,000 images, Conv-1, seed 0")
    assert len(set(names)) == len(names) == 7
    assert scale.recorded("paper").arrays["residual"][0] < 1e-9


def test_scale_has_convolutions():
    config = dataclasses.replace(at_toy_size(scale.PROFILES["paper"].beside[-1]), n_attacked=5, eps=0.1)
    kind, d = conv(1), data.load("mnist5k", n_train=50, n_test=20)
    matrix = gram(kind, d.x_train)
    ridge = config.ridge * float(np.diag(matrix).mean())
    f = regression.fit(kind, d.x_train, data.targets(d.y_train, 10), k_train_train=matrix, ridge=ridge)
    found = scale.run(config)
    assert found["accuracy"][0, 0] == np.float32(np.mean(np.argmax(f(d.x_test), 1) == d.y_test))
    x, y = d.x_test[:5], d.y_test[:5]
    moved = fgsm(f, x, y, Threat("linf", 0.1))
    assert found["attacked"][0, 2, 0] == np.float32(np.mean(np.argmax(f(moved), 1) == y))


def tiny_attacks(config):
    """A configuration of the attacks experiment at toy size, with its kinds of cases and kernels kept."""
    cases = tuple(
        dataclasses.replace(
            case,
            dataset="mnist5k",
            classes=case.classes and (4, 9),
            n_train=20 + i,  # no two are the same run
            n_test=6,
            architectures=case.architectures[:1],
            eps=case.eps[-2:],
        )
        for i, case in enumerate(config.cases)
        if "Myrtle" not in case.architectures[0]
    )
    transfers = dataclasses.replace(
        config.transfers,
        dataset="mnist5k",
        classes=(4, 9),
        n_train=20,
        n_test=10,
        widths=(8, 32),
        seeds=2,
        residuals=(0.7, 0.5),
        scales=(),
        scale_width=16,
        step=0.1,
        momentum=0.9,
        moved=0,
    )
    variants = (
        dataclasses.replace(transfers, widths=(), scales=(0.3, 1.0, 3.0), moved=8),
        dataclasses.replace(transfers, widths=(8,), center=False),
    )
    small = {"dataset": "mnist5k", "classes": (4, 9), "n_train": 20, "n_test": 6}
    queries = config.queries and 5
    return dataclasses.replace(
        config,
        cases=cases[:4],
        transfers=transfers,
        variants=variants,
        paths=(attacks.Path(**small, architectures=("FC-1",), eps=0.1, times=2, steps=2, seeds=2),),
        evaluations=(),
        kinds=(attacks.Kinds(**small, width=16, channels=(2, 2), updates=3, residual=0.7, seeds=1),),
        steps=(2, 3),
        times=2,
        restarts=2,
        queries=queries,
        n_square=4,
    )


@pytest.mark.matrix
@pytest.mark.usefixtures("unoptimized")
@pytest.mark.parametrize("profile", ["paper"])  # chapter 2 runs "quick" whole
def test_the_attacks_run_at_any_size(profile):
    config = tiny_attacks(attacks.PROFILES[profile])
    measured, r = attacks.run(config), len(attacks.rows(config))
    shapes = {name: array.shape for name, array in measured.items()}
    assert shapes == {
        "clean": (r, 3),
        "accuracy": (r, 4, 2, 3),
        "along": (r, 2, 2, 3),
        "stronger": (r, 2, 3),
        "geometry": (r, 5),
        "times": (2,),
        "success": (2, 2, 2, 3),
        "right": (2, 2, 2),
        "net_clean": (2, 2, 2),
        "cosine": (2, 2, 2),
        # two variants: scales with the kernel's motion, and a network that is not centered
        **{
            f"variant_{prefix}{name}": (2, 2, n, 2, *((3,) if name == "success" else ()))
            for prefix, n in (("", 1), ("scaled_", 3))
            for name in ("success", "right", "net_clean", "cosine")
        },
        "variant_scaled_motion": (2, 2, 3, 2),
        "path": (1, 2, 2, 2),
        "path_geometry": (1, 2, 2, 3),
        "path_kernel": (1, 2, 2),
        "kinds_success": (1, 1, 3, 5),
        "kinds_clean": (1, 1, 3),
        "kinds_cosine": (1, 1, 3, 2),
        "kinds_kernels": (1, 1, 2),
    }
    # Variant 0 has scales and no widths, variant 1 the other way about.
    assert np.isfinite(measured["variant_scaled_motion"][0]).all()
    assert np.isnan(measured["variant_scaled_success"][1]).all()
    assert np.isfinite(measured["variant_success"][1]).all()
    # The larger the scale, the less its kernel moves.
    assert (np.diff(measured["variant_scaled_motion"][0, :, :, -1], axis=1) < 0).all()
    assert np.isfinite(measured["geometry"][0]).all()
    assert np.isnan(measured["stronger"][0, 1, 0]) == (config.queries == 0)
    # More steps are never weaker, and no attack beats the clean accuracy from above.
    assert (measured["accuracy"][:, 3, :, 0] <= measured["accuracy"][:, 2, :, 0] + 1e-12).all()
    assert (measured["accuracy"][:, 2, :, 0] <= measured["clean"][:, None, 0]).all()


def test_attacks_of_every_profile_share_their_number_of_sizes_and_have_three_seeds():
    for config in attacks.PROFILES.values():
        assert len({len(case.eps) for case in config.cases}) == 1
        assert all(case.main in case.eps for case in config.cases)
        assert all(to.seeds >= 3 for to in (config.transfers, *config.variants, *config.kinds, *config.paths))
    assert attacks.architecture("Myrtle-5").name == "Myrtle-5 relu"
