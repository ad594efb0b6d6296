"""Claims A5, A6, C1 and C2: the kernel under adversarial training (chapter 4)."""

import functools

from companion._core.words import Settings
from companion.scorecard._claim import Claim, Scale, datasets, each, radii, span
from companion.scorecard._kernel_paths import (
    LONG,
    concentrated,
    different,
    earlier,
    inherited,
    never_as_accurate,
    rapid,
    second_phase,
)


def scale(config: Settings) -> Scale:
    """Ours."""
    cases = config["cases"]
    steps = [one["epochs"] * (one["n_train"] // one["batch_size"]) for one in cases]
    return Scale(
        f"{each(cases, 'model', '{}')}, widths {each(cases, 'width')}",
        f"{datasets(config)}, {each(cases, 'n_train')} training images; kernel on "
        f"{each(cases, 'n_probe')} images",
        f"SGD, {each(cases, 'epochs')} epochs ({span(steps)} steps): {', '.join(config['regimes'])}",
        f"L∞ {radii(cases)}; PGD-{each(cases, 'steps')} in training",
        f"n beside each effect, of {config['seeds']} planned",
    )


_A = Scale(
    "convolutional network of six layers",
    "CIFAR-10, 50,000 images; kernel on 250 images, attacked ones",
    "SGD .01, constant, 200 epochs of batches of 250 (40,000 steps)",
    "L∞ 8/255, 20 steps of 2/255",
    "could not be read",
)
_C = Scale(
    "ResNet-18",
    "CIFAR-10 and CIFAR-100; kernel on 500 images",
    "SGD .1 with momentum, divided by 10 at epochs 100 and 150; second phase .01, 100 epochs",
    "L∞ 4/255, 20 steps; test 100 steps",
    "could not be read",
)


_claim = functools.partial(
    Claim,
    percent=False,
    chapter="04_kernel_dynamics",
    experiment="dynamics",
    scale=scale,
    profiles=("full", "long", "digits"),
)
_of_a = functools.partial(_claim, source="tsilivis2022", theirs=_A)
_of_c = functools.partial(_claim, source="loo2022", theirs=_C)

_LOWER = (
    "Of the kernel on attacked images, the authors', where it is recorded, else on clean ones: they are the "
    "same networks, and the other is shown only, as is the mass outside the top 20. Against: less than 10 % "
    "lower for certain."
)
CLAIMS = (
    _of_a(
        "A5",
        "The kernel becomes lazy much earlier",
        "its dynamics falls much earlier into the “lazy” regime",
        reading="*Lazy* is when the kernel has nearly stopped to turn. Without a threshold: the angle that "
        "is left to the last kernel, averaged over training, in units of the whole angle; ½ for a steady "
        "rotation.",
        rule=f"Effect: that share under PGD minus standard training, paired by seed. Against: less than .05 "
        f"earlier for certain. Runs shorter than {LONG:,} steps are shown and do not count: the authors' "
        "are 40,000, and a run that is cut short cannot show when a kernel comes to rest.",
        effect="share of the way left, PGD − standard (left of 0: earlier)",
        compare=earlier,
    ),
    _of_a(
        "A6a",
        "The kernel's mass gathers in its top eigenspaces, at equal accuracy",
        "manifests a much stronger form of the well known bias to prioritize learning features within the "
        "top eigenspaces of the kernel",
        reading="Fewer directions carry the kernel. Concentration changes along any training, and the "
        "two need not be equally fast, so one can compare at equal clean accuracy, or after equally many "
        "epochs (A6b). The abstract does not say which.",
        rule="Effect: effective rank of PGD training's last kernel relative to standard training's "
        "(geometric mean of their ratio, less 1) at the first record whose clean accuracy reaches what PGD "
        f"training ends at. {_LOWER}",
        effect="PGD relative to standard (left of 0: more concentrated)",
        percent=True,
        compare=concentrated,
        left_out=never_as_accurate,
    ),
    _of_a(
        "A6b",
        "And after equally many epochs",
        "manifests a much stronger form of the well known bias to prioritize learning features within the "
        "top eigenspaces of the kernel",
        reading="As A6a, but the last kernels of both are compared, whichever belongs to the more "
        "accurate network (the notes have both accuracies): how far each has come is part of this "
        "difference.",
        rule="Effect: effective rank of PGD training's last kernel relative to standard training's "
        f"(geometric mean of their ratio, less 1). {_LOWER}",
        effect="PGD relative to standard (left of 0: more concentrated)",
        percent=True,
        compare=functools.partial(concentrated, at_the_end=True),
    ),
    _of_c(
        "C1a",
        "Adversarial training arrives at a different kernel",
        "under adversarial training, the NTK rapidly converges to a different kernel (and feature map) "
        "than standard training",
        reading="*Different*: farther from standard training's kernel than another standard training, from "
        "the same start in another order of minibatches, is, and farther than training on random ±ε is. "
        "At the same epoch one training may only be further along the same road: that is not excluded here.",
        rule="Effect: angle between the last kernels of PGD and standard training, minus that between two "
        "standard trainings, and minus that of training on noise where it was run, in radians. Against: less "
        "than .05 for certain.",
        effect="angle beyond the control, radians",
        condition="measured after equally many epochs",
        compare=different,
    ),
    _of_c(
        "C1b",
        "And it does so rapidly",
        "the NTK rapidly converges",
        reading="*Rapidly* has no number in the abstract. Ours: the kernel is sooner near its end than one "
        "that turns steadily, within our length of training.",
        rule="Effect: share of the way left, averaged over PGD training, minus the ½ of a steady rotation. "
        "Against: less than .1 sooner for certain. With a decayed rate every kernel comes to rest, that of "
        f"standard training too: shown only. So are runs of less than {LONG:,} steps, as for A5. Standard "
        "training's own share stands beside it, shown: what it passes too is no finding on PGD.",
        effect="share of the way left − ½ (left of 0: rapid)",
        condition="against a steady rotation alone: standard training's kernel, shown beside it, may be as "
        "soon near its end, and PGD's may still turn there (chapter 4)",
        compare=rapid,
    ),
    _of_c(
        "C2a",
        "On that kernel even benign training is robust",
        "This new kernel provides adversarial robustness, even when non-robust training is performed on "
        "top of it",
        reading="The network's kernel is frozen at the end, and the linear model on it trained on clean "
        "images: for a few epochs, and in closed form on few images.",
        rule="Effect: robust accuracy on the kernel of PGD training minus on that of standard training, and "
        "minus on the kernel of the start, which no training has spoiled, or minus one in k for k classes "
        "where that keeps less; paired by seed, after equally many epochs; and, where the second phase is "
        "recorded step by step (profile *long*), where both reach the clean accuracy that the less accurate "
        "ends at. With one seed this is shown only, over its images: more seeds of that profile decide it. "
        "Minus on the kernel of training on random signs ±ε is shown: it asks whether an attack is needed. "
        "Against: less than .02 for certain.",
        effect="robust accuracy, PGD's kernel − another",
        condition="most of it after equally many epochs, where the two networks differ in accuracy",
        compare=inherited,
        profiles=("full", "long", "digits", "noise"),
    ),
    _of_c(
        "C2b",
        "Adversarial training on a frozen kernel",
        "adversarial training on top of a fixed kernel can yield a classifier with 76.1% robust accuracy "
        "under PGD attacks with ε = 4/255 on CIFAR-10",
        reading="A number for one network, ResNet-18, which needs a GPU. Here only whether an adversarial "
        "second phase adds to a benign one.",
        rule="Effect: robust accuracy after an adversarial minus after a benign second phase on PGD "
        "training's kernel. Shown only: it cannot test the number.",
        effect="robust accuracy, adversarial − benign second phase",
        compare=second_phase,
    ),
)
