"""Neural tangent kernels, what they learn and when, and what that says of adversarial examples.

One folder (or file) for each idea, on floors of which each knows only those below; a folder's `__init__.py`
is its face, and says what is in it. Import the rooms you need: `from companion import data, regression`.

    data             digits, Fashion-MNIST, CIFAR-10: loaded, downloaded with checksums, parts, targets
    architectures    fc, conv, myrtle: finite networks, and the recursions of their kernels (_dense, _conv)
    networks         Flax models for adversarial training, adapters, first-order polynomials of networks
    kernels          Gram matrices in tiles, in memory or in a folder
    empirical        the tangent kernel of any finite network
    regression       fit(kernel, x, targets): the kernel predictor at any time, its gradients, its spectrum
    classifier       that predictor as a scikit-learn classifier
    attacks          FGSM and PGD (_pgd), AutoAttack and its parts (_apgd, _fab, _square), transfer, checks
    features         eigenfeatures: useful, robust, attacked one by one
    dynamics         how a kernel moves along training
    training         train: standard, adversarial, linearized; gradient descent in the lazy regime
    normalization    of inputs and of layers, with a say in whose statistics
    warm_start       schedules that save time; `catastrophic`: signals of catastrophic overfitting
    guarantees       certified radii, labels that hold up a prediction, poisons, robust kernels
    statistics       estimates with intervals
    results          recorded results and where they come from, runs that add up
    experiments      what makes them: lists of runs, and the engine; `scorecard`: claims and their verdicts
    storage          what is kept on disk: whole files, fingerprints, matrices, paths, checkpoints
    neural_tangents  that library, repaired for current JAX, loaded where one of its kernels is used
    plots            figures of the book; `interactive`: its sliders
    _core            checks of arguments, compiled functions that are kept, Ctrl-C, the ball of a threat
"""

from companion._core import weights_by_address

__version__ = "0.1.0"

weights_by_address.avoid()
