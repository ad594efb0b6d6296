"""Convolutions whose weight gradient stays a matrix product for each example.

JAX maps the weight gradient over examples to one convolution with as many groups as examples, which runs
several times slower than the same products of patches and output gradients.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jax.typing import ArrayLike
from jaxtyping import PyTree

from companion._core.types import Array
from companion._core.words import Function

Value = ArrayLike  # of a variable: an array, or a number that was written into the code


def with_patches(function: Function, *examples: PyTree) -> Function:
    """The same function of the same arguments, its ordinary convolutions replaced by ours."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*examples)
    treedef = jax.tree.structure(shape)

    def replaced(*args: PyTree) -> PyTree:
        return jax.tree.unflatten(treedef, _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args)))

    return replaced


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Value], args: Sequence[Value]) -> list[Value]:
    """Run a jaxpr equation by equation, jitted calls written out."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(variable: Var | Literal) -> Value:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        inputs, name, params = [read(v) for v in equation.invars], equation.primitive.name, equation.params
        if name in ("jit", "pjit"):
            out = _evaluate(params["jaxpr"].jaxpr, params["jaxpr"].consts, inputs)
        elif (
            name == "conv_general_dilated"
            and params["feature_group_count"] == 1 == params["batch_group_count"]
        ):
            out = [_convolution(tuple(params.items()), *inputs)]
        else:
            out = _alone(jaxpr, equation)(values)
        values.update(zip(equation.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _alone(jaxpr: Jaxpr, equation: JaxprEqn) -> Callable[[dict[Var, Value]], list[Value]]:
    """One equation as a function of its inputs, custom derivatives kept."""
    variables = list(dict.fromkeys(v for v in equation.invars if not isinstance(v, Literal)))
    single = jaxpr.replace(
        constvars=[],
        invars=variables,
        outvars=equation.outvars,
        eqns=[equation],
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )

    def function(values: dict[Var, Value]) -> list[Value]:
        return jaxpr_as_fun(ClosedJaxpr(single, ()))(*(values[v] for v in variables))

    return function


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolution(params: tuple, x: Array, w: Array) -> Array:
    return lax.conv_general_dilated_p.bind(x, w, **dict(params))


def _forward(params: tuple, x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(params, x, w), (x, w)


def _backward(params: tuple, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, w = saved
    p = dict(params)
    (dx,) = jax.linear_transpose(lambda x: lax.conv_general_dilated_p.bind(x, w, **p), x)(gradient)
    numbers = p["dimension_numbers"]
    kernel = tuple(w.shape[d] for d in numbers.rhs_spec[2:])
    patches = lax.conv_general_dilated_patches(
        x, kernel, p["window_strides"], p["padding"], p["lhs_dilation"], p["rhs_dilation"], numbers
    )
    channel = numbers.out_spec[1]
    columns, gradient = (
        jnp.moveaxis(a, channel, -1).reshape(-1, a.shape[channel]) for a in (patches, gradient)
    )
    # Patches are ordered (input channel, *window); rhs_spec starts with the output and input channels.
    product = (columns.T @ gradient).reshape(x.shape[numbers.lhs_spec[1]], *kernel, -1)
    dw = jnp.moveaxis(product, (-1, *range(product.ndim - 1)), numbers.rhs_spec)
    return dx, dw


_convolution.defvjp(_forward, _backward)
