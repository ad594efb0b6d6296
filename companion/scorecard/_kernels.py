"""Claims A1 to A4: attacks on kernels, their transfer, eigenfeatures (chapters 2 and 3)."""

import functools

from companion._core.words import Settings
from companion.experiments.scale import kernel_of
from companion.scorecard._claim import DATASETS, Claim, Scale, datasets, each, radii, radius, span
from companion.scorecard._kernel_effects import (
    attacked,
    attacked_whole,
    by_index,
    later,
    rows,
    shared,
    traded,
    transferred,
    widening,
)

_A_KERNELS = Scale(
    "closed-form kernels: fully connected, convolutional, Myrtle",
    "CIFAR-10, airplane and automobile, n = 2,000; 100 test images (their notebook)",
    "none: kernel regression",
    "L∞ 8/255, FGSM and PGD-10",
    "1",
)


def kernel_scale(config: Settings) -> Scale:
    """Ours, of attacks and of features on kernels."""
    cases = config["cases"]
    return Scale(
        f"closed-form kernels: {', '.join(dict.fromkeys(name for _, name in rows(config)))}",
        f"{datasets(config)}, n = {each(cases, 'n_train')}; {each(cases, 'n_test')} test images",
        "none: kernel regression",
        f"L∞ {span([radius(one.get('main', one.get('eps'))) for one in cases], '{}')}, FGSM and PGD",
        "1 (intervals over test images, or over features)",
    )


def whole_scale(config: Settings) -> Scale:
    """Ours, of many images."""
    runs = [config, *config["beside"]]
    names = dict.fromkeys(kernel_of(one["depth"], one.get("convolutions", 0)) for one in runs)
    sizes = each(runs, "n_train")
    return Scale(
        f"closed-form kernels: {', '.join(names)}",
        f"{datasets({'cases': runs})}, n = {sizes}; {each(runs, 'n_attacked')} test images attacked",
        "none: kernel regression",
        f"L∞ {radii(runs)}, FGSM and PGD-{config['steps']}",
        "1 (intervals over test images)",
    )


def transfer_scale(config: Settings) -> Scale:
    """Ours, of transfer."""
    plan = config["transfers"]
    return Scale(
        f"FC-{plan['depth']} networks f(θ) − f(θ₀), widths {plan['widths'][0]:,} to {plan['widths'][-1]:,}",
        f"{DATASETS[plan['dataset']]}, a pair, n = {plan['n_train']:,}; {plan['n_test']:,} test images",
        f"to residuals {span(plan['residuals'], '{:g}')}, momentum {plan['momentum']:g}",
        f"L∞ {radius(plan['eps'])}, PGD-10 on the kernel",
        f"{plan['seeds']} networks a width",
    )


def overlap_scale(config: Settings) -> Scale:
    """Ours, of what kernels share."""
    plan = config["overlap"]
    kernels = [name for name in plan["kernels"] if name != "random"]
    return Scale(
        f"closed-form kernels, empirical ones at initialization, and controls: {', '.join(kernels)}",
        f"{DATASETS[plan['dataset']]}, a pair, {plan['n_train']:,} images; no test images",
        "none: eigenvectors of kernels",
        "none",
        f"{plan['seeds']} (starts of the networks, random bases), on one set of images",
    )


_claim = functools.partial(Claim, source="tsilivis2022", theirs=_A_KERNELS, percent=False, scale=kernel_scale)
_attack = functools.partial(
    _claim, chapter="02_attacks_without_training", experiment="attacks", profiles=("full", "quick")
)
_feature = functools.partial(_claim, chapter="03_robust_features", experiment="features")

