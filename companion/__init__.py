"""Neural tangent kernels, what they learn and when: the package behind the book.

Modules, lowest floor first: `neural_tangents`, `data`, `results`, `statistics`; `architectures`, `kernels`,
`empirical`; `regression`, `training`; `experiments`; and, for the book's pages, `plots` and `interactive`.
Import the ones you need: `from companion import data, kernels, regression`.
"""

from companion._core import weights_by_address

__version__ = "0.1.0"

weights_by_address.avoid()
