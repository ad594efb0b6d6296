"""Networks for adversarial training, in the standard parameterization: Flax modules behind one interface.

A `Model` is a pair of functions, `init` and `apply`, that keeps what is trained (`params`) apart from what
is only carried along (`state`, such as running statistics of batch normalization). `linearized` turns any
model into its first-order Taylor polynomial, which trains and is attacked as every other. Networks from
elsewhere come in by `from_apply`, `from_flax`, `from_equinox`, `from_architecture`, and by `from_torch` as
functions of inputs, to be attacked alone: see the page "Bring your own network". Networks in the NTK
parameterization, which have an infinite-width kernel, are in `companion.architectures`. Chapter 4 uses all.
"""

from companion.networks._adapters import from_apply, from_architecture
from companion.networks._equinox import from_equinox
from companion.networks._families import cnn, from_flax, mlp, resnet, resnet18, small_cnn
from companion.networks._layer import layer as layer
from companion.networks._linearized import linearize_at, linearized
from companion.networks._models import Model, evaluation, predict_fn
from companion.networks._norm import BatchNorm as BatchNorm
from companion.networks._norm import Norm as Norm
from companion.networks._norm import Variance as Variance
from companion.networks._norm import batch_statistics as batch_statistics
from companion.networks._torch import from_torch

# What is imported and not listed here is for other packages of companion.
__all__ = [
    "Model",
    "cnn",
    "evaluation",
    "from_apply",
    "from_architecture",
    "from_equinox",
    "from_flax",
    "from_torch",
    "linearize_at",
    "linearized",
    "mlp",
    "predict_fn",
    "resnet",
    "resnet18",
    "small_cnn",
]
