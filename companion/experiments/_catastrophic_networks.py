"""Networks, attacks and remedies of the experiment of chapter 7."""

import jax
import numpy as np
import optax
from jax.tree_util import Partial

from companion import catastrophic, networks
from companion.attacks import Threat, training_attack
from companion.experiments._catastrophic_cases import Case
from companion.experiments._shared import images_of, sgd
from companion.training import Probe, Run, Switch, train


def model_of(case: Case, n_outputs: int) -> networks.Model:
    """The network of a case."""
    if case.blocks:
        return networks.resnet(n_outputs, blocks=case.blocks, width=case.width, norm=case.norm)
    return networks.small_cnn(n_outputs, width=case.width, norm=case.norm)


def optimizer_of(case: Case, method: str = "fgsm") -> optax.GradientTransformation:
    """SGD with momentum; of constant rate, or of one that falls to a tenth after half and three quarters."""
    steps = case.epochs * (case.n_train // case.batch_size)
    falls = (steps // 2, steps * 3 // 4) if method.endswith("decayed rate") else ()
    return sgd(case.rate, 0.9, falls)


def attack_of(case: Case, method: str) -> Partial:
    """The training attack of a method."""
    threat = Threat("linf", case.eps)
    if method == "pgd":
        return training_attack(threat, steps=case.steps, ramp=case.ramp)
    if method.endswith("noise"):
        kind = "gradient" if method.startswith("gradient") else "isotropic"
        return catastrophic.noisy_fgsm(threat, noise=kind, size=case.noise, top=case.rank, ramp=case.ramp)
    threat = Threat("linf", case.eps / 2) if method == "half ε" else threat
    if method.endswith("random start"):
        return training_attack(threat, steps=1, ramp=case.ramp)
    # Without noise it is FGSM, to the bit, and shares the compiled loop of isotropic noise.
    return catastrophic.noisy_fgsm(threat, size=0, ramp=case.ramp)


def penalty_of(case: Case, method: str) -> Partial | None:
    """What a method adds to the loss."""
    if method != "gradalign":
        return None
    return catastrophic.gradalign(Threat("linf", case.eps), weight=case.weight)


def trained(
    case: Case,
    seed: int,
    attack: Partial | Switch,
    penalty: Partial | None = None,
    *,
    method: str = "fgsm",
    progress: bool = False,
) -> Run:
    """One network with its kernels, and itself at every record."""
    images = images_of(case)
    model, key = model_of(case, len(images.classes)), jax.random.key(seed)
    return train(
        model,
        images.x_train,
        images.y_train,
        epochs=case.epochs,
        optimizer=optimizer_of(case, method),
        key=key,
        batch_size=case.batch_size,
        attack=attack,
        penalty=penalty,
        record=np.linspace(0, case.epochs, case.epochs * case.record + 1).tolist(),
        x_test=images.x_test[: case.n_watch],
        labels_test=images.y_test[: case.n_watch],
        test_attack=training_attack(Threat("linf", case.eps), steps=2 * case.steps),
        probe=Probe(images.x_test[-case.n_probe :], "trace"),
        keep=True,
        progress=progress,
    )
