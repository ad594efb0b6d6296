"""Three ways to compute a block of an empirical kernel; `companion.empirical` chooses and combines them.

Each is a pair: `prepare(parts, side)` computes what depends on one block of examples only, and is kept while
that block is needed; `contract(parts, side1, side2)` makes kernel entries of two of these. `parts` are
(chosen, rest): the parameters of the derivative and all others. A side is (x, rows): the outputs f(x) where
`rows` is None, and f(x)[rows] where the network must see all of x at once.
"""

import functools
from collections.abc import Callable
from importlib.util import find_spec

import jax
import jax.numpy as jnp

from companion._core.types import Array, Params
from companion.empirical._conv import with_patches

Leaves = list[Array]
Parts = tuple[Leaves, Leaves]
Side = tuple[Array, Array | None]
Prepared = Leaves | Side
Method = tuple[Callable[[Parts, Side], Leaves] | None, Callable[[Parts, Prepared, Prepared], Array]]
Network = Callable[[Leaves, Leaves, Array], Array]  # apply(chosen, rest, x)


def choose(
    implementation: str, params: Params, k: int, only: tuple[int, ...] | None, *, batch_statistics: bool
) -> list[tuple[str, tuple[int, ...], int | None]]:
    """Jobs that add up to the kernel: an implementation, numbers of parameter leaves, examples in a block.

    The rule of "auto" is in the docstring of `empirical_ntk_fn`; benchmarks/empirical.py measures it.
    """
    axes = [jnp.ndim(leaf) for leaf in jax.tree.leaves(params)]
    if not axes:
        raise ValueError("params must hold at least one array, got none")
    every = tuple(range(len(axes))) if only is None else _leaves(only, len(axes))
    if implementation == "auto" and (batch_statistics or not find_spec("neural_tangents")):
        named = {"jacobian": every}
    elif implementation == "auto":
        rows = tuple(i for i in every if axes[i] != 2) if max(axes[i] for i in every) > 2 else ()
        named = {"jacobian": rows, "structured": tuple(i for i in every if i not in rows)}
    else:
        named = {implementation: every}
    # Rows of a Jacobian: enough for an efficient product of matrices. Structured: all that memory holds.
    most = {"jacobian": max(32, -(-256 // k)), "vector_products": max(1, 64 // k), "structured": None}
    return [(name, leaves, most[name]) for name, leaves in named.items() if leaves]


def _leaves(only: tuple[int, ...], n: int) -> tuple[int, ...]:
    """Numbers of leaves, counted from the end where they are negative, in their order; or an error."""
    if not all(-n <= i < n for i in only):
        raise ValueError(f"only must name leaves of params, of which there are {n}, got {only}")
    return tuple(sorted({i % n for i in only}))


def method(name: str, apply: Network, reduce: str) -> Method:
    """`prepare` (None where there is nothing to keep) and `contract` of an implementation.

    Args:
        name: "jacobian", "vector_products" or "structured".
        apply: the network, `apply(chosen, rest, x) -> (n, k)`.
        reduce: "trace", "class" or "full".
    """
    if name == "jacobian":
        return functools.partial(_rows, apply), functools.partial(_contract_rows, reduce)
    return None, functools.partial(
        {"vector_products": _products, "structured": _structured}[name], apply, reduce
    )


def _rows(apply: Network, parts: Parts, side: Side) -> Leaves:
    """∂f_a(x_i)/∂θ as a list of (b, k, size), in the order of the chosen parameters."""
    chosen, rest = parts
    x, rows = side

    def pulled_back(outputs: Callable[[Leaves], Array]) -> Leaves:
        y, pull_back = jax.vjp(outputs, chosen)
        (leaves,) = jax.vmap(pull_back)(jnp.eye(y.size, dtype=y.dtype).reshape(y.size, *y.shape))
        return [leaf.reshape(*y.shape, -1) for leaf in leaves]

    def example(x: Array) -> Leaves:
        return pulled_back(with_patches(lambda chosen: apply(chosen, rest, x[None])[0], chosen))

    return jax.vmap(example)(x) if rows is None else pulled_back(lambda c: apply(c, rest, x)[rows])


def _contract_rows(reduce: str, parts: Parts, rows1: Leaves, rows2: Leaves) -> Array:
    """Σ_θ of products of two blocks of Jacobian rows."""
    del parts
    pairs = list(zip(rows1, rows2, strict=True))
    (n1, k, _), n2 = rows1[0].shape, len(rows2[0])
    # Plain products of matrices, for memory: as one einsum, XLA copies a Jacobian first.
    if reduce == "trace":
        return sum(a.reshape(n1, -1) @ b.reshape(n2, -1).T for a, b in pairs) / k
    if reduce == "class":
        return jnp.stack([sum(a[:, c] @ b[:, c].T for a, b in pairs) for c in range(k)], axis=-1)
    return sum(a.reshape(n1 * k, -1) @ b.reshape(n2 * k, -1).T for a, b in pairs)


def _products(apply: Network, reduce: str, parts: Parts, side1: Side, side2: Side) -> Array:
    """Θ̂ times one basis vector after the other: pulled back at x2, pushed forward at x1."""
    chosen, rest = parts
    x, rows = side1

    def push(gradient: Leaves) -> Array:
        shaped = [g.reshape(c.shape) for g, c in zip(gradient, chosen, strict=True)]
        y = jax.jvp(lambda c: apply(c, rest, x), (chosen,), (shaped,))[1]
        return y if rows is None else y[rows]

    full = jax.vmap(jax.vmap(push))(_rows(apply, parts, side2)).transpose(2, 0, 3, 1)
    if reduce == "full":
        return _matrix(full)
    diagonal = jnp.diagonal(full, axis1=2, axis2=3)
    return diagonal if reduce == "class" else diagonal.mean(axis=-1)


def _structured(apply: Network, reduce: str, parts: Parts, side1: Side, side2: Side) -> Array:
    """The library's structured derivatives: products of the parts of each layer's Jacobian."""
    from companion.neural_tangents import nt

    chosen, rest = parts
    kernel_fn = nt.empirical_ntk_fn(
        lambda chosen, x: apply(chosen, rest, x),
        trace_axes=(-1,) if reduce == "trace" else (),
        diagonal_axes=(-1,) if reduce == "class" else (),
        vmap_axes=0,
        implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    )
    found = kernel_fn(side1[0], None if side2 is side1 else side2[0], chosen)
    return _matrix(found) if reduce == "full" else found


def _matrix(full: Array) -> Array:
    """(n1, n2, k, k) as one matrix (n1·k, n2·k)."""
    n1, n2, k, _ = full.shape
    return full.swapaxes(1, 2).reshape(n1 * k, n2 * k)
