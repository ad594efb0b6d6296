"""Catastrophic overfitting: signals that warn of it, a detector that is scored, and remedies (chapter 7).

One-step adversarial training can end abruptly with a network that resists its own attack and no other
(Wong et al. 2020, arXiv 2001.03994). Li et al. (2023), arXiv 2312.02236, look for it in the spectrum of the
kernel and add anisotropic noise; we have not read how exactly, so `noisy_fgsm` is our construction.
"""

from companion.catastrophic._collapse import collapsed, fallen, onset
from companion.catastrophic._detection import (
    Detector,
    Score,
    alarm,
    alarmed,
    calibrate,
    score,
    spectrum_signals,
)
from companion.catastrophic._one_step import gradalign, gradient_directions, local_linearity, noisy_fgsm

__all__ = [
    "Detector",
    "Score",
    "alarm",
    "alarmed",
    "calibrate",
    "collapsed",
    "fallen",
    "gradalign",
    "gradient_directions",
    "local_linearity",
    "noisy_fgsm",
    "onset",
    "score",
    "spectrum_signals",
]
