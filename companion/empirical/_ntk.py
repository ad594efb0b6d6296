"""The empirical kernel of one pair of parameters and inputs: arguments, memory, the choice of a method."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree
from tqdm.auto import tqdm

from companion._core.checks import batch, count, finite, one_of, same_inputs
from companion._core.compile import double, free_memory, is_kept, made_once, network, refuse_mixing
from companion._core.interrupt import deferred
from companion._core.types import Apply, Array, NetworkKernel
from companion.empirical._blocks import Plan, Sides, add_blocks, make_plan, pairs
from companion.empirical._methods import Parts, Side, choose, method

Reduce = Literal["trace", "class", "full"]
Implementation = Literal["auto", "jacobian", "vector_products", "structured"]
Jobs = list[tuple[tuple[int, ...], Plan]]  # numbers of the chosen parameters, and how their part is computed


def empirical_ntk(
    apply_fn: Apply,
    params: PyTree,
    x1: Float[Any, "n1 ..."],
    x2: Float[Any, "n2 ..."] | None = None,
    *,
    reduce: Reduce = "trace",
    only: Sequence[int] | None = None,
    implementation: Implementation = "auto",
    batch_statistics: bool = False,
    memory: int | None = None,
    progress: bool = False,
) -> Float[np.ndarray, "..."]:
    """Empirical NTK at `params`: Θ̂(x, x')_ab = ⟨∂_θ f_a(x), ∂_θ f_b(x')⟩.

    Args:
        apply_fn: the network, `apply_fn(params, x) -> (n, k)`: a stax network, a Flax `module.apply`,
            or any plain function built from differentiable JAX operations. What companion made (an
            architecture's `apply`, `networks.evaluation` of its own networks) is kept compiled, and what
            `kernels.keep_compiled` marked; any other is compiled at every call: see `empirical_ntk_fn`.
        params: its parameters θ, a pytree of float32 or float64 arrays. Of a Flax module with running
            statistics use `networks.evaluation(networks.from_flax(module))`, which knows what θ is.
        x1: inputs (n1, ...), float32 or float64, finite. Float64 in params or inputs is computed as such.
        x2: inputs (n2, ...); None means x1: one triangle is computed and mirrored, exactly symmetric.
        reduce: "trace" for the mean over outputs, (1/k) Σ_a Θ̂_aa, which tends to the analytic kernel
            as the width grows; "class" for Θ̂_aa of every output; "full" for all pairs of outputs, one
            matrix with row i·k + a for output a of input i (`dynamics.per_output` takes it apart).
        only: numbers of the parameter arrays whose derivatives count, in the order of
            `jax.tree.leaves(params)`, negative from the end; None for all. With those of the last layer,
            (−2, −1) where they come last, it is the *conjugate kernel*: the product of what the last layer
            sees, and its bias.
        implementation: in the terms of Novak et al. (2022), "jacobian" contraction, NTK-"vector_products" or
            "structured" derivatives (those of neural-tangents); "auto" by the rule of `empirical_ntk_fn`.
        batch_statistics: whether an example's outputs depend on the rest of the batch, as under batch
            normalization in training mode. The network then sees all of x1 (all of x2) at once.
        memory: bytes for intermediates, beside the result; None: half of what is free at the first call.
        progress: show a tqdm bar over pairs of blocks.

    Returns:
        (n1, n2) for "trace"; (n1, n2, k) for "class"; (n1·k, n2·k) for "full"; in host memory.

    Raises:
        TypeError: inputs or parameters that are not floating point.
        ValueError: NaN or infinity, an unknown `reduce`, a network whose output is not (n, k) or that mixes
            examples, too little memory.

    Cost: in time and memory, as `empirical_ntk_fn` says, and a compilation for a network that is not kept.

    >>> x = np.eye(3, dtype=np.float32)
    >>> np.allclose(empirical_ntk(lambda w, x: x @ w, np.ones((3, 1), np.float32), x), x @ x.T)
    True
    """
    options = {"reduce": reduce, "only": only, "implementation": implementation, "memory": memory}
    kernel_fn = empirical_ntk_fn(apply_fn, batch_statistics=batch_statistics, progress=progress, **options)
    return kernel_fn(params, x1, x2)


def empirical_ntk_fn(
    apply_fn: Apply,
    *,
    reduce: Reduce = "trace",
    only: Sequence[int] | None = None,
    implementation: Implementation = "auto",
    batch_statistics: bool = False,
    memory: int | None = None,
    progress: bool = False,
) -> NetworkKernel:
    """The empirical NTK as a function `kernel_fn(params, x1, x2=None)` that is compiled once for each shape.

    For kernels along training. The arguments and results are those of `empirical_ntk`. What `apply_fn` reads
    besides its arguments (running statistics, a mask, a scale) is *frozen* at the first call: pass what
    changes through `params`, or make a new function.

    The rule of "auto", measured by benchmarks/empirical.py: a network of matrices and vectors takes
    structured derivatives, which never form a Jacobian. With any parameter of three axes or more
    (convolutions), these and the vectors take Jacobian contraction: there it is faster at ten outputs, level
    at one, and takes less memory; only the matrices take structured derivatives. With `batch_statistics`, and
    without neural-tangents, all take Jacobian contraction. Vector products were never the fastest; they are
    for so many parameters that Jacobian rows of two examples do not fit beside each other.

    Cost, for n examples, k outputs and p parameters: Jacobian contraction n·k backward passes, and 2·(n·k)²·p
    operations for "full" (half with x2=None), 2·n²·k·p for the others; structured derivatives of a dense
    layer from d to m units about (n·k)²·m + n²·d; vector products n²·k forward passes. Memory: Jacobian rows
    4·k·p bytes for an example of at most `memory`; fewer blocks of x1 are kept when they do not fit, and rows
    of x2 computed again for each group. Novak et al. (2022), arXiv 2206.08720, section 3.

    Args:
        apply_fn: as for `empirical_ntk`, and so are the others.
        reduce: "trace", "class" or "full".
        only: numbers of the parameter arrays whose derivatives count.
        implementation: "auto", "jacobian", "vector_products" or "structured".
        batch_statistics: whether an example's outputs depend on the rest of the batch.
        memory: bytes for intermediates; None: half of what is free at the first call.
        progress: show a tqdm bar over pairs of blocks.

    Returns:
        `kernel_fn(params, x1, x2=None)`.

    Raises:
        TypeError, ValueError: as `empirical_ntk`.

    >>> kernel_fn = empirical_ntk_fn(lambda w, x: x @ w, reduce="full")
    >>> kernel_fn(np.ones((3, 2), np.float32), np.eye(3, dtype=np.float32)).shape
    (6, 6)
    """
    one_of("reduce", reduce, ("trace", "class", "full"))
    one_of("implementation", implementation, ("auto", "jacobian", "vector_products", "structured"))
    one_of("batch_statistics", batch_statistics, (False, True))
    one_of("progress", progress, (False, True))
    if batch_statistics and implementation == "structured":
        raise ValueError("implementation 'structured' takes each example alone: not with batch_statistics")
    if memory is not None:
        memory = count("memory", memory)
    return _kept(apply_fn, reduce, _numbers(only), implementation, batch_statistics, memory, progress)


@made_once  # of functions that never change, one for all who ask
def _kept(
    apply_fn: Apply,
    reduce: Reduce,
    only: tuple[int, ...] | None,
    implementation: Implementation,
    batch_statistics: bool,
    memory: int | None,
    progress: bool,
) -> NetworkKernel:
    plan = _planner(apply_fn, reduce, only, implementation, batch_statistics, memory)

    @deferred()
    def kernel_fn(
        params: PyTree, x1: Float[Any, "n1 ..."], x2: Float[Any, "n2 ..."] | None = None
    ) -> Float[np.ndarray, "..."]:
        x1 = batch("x1", x1)
        other = x1 if x2 is None else batch("x2", x2)
        same_inputs("x1", x1, "x2", other)
        with double(params, x1, other), warnings.catch_warnings():
            # Layers without a structured rule take the library's general path, which is as exact.
            warnings.filterwarnings("ignore", message="No Jacobian rule found")
            side = _sides(x1, other, batch_statistics)
            k, planned = plan(params, x1, other, x2 is None, side)
            out = _zeros(params, x1, other, k, reduce)
            total = sum(pairs(one) for _, one in planned)
            with tqdm(total=total, desc="empirical NTK blocks", disable=not progress) as bar:
                for chosen, one in planned:
                    add_blocks(one, _parts(params, chosen), side, out, bar)
        return finite("the kernel", out)

    return kernel_fn


def _planner(
    apply_fn: Apply,
    reduce: Reduce,
    only: tuple[int, ...] | None,
    implementation: Implementation,
    batch_statistics: bool,
    memory: int | None,
) -> Callable[..., tuple[int, Jobs]]:
    """`plan(params, x1, x2, alike, side)`: k and compiled jobs, made once for each kind of arguments."""
    plans: dict[tuple, tuple[int, Jobs]] = {}

    def first_outputs(params: PyTree, x: Array) -> tuple[Array, Array]:
        return apply_fn(params, x[:2])[0], apply_fn(params, x[:1])[0]

    if is_kept(apply_fn):  # faster the first time; of any other function op by op is, every later time
        first_outputs = jax.jit(first_outputs)

    def plan(params: PyTree, x1: Array, x2: Array, alike: bool, side: Sides) -> tuple[int, Jobs]:
        key = _signature(params, x1, x2), alike
        if key not in plans:
            if only is None:
                _refuse_collections(apply_fn, params)
            k = network("apply_fn", apply_fn, params, x1)[1]
            ours = getattr(apply_fn, "__module__", "").startswith("companion.architectures")
            if not batch_statistics and not ours:
                _refuse_mixing(first_outputs, params, x1)
            limit = free_memory(jax.devices()[0]) // 2 if memory is None else memory
            jobs = choose(implementation, params, k, only, batch_statistics=batch_statistics)
            counts = len(x1), len(x2)
            plans[key] = k, [_plan(apply_fn, params, job, reduce, side, counts, alike, limit) for job in jobs]
        return plans[key]

    return plan


def _refuse_collections(apply_fn: Apply, params: PyTree) -> None:
    """Running statistics are no parameters: of Flax's collections all would be differentiated."""
    ours = (getattr(apply_fn, "__module__", None) or "").startswith("companion.")
    if isinstance(params, Mapping) and "params" in params and len(params) > 1 and not ours:
        others = ", ".join(str(name) for name in params if name != "params")
        raise ValueError(
            f"params holds the collections params and {others} of a Flax module, and all of them would count "
            "as parameters: give networks.evaluation(networks.from_flax(module)) as apply_fn, or the arrays "
            "that count as `only`"
        )


def _zeros(params: PyTree, x1: np.ndarray, x2: np.ndarray, k: int, reduce: Reduce) -> np.ndarray:
    """The kernel before any block is added, in the shape that `reduce` gives it."""
    dtype = np.result_type(x1, x2, *(leaf.dtype for leaf in jax.tree.leaves(params)))
    rows = k if reduce == "full" else 1
    return np.zeros((rows * len(x1), rows * len(x2), *((k,) if reduce == "class" else ())), dtype)


def _numbers(only: Sequence[int] | None) -> tuple[int, ...] | None:
    """Numbers that can be hashed; or an error."""
    if only is None:
        return None
    numbers = tuple(count("only", i, least=-(2**31)) for i in only) if np.ndim(only) == 1 else ()
    if not numbers:
        raise ValueError(f"only must be one or more numbers of parameter arrays, got {only!r}")
    return numbers


def _signature(params: PyTree, *arrays: Array) -> tuple:
    """What compiled code depends on: structure, shapes, types, places."""
    leaves, treedef = jax.tree.flatten((params, *arrays))
    kinds = ((jnp.shape(x), jnp.result_type(x), getattr(x, "sharding", None)) for x in leaves)
    return treedef, tuple(kinds), jax.config.jax_enable_x64


def _parts(params: PyTree, chosen: tuple[int, ...]) -> Parts:
    """The chosen parameters, and the others."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    return [leaves[i] for i in chosen], [leaf for i, leaf in enumerate(leaves) if i not in chosen]


def _plan(
    apply_fn: Apply,
    params: PyTree,
    job: tuple[str, tuple[int, ...], int | None],
    reduce: Reduce,
    side: Sides,
    counts: tuple[int, int],
    alike: bool,
    memory: int,
) -> tuple[tuple[int, ...], Plan]:
    """The chosen parameters of a job, and its compiled plan."""
    name, chosen, most = job
    treedef = jax.tree.structure(params)

    def apply(some: list[Array], others: list[Array], x: Array) -> Array:
        some, others = iter(some), iter(others)
        leaves = [next(some if i in chosen else others) for i in range(treedef.num_leaves)]
        return apply_fn(jax.tree.unflatten(treedef, leaves), x)

    parts = _parts(params, chosen)
    stages = method(name, apply, reduce)
    most = max(counts) if most is None else most
    return chosen, make_plan(stages, parts, side, counts, alike=alike, most=most, memory=memory)


def _sides(x1: np.ndarray, x2: np.ndarray, batch_statistics: bool) -> Sides:
    """`side(number, first, size)`: examples of x1 or x2 from `first`; the last is repeated past the end."""
    batches = [jnp.asarray(x) for x in (x1, x2)] if batch_statistics else [x1, x2]

    def side(number: int, first: int, size: int) -> Side:
        x = batches[number]
        rows = np.minimum(np.arange(first, first + size), len(x) - 1)
        return (x, rows) if batch_statistics else (x[rows], None)

    return side


def _refuse_mixing(first_outputs: Callable[..., tuple[Array, Array]], params: PyTree, x: np.ndarray) -> None:
    """Raise where an output depends on other examples: each kernel entry is computed from two alone."""
    refuse_mixing(
        "apply_fn",
        *first_outputs(params, x[:2]),
        cure="Use running statistics (evaluation mode), or batch_statistics=True for the network of all of "
        "x1 at once",
    )
