"""A kernel of the user's, compiled once for a call that evaluates it many times."""

import functools

from companion._core.compile import Kind, is_kept, keep_compiled, kernel_function
from companion._core.types import Kernel


def compiled_once(kernel: Kernel, kind: Kind) -> Kernel:
    """The kernel itself, or, of a function that was not marked, one whose code is kept for this call."""
    function = kernel_function(kernel, kind)
    if is_kept(function):
        return kernel
    return keep_compiled(functools.wraps(function)(lambda *arguments: function(*arguments)))
