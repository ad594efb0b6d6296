"""Adversarial examples for any differentiable function: a kernel predictor, one of its features, a network.

An attack takes `predict`, a function of inputs (m, ...) with outputs (m, k), and returns attacked inputs as a
NumPy array; it never sees a training loop. One output predicts by its sign (label 1 where it is positive),
more by the largest, as everywhere in `companion`. Perturbations are measured in pixel units, [0, 1], whatever
`predict` does to its inputs. Chapter 2 uses all of it.

To attack a network of yours, write it as `Partial(apply, params)` (`jax.tree_util.Partial`): its compiled
attack is then kept from call to call. Networks of other frameworks take the arrays: see `transfer`.
"""

from companion.attacks._accuracy import robust_accuracy, two_logits
from companion.attacks._apgd import apgd
from companion.attacks._autoattack import STANDARD, AutoAttack, autoattack
from companion.attacks._controls import one_step, random_sign, random_uniform
from companion.attacks._curve import robust_curve
from companion.attacks._fab import Smallest, fab
from companion.attacks._inner import Replay, free_training, training_attack
from companion.attacks._inner import bounds_of as bounds_of
from companion.attacks._inner import grown as grown
from companion.attacks._losses import Loss, cross_entropy, dlr, margin, squared, targeted_dlr
from companion.attacks._losses import loss_named as loss_named
from companion.attacks._pgd import fgsm, pgd
from companion.attacks._predict import as_partial as as_partial
from companion.attacks._predict import checked_inputs as checked_inputs
from companion.attacks._predict import outputs_of as outputs_of
from companion.attacks._sanity import AttackWarning, SanityChecks, sanity_checks
from companion.attacks._square import square
from companion.attacks._threat import Threat
from companion.attacks._threat import checked_threat as checked_threat
from companion.attacks._transfer import Transfer, gradient_cosine, transfer

# What is imported and not listed here is for other packages of companion.
__all__ = [
    "STANDARD",
    "AttackWarning",
    "AutoAttack",
    "Loss",
    "Replay",
    "SanityChecks",
    "Smallest",
    "Threat",
    "Transfer",
    "apgd",
    "autoattack",
    "cross_entropy",
    "dlr",
    "fab",
    "fgsm",
    "free_training",
    "gradient_cosine",
    "margin",
    "one_step",
    "pgd",
    "random_sign",
    "random_uniform",
    "robust_accuracy",
    "robust_curve",
    "sanity_checks",
    "square",
    "squared",
    "targeted_dlr",
    "training_attack",
    "transfer",
    "two_logits",
]
