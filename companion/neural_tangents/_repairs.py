"""What `companion` replaces inside neural-tangents 0.6.5, and why: private, the only place that patches it.

Each replacement is written on public JAX API where there is one. JAX itself is not touched: a file of the
library that must see other names gets an overlay of the module instead.
"""

import contextlib
import functools
import math
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import scipy.linalg
from jax import tree_util
from jax.interpreters import ad


def _overlay(module: types.ModuleType, **overrides: Any) -> types.ModuleType:
    """A module with `overrides` in front of `module`: lets one file of the library see other names."""
    overlay = types.ModuleType(module.__name__, f"{module.__name__}, as seen by neural-tangents")
    overlay.__dict__.update(overrides)
    overlay.__getattr__ = functools.partial(getattr, module)
    return overlay


def repair() -> None:
    """Replace what fails on current JAX and SciPy. A name that is not there stops the import."""
    from neural_tangents._src import empirical, predict

    eager = _overlay(jax.core, eval_context=jax.ensure_compile_time_eval)
    replacements = [
        (empirical, "_get_primals_out_and_pullback", functools.partial(_linear_pullback, empirical)),
        (empirical, "_eqn_vjp_fn", _transpose_equation),
        (empirical, "_get_flops", _flops),
        # Dropped by jax.interpreters.ad. Checks are off in JAX by default; names only serve profilers.
        (empirical, "ad", _overlay(ad, config=_NO_CHECKS, source_info_util=_NO_NAMES)),
        # Shapes with traced sizes, gone from JAX: None is the type of no abstract value.
        (empirical, "core", _overlay(jax.core, DShapedArray=None)),
        # Both deprecated on arrays that have no values.
        (empirical, "jnp", _overlay(jnp, dtype=jnp.result_type, size=lambda x: math.prod(jnp.shape(x)))),
        # A kernel with values is factored at once, even inside jit, as the library means it. Since JAX 0.4.36
        # eval_context leaves the trace for a traced kernel too, and its tracers leak.
        (predict, "jax", _overlay(jax, core=eager)),
        (predict, "sp", _overlay(predict.sp, linalg=_overlay(scipy.linalg, eigvalsh=_eigvalsh))),
    ]
    for module, name, value in replacements:
        if not hasattr(module, name):
            raise AttributeError(f"{module.__name__} has no {name} to repair")
        setattr(module, name, value)


_NO_CHECKS = types.SimpleNamespace(jax_enable_checks=False)
_NO_NAMES = types.SimpleNamespace(transform_name_stack=lambda _: contextlib.nullcontext())


def _linear_pullback(
    empirical: types.ModuleType, fn: Callable, mode: Any, j_rules: Any, s_rules: Any, fwd: Any, *primals: Any
) -> tuple[Any, Callable]:
    """For STRUCTURED_DERIVATIVES: `fn`'s outputs, and the library's backward pass over its linear jaxpr.

    The library got the jaxpr from `ad.linearize`, whose signature changed. Tracing the linear function that
    `jax.linearize` returns gives the same jaxpr.
    """
    leaves, treedef = tree_util.tree_flatten(primals)

    def flat_fn(*leaves: Any) -> Any:
        return fn(*tree_util.tree_unflatten(treedef, leaves))

    # The backward pass knows single primitives, no calls: with jit off, calls are written out.
    with jax.disable_jit():
        out, linear_fn = jax.linearize(flat_fn, *leaves)
        closed = jax.make_jaxpr(linear_fn)(*leaves)

    def pullback(*cotangents: Any) -> Any:
        result = empirical._backward_pass(
            closed.jaxpr,
            mode=mode,
            consts=closed.consts,
            primals_in=[ad.UndefinedPrimal(v.aval) for v in closed.jaxpr.invars],
            cotangents_in=tuple(tree_util.tree_leaves(cotangents)),
            _j_rules=j_rules,
            _s_rules=s_rules,
            _fwd=fwd,
        )
        return tree_util.tree_unflatten(treedef, result)

    return out, pullback


def _transpose_equation(eqn: Any, cotangent: Any, *invals: Any) -> Any:
    """For STRUCTURED_DERIVATIVES: cotangents of one linear equation's inputs, None for the known ones.

    The library called JAX's transposition rules directly; their calling convention changed. An `eqn` of None
    is the identity.
    """
    if eqn is None:
        return (cotangent,)
    linear = [i for i, v in enumerate(invals) if isinstance(v, ad.UndefinedPrimal)]
    avals = [invals[i].aval for i in linear]
    # The library may have cut a known input down to a shape; only the shape is used then.
    known = [jnp.zeros(v.shape, v.dtype) if isinstance(v, jax.core.ShapedArray) else v for v in invals]

    def apply(*xs: Any) -> Any:
        args = dict(enumerate(known)) | dict(zip(linear, xs, strict=True))
        out = eqn.primitive.bind(*args.values(), **eqn.params)
        return out[0] if eqn.primitive.multiple_results else out

    if isinstance(cotangent, ad.Zero):
        cotangents = [ad.Zero(a) for a in avals]
    else:
        cotangents = jax.linear_transpose(apply, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals))(
            cotangent
        )
    found = dict(zip(linear, cotangents, strict=True))
    return [found.get(i) for i in range(len(invals))]


def _flops(f: Callable, optimize: bool, *args: Any, **kwargs: Any) -> float:
    """For AUTO: `cost_analysis` gives a dict since JAX 0.5, a list before, and nothing on some devices."""
    lowered = jax.jit(f).lower(*args, **kwargs)
    cost = (lowered.compile() if optimize else lowered).cost_analysis() or {}
    return (cost[0] if isinstance(cost, list | tuple) else cost).get("flops", 0.0)


def _eigvalsh(a: Any, eigvals: Any = None) -> Any:
    """For max_learning_rate: SciPy 1.14 removed the name `eigvals` for `subset_by_index`."""
    return scipy.linalg.eigvalsh(a, subset_by_index=eigvals)
