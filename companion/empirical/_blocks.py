"""Blocks of examples: how many fit in memory, and the loop over their pairs."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import PyTree
from tqdm.auto import tqdm

from companion._core.interrupt import safe_point
from companion._core.types import Array
from companion._core.words import Function
from companion.empirical._methods import Method, Parts, Prepared, Side

Sides = Callable[[int, int, int], Side]  # sides(number, first, size): examples of x1 (number 0) or x2 (1)


@dataclass(frozen=True)
class Plan:
    """Compiled stages for blocks of one size.

    Attributes:
        counts: examples in x1 and in x2.
        sizes: examples in a block of x1, and of x2.
        alike: x2 is x1.
        each: bytes of one prepared block of x1.
        fixed: bytes of the rest at the peak, measured on the compiled code: temporaries, a prepared block of
            x2, a block of the kernel.
        held: blocks of x1 that are kept prepared; those of x2 are prepared again for each such group.
        prepare: `prepare(parts, side)` for blocks of x1, and of x2.
        contract: `contract(parts, prepared1, prepared2)`, without the last where one block meets itself.
        dtype: of the kernel.
    """

    counts: tuple[int, int]
    sizes: tuple[int, int]
    alike: bool
    each: int
    fixed: int
    held: int
    prepare: tuple[Callable[[Parts, Side], Prepared], ...]
    contract: Callable[..., Array]
    dtype: np.dtype

    @property
    def alone(self) -> bool:
        """Whether one block meets itself, and that is all."""
        return self.alike and self.sizes[0] == self.counts[0]

    @property
    def bytes(self) -> int:
        """Intermediates at the peak."""
        return self.fixed + self.held * self.each


def make_plan(
    method: Method, parts: Parts, side: Sides, counts: tuple[int, int], *, alike: bool, most: int, memory: int
) -> Plan:
    """The largest blocks of at most `most` examples for which the intermediates stay within `memory` bytes.

    Args:
        method: the pair of `companion.empirical._methods.method`.
        parts: parameters, as the stages take them.
        side: `side(number, first, size)`: that many examples of x1 (number 0) or x2 (number 1).
        counts: examples in x1 and in x2.
        alike: x2 is x1.
        most: examples in a block.
        memory: bytes.
    """
    while True:
        sizes = _even(counts[0], most), _even(counts[1], most)
        plan = _compile(method, parts, side, counts, sizes, alike)
        if plan.bytes <= memory:
            spare = (memory - plan.bytes) // plan.each if plan.each else counts[0]
            held = int(min(1 + spare, -(-counts[0] // sizes[0])))
            return Plan(**vars(plan) | {"held": held})
        if max(sizes) == 1:
            raise ValueError(
                f"memory must be at least {plan.bytes} bytes for one pair of examples, got {memory}"
            )
        most = max(1, min(max(sizes) - 1, int(max(sizes) * memory / plan.bytes)))


def _compile(
    method: Method, parts: Parts, side: Sides, counts: tuple[int, int], sizes: tuple[int, int], alike: bool
) -> Plan:
    prepare, contract = method
    alone = alike and sizes[0] == counts[0]
    prepared, stages, temporary = [], [], 0
    for number, size in enumerate(sizes):
        example = side(number, 0, size)
        if prepare is None:
            stages.append(lambda _, side: side)
            prepared.append(example)
        elif number == 1 and _shapes(example) == _shapes(side(0, 0, sizes[0])):
            stages.append(stages[0])
            prepared.append(prepared[0])
        else:
            lowered = jax.jit(_highest(prepare)).lower(parts, example)
            stages.append(lowered.compile())
            prepared.append(lowered.out_info)
            temporary = max(temporary, _temporary(stages[-1].memory_analysis, prepared[-1]))
    if alone:
        entry = jax.jit(_highest(lambda parts, one: contract(parts, one, one))).lower(parts, prepared[0])
    else:
        entry = jax.jit(_highest(contract)).lower(parts, *prepared)
    compiled = entry.compile()
    contracting = _temporary(compiled.memory_analysis, entry.out_info) + _size(entry.out_info)
    kept = [0 if prepare is None else _size(p) for p in prepared]
    fixed = max(temporary, contracting) + (0 if alone else kept[1])
    return Plan(counts, sizes, alike, kept[0], fixed, 1, tuple(stages), compiled, entry.out_info.dtype)


def add_blocks(plan: Plan, parts: Parts, side: Sides, out: np.ndarray, bar: tqdm) -> None:
    """Add the kernel's blocks to `out`; of a kernel with itself one triangle is computed, and mirrored."""
    starts = [range(0, n, size) for n, size in zip(plan.counts, plan.sizes, strict=True)]
    for first in range(0, len(starts[0]), plan.held):
        group = starts[0][first : first + plan.held]
        prepared = {i: plan.prepare[0](parts, side(0, i, plan.sizes[0])) for i in group}
        for j in starts[1]:
            rows = [i for i in group if i <= j or not plan.alike]
            if not rows:
                continue
            known = plan.alike and j in prepared
            column = prepared[j] if known else plan.prepare[1](parts, side(1, j, plan.sizes[1]))
            for i in rows:
                arguments = (prepared[i],) if plan.alone else (prepared[i], column)
                block = np.asarray(plan.contract(parts, *arguments))
                rows = len(block) // plan.sizes[0]  # of an example: its outputs, where all pairs are wanted
                _add(out, rows * i, rows * j, block, alike=plan.alike)
                bar.update()
                safe_point()


def pairs(plan: Plan) -> int:
    """How many blocks `add_blocks` computes."""
    n1, n2 = (-(-n // size) for n, size in zip(plan.counts, plan.sizes, strict=True))
    return n1 * (n1 + 1) // 2 if plan.alike else n1 * n2


def _add(out: np.ndarray, i: int, j: int, block: np.ndarray, *, alike: bool) -> None:
    part = out[i : i + len(block), j : j + block.shape[1]]
    block = block[: part.shape[0], : part.shape[1]]
    if alike and i == j:
        upper = np.tril(block.T)  # axes of outputs first
        block = (upper + np.tril(upper, -1).swapaxes(-1, -2)).T
    elif alike:
        mirror = out[j : j + block.shape[1], i : i + len(block)]
        mirror += block.swapaxes(0, 1)
    part += block


def _highest(function: Function) -> Function:
    def run(*arguments: Parts | Prepared) -> Prepared | Array:
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    return run


def _even(n: int, most: int) -> int:
    """The size of equal blocks of at most `most`."""
    return -(-n // -(-n // most))


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(tree)]


def _size(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _temporary(analyze: Function, out: PyTree) -> int:
    """Temporaries of compiled code; on a device that does not tell, as much as three times its output."""
    analysis = analyze()
    return 3 * _size(out) if analysis is None else int(analysis.temp_size_in_bytes)
