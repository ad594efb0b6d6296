"""Data sets for the book: real digits that need no download, and the official sets where they are wanted.

`load("mnist5k")` works on any machine at once. `mnist`, `fashion_mnist` and `cifar10` are read from the
folder that the environment variable NTK_DATA_HOME names, else from the user's cache, else downloaded once.
NTK_DATA_HOME may hold `<name>.npz` (x_train, y_train, x_test, y_test as uint8; a text `source` for captions
is welcome), or the official files, in `<name>/` or directly. A set that cannot be had is an error, never
another set in silence.
"""

from companion.data._load import Dataset, load, targets

__all__ = [
    "Dataset",
    "load",
    "targets",
]
