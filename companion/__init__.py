"""Neural tangent kernels, what they learn and when, and what that says of adversarial examples.

One package (a folder, or a file) for each idea. Public is what its `__init__.py` exports; names with a
leading underscore are internal, and so are `_core` and `storage`, which serve the others. Import the packages
you need: `from companion import data, regression`. They stand in layers, here from the lowest to the highest;
each imports only from layers with smaller numbers (tests/test_floors.py reads every file for that). Examples
in docstrings start after `import jax, jax.numpy as jnp, numpy as np` and `from companion.… import *` of their
own package.

     0  _core            (internal) checks of arguments and labels, kept compilations, Ctrl-C, types, the ball
     1  storage          (internal) on disk: whole files, fingerprints, matrices, kernel paths, checkpoints
                         of training (_checkpoint)
     1  statistics       estimates with intervals
     2  data             digits, Fashion-MNIST, CIFAR-10: loaded, downloaded with checksums, parts, targets
     2  results          records: reads and writes them in book/results, whole (_record) or run by run (_runs)
     2  neural_tangents  that library, repaired for current JAX, loaded where one of its kernels is used
     3  architectures    fc, conv, myrtle: finite networks, and the recursions of their kernels (_dense for
                         fully connected ones, _conv for convolutional ones)
     3  kernels          Gram matrices in tiles, in memory or in a folder
     3  empirical        the tangent kernel of any finite network
     4  regression       fit(kernel, x, targets): the kernel predictor at any time, gradients, spectrum
     4  networks         Flax models; adapters from Flax, Equinox, PyTorch; first-order polynomials
     4  dynamics         how a kernel moves along training
     5  normalization    of inputs and of layers, with a say in whose statistics
     5  classifier       the kernel predictor as a scikit-learn classifier
     6  attacks          FGSM and PGD (_pgd), AutoAttack (_autoattack) and its parts (_apgd, _fab, _square),
                         attacks inside training (_inner), transfer, sanity checks (_sanity)
     7  training         train: standard, adversarial, linearized; what is looked at on the way (_records),
                         checkpoints in its `folder`; gradient descent in the lazy regime
     7  features         eigenfeatures: useful, robust, attacked one by one
     8  warm_start       schedules that save time in adversarial training
     8  catastrophic     catastrophic overfitting: one-step training (N-FGSM, GradAlign), signals, detectors
     8  guarantees       certified radii, labels that hold up a prediction, poisons, robust kernels
     8  clocks           a clock for every training example, learned against attacks (Adv-NTK)
     9  plots            what figures are made of: colors, bands, intervals, images
     9  interactive      its sliders
    10  experiments      makes the records: lists of runs, and the engine (_engine)
    10  figures          of the chapters: arrays in, a figure out
    11  scorecard        claims of papers, and the rules that judge them by the records
"""

from companion._core import weights_by_address

__version__ = "0.1.0"

weights_by_address.avoid()
