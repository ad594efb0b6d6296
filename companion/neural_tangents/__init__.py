"""The library neural-tangents 0.6.5 on current JAX, without TensorFlow.

`nt` is the library and `stax` its layers; everything else in this package takes them from here::

    from companion.neural_tangents import nt, stax

The release is of December 2023. It does not import on JAX newer than 0.6, and its `experimental` part needs
TensorFlow. Importing this module lends JAX the names it lost, only while the library is being imported,
leaves `experimental` out, and replaces a few of the library's private helpers. JAX itself is unchanged
afterwards. `_load.py` beside this file does the import; `_repairs.py` says why each repair is there. Install
the library with::

    pip install --no-deps neural-tangents==0.6.5

As an ordinary dependency it would bring TensorFlow and some thirty packages. `pip check` therefore reports
tensorflow-datasets and tf2jax as missing; nothing here needs them.

Works on JAX 0.7.2, 0.10.2, 0.11.2 and 0.12.x: analytic kernels, `nt.batch`, `nt.predict`, Monte Carlo,
`nt.linearize`, and all four implementations of the empirical kernel. `make compat` measures it.

Good to know:
    * Choose the empirical kernel's `implementation`: the default is a slow one, and AUTO prints to stdout.
    * `nt.predict.gradient_descent_mse_ensemble` keeps what it computes at its first call. If that call is
      inside `jax.jit`, a later call outside fails with UnexpectedTracerError: call it outside first.
    * In float32 the diagonal of a ReLU kernel is off by up to 4e-4 (arccos near 1), which matters for a
      small ridge.
    * Input gradients are finite at x1 = x2, x = 0 and x = -x. At x1 = x2 the kernel has a cone in x1, and
      the value returned there is the gradient along x1 plus zero across it.

Likely to break next, with a new JAX:
    * `ad.UndefinedPrimal`, `ad.Zero`, `ad.add_tangents`, and the fields of jaxprs: STRUCTURED_DERIVATIVES
      walks a jaxpr with them. JACOBIAN_CONTRACTION needs none of these and stays.
    * names that the library still takes from `jax.core` (`ShapedArray`, `AbstractValue`, `Value`), and
      `jax.extend.linear_util`: the import would fail, and the error says which.
    * `jax.pmap`, which `nt.batch` uses where there are several devices.
    * `jax.ensure_compile_time_eval` and `jax.core.eval_context`, for `nt.predict` and attention layers.

Example:
    >>> import numpy as np
    >>> _, _, kernel_fn = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
    >>> kernel_fn(np.ones((2, 3)), None, "ntk").shape
    (2, 2)
"""

from companion.neural_tangents import _load

__all__ = ["nt", "stax"]

nt = _load.load()
stax = nt.stax
