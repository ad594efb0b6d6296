"""Training of finite networks: standard, adversarial and linearized, and in the lazy regime.

`train` runs over minibatches of any `networks.Model` with an attack in the loop, and records accuracies and
kernels on the way; with `networks.linearized` it is training of a linearized network, whose end
`linear_solution` finds at once (chapter 4). On the
squared loss, as kernel regression describes it, `gradient_descent` records outputs at given steps, to hold
them against f_t (chapter 1), and `train_to_residual` gives the networks themselves, to attack them (chapter
2).
"""

from companion.training._descent import gradient_descent
from companion.training._linear import linear_features, linear_solution
from companion.training._records import Probe, Run
from companion.training._residual import Trained, train_to_residual
from companion.training._run import train
from companion.training._step import Switch

__all__ = [
    "Probe",
    "Run",
    "Switch",
    "Trained",
    "gradient_descent",
    "linear_features",
    "linear_solution",
    "train",
    "train_to_residual",
]