CLAIMS = (
    _attack(
        "A1",
        "Attacks on the kernel need no training",
        "We show how NTKs allow to generate adversarial examples in a “training-free” fashion",
        reading="One FGSM step on the kernel's own formula takes accuracy away that random signs of the "
        "same size leave. Their notebook: clean .81, FGSM .02, PGD .02.",
        rule="Effect: accuracy under random signs minus accuracy under FGSM, same ε. Against: less than "
        ".25 for certain.",
        effect="accuracy that FGSM takes beyond random signs",
        compare=attacked,
    ),
    _claim(
        "A1b",
        "And with many more images",
        "",
        reading="The abstract does not speak of it: the authors' kernels have 2,000 images. Whether one step "
        "is enough where the kernel has ten thousand and more, up to its whole data set, is our question.",
        rule="As A1.",
        effect="accuracy that FGSM takes beyond random signs",
        chapter="02_attacks_without_training",
        experiment="scale",
        profiles=("full", "paper"),
        compare=attacked_whole,
        scale=whole_scale,
    ),
    _attack(
        "A2a",
        "These perturbations fool networks",
        "they transfer to fool their finite-width neural net counterparts in the “lazy” regime",
        reading="On networks that were never attacked, the kernel's perturbations succeed more often than "
        "random signs. Whether laziness is *needed* is not tested at this scale.",
        rule="Effect: share of right images that the kernel's PGD flips, minus that of random signs, "
        "paired by seed. Against: less than .1 for certain. Shown only: the same of PGD on a linear model, "
        "ridge regression on pixels, and what the kernel has beyond that.",
        effect="success beyond random signs",
        compare=transferred,
        scale=transfer_scale,
        condition="beyond random signs; what ridge regression on pixels does stands beside it, where it is "
        "recorded",
    ),
    _attack(
        "A2b",
        "The wider the network, the more",
        "",
        reading="The abstract does not say it; a figure of the paper, whose numbers could not be read, is "
        "read so by us.",
        rule="Effect: slope, over doublings of the width, of success as a share of white-box PGD's. "
        "Against: less than .005 a doubling for certain.",
        effect="share of white-box success added by doubling the width",
        compare=widening,
        scale=transfer_scale,
    ),
    _feature(
        "A3a",
        "The top eigenfeatures are the robust ones",
        "robust features tend to correspond to the largest eigenvalues of the model",
        reading="Robustness of a feature, attacked by itself, falls with its index. Their notebook: .50 "
        ".49 .47 .44 .33 .33 for features 0 to 5, .25 for 10, .07 for 25, 0 for 1500.",
        rule="Effect: rank correlation of robustness with the index, over the first 200 features that were "
        "attacked (beyond them robustness is 0 up to noise). Neighbors are no independent draws, so the "
        "interval is a bootstrap over blocks of √m neighbors, of m features; how many blocks is said. "
        "Against: weaker than −.2 for certain.",
        effect="rank correlation of robustness and index",
        condition="measured by their order; that a feature keeps more under attack than naming one class is "
        "not asked (the numbers say how many do)",
        profiles=("full", "whole"),
        compare=by_index,
    ),
    _feature(
        "A3b",
        "Later features are useful and not robust",
        "Our framework allows us to identify and visualize non-robust yet useful features",
        reading="Their abstract names no number; that they are many is our reading of their figure. Two "
        "tests: the sum of all features from 100 on, and how many of them are useful one by one.",
        rule="Of the sum: clean accuracy above the largest class's share (against: less than .02 for "
        "certain) and what PGD takes (against: less than .1; open where the sum is not certainly useful). "
        "One by one: more than 1 % useful, by correlation with the labels after Holm's correction. A "
        "feature that fails this test may be useful all the same, and the test is the stricter the more "
        "features there are: few that pass leave it open, and do not speak against. Shown only: the same "
        "of principal components, as features of ridge regression on pixels.",
        effect="accuracy, or share of features",
        compare=later,
    ),
    _feature(
        "A3c",
        "Architectures share their features",
        "such features are surprisingly consistent across architectures",
        reading="The top ten eigenvectors on the same images span nearly the same space. Whether that is "
        "*surprising* is another question: the eigenvectors of two kernels that are no networks', the linear "
        "(PCA) and a Gaussian one, stand beside them and do not enter the verdict.",
        rule="Effect: mean cos² of the principal angles to FC-1's top ten, minus that of random bases. "
        "Against: less than .2 for certain. Shown only: the linear and the Gaussian kernel.",
        effect="mean cos² beyond random bases",
        compare=shared,
        scale=overlap_scale,
        condition="beyond random bases; the linear kernel's eigenvectors, which know no network, are shared "
        "too",
    ),
    _feature(
        "A4",
        "Fewer features: more robust",
        "the reliance on both for standard classification and the robustness-accuracy trade-off",
        reading="Keeping the top 20 features, or stopping at time 100/λ₁, with λ₁ the kernel's largest "
        "eigenvalue, wins robust accuracy. What it loses "
        "in clean accuracy is shown, and does not enter the verdict.",
        rule="Effect: PGD accuracy of the part minus that of the whole, or minus the largest class's share "
        "where this is larger: naming one class resists every attack. Against: less than .05 for certain.",
        effect="accuracy beyond the whole, and beyond one class",
        profiles=("full", "whole"),
        compare=traded,
    ),
)
