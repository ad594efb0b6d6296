"""The figures of the chapters: arrays in, a figure out, one module or a few for each chapter.

Every function draws what it is given and computes nothing. It returns a matplotlib figure, or a player whose
slider runs through the arrays. All have one width, with panels one below the other, so that they read on a
phone as on a page; what a line, a band or a color means stands in the chapter's caption.
"""

from companion.figures import (
    attacks,
    catastrophic,
    certificates,
    detectors,
    early_kernels,
    features,
    frozen_kernels,
    kept_features,
    kernel_flow,
    kernel_paths,
    kernels_measured,
    normalization,
    overfitting,
    relatives,
    schedules,
    structured,
    training_attacks,
    transfer,
    wide_networks,
)

__all__ = [
    "attacks",
    "catastrophic",
    "certificates",
    "detectors",
    "early_kernels",
    "features",
    "frozen_kernels",
    "kept_features",
    "kernel_flow",
    "kernel_paths",
    "kernels_measured",
    "normalization",
    "overfitting",
    "relatives",
    "schedules",
    "structured",
    "training_attacks",
    "transfer",
    "wide_networks",
]
