"""How many training labels hold up a prediction: exact, and with the labels that do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from companion._core.checks import Numbers, class_labels, count, predicted
from companion._core.shown import brief
from companion._core.words import Unchecked
from companion.kernels import gram
from companion.regression import KernelPredictor, coefficient_matrix, whole
from companion.statistics import Estimate, proportion

# What is less than this of the sum of all sizes is rounding of float64: a tie.
_TIE = 1e-12
_BATCH = 2**24  # numbers in an array of inputs × training points


@dataclass(frozen=True, eq=False)
class Flips:
    """What `flips` found.

    Attributes:
        number: of each test input, the smallest number of training labels whose change alters its class,
            (m,); 0 where the class is wrong as it is, or a tie.
        indices: of each test input, the training points whose labels these are, the strongest first.
        labels: and the classes to change them to.
        n: training points.
    """

    number: Int[np.ndarray, " m"]
    indices: tuple[Int[np.ndarray, "..."], ...]
    labels: tuple[Int[np.ndarray, "..."], ...]
    n: int

    __repr__ = brief


def flips(
    f: KernelPredictor,
    x: Float[Any, "m ..."] | None,
    labels: Int[Any, " m"],
    *,
    k_test_train: Float[np.ndarray, "m n"] | None = None,
    progress: bool = False,
) -> Flips:
    """The smallest number of training labels whose change alters a prediction, and which they are.

    At any time and ridge f(x) = Σ_j c_j(x) y_j is linear in the targets, with c(x) = Θ(x, X) C_t. Two classes
    with targets ±1: changing y_j moves s f(x), s = sign f(x), by −2 s c_j y_j. k classes with one-hot
    targets, of any height and shift: changing j from class a to b moves the outputs by h c_j (e_b − e_a), so
    that f_w − f_v, of the winner w and a rival v, loses h abs(c_j) times

        2 if j is of w and c_j > 0 (it becomes v),    2 if j is of v and c_j < 0 (it becomes w),
        1 if j is of another class (it becomes v or w by the sign of c_j),    else nothing,

    and no change of j can do more. So r changes take away at most the r largest, and exactly these are an
    attack: a sort for each rival is exact from both sides, and the smallest over rivals is the answer.
    A tie, up to float64 rounding, counts as altered.

    Args:
        f: from `regression.fit` with a spectrum, at its own time and ridge, fitted to ±1 or to one-hot
            targets (`data.targets`), from which the training labels are read.
        x: inputs (m, ...); None beside `k_test_train`.
        labels: their true classes (m,).
        k_test_train: Θ(x, X), (m, n), where it exists already, or f is a fit of a matrix alone.
        progress: show a tqdm bar over the inputs.

    Returns:
        Numbers, training points and new labels; exact for the kernel matrices as they were computed.

    Raises:
        TypeError: coefficients without a spectrum; neither x nor the matrix.
        ValueError: other targets; shapes that do not fit.

    Cost: O(n³) for C_t, O(m n²), and O(m n log n) for each rival; memory some batches of inputs × n.
    Source: ours; certificates by mixed-integer programs, for SVM-like training, are in Sabanayagam et al.
    (2024), arXiv 2412.00537.

    >>> from companion.regression import fit
    >>> f = fit(np.eye(3), targets=np.array([[1.0], [1.0], [-1.0]]))
    >>> flips(f, None, np.array([1, 1]), k_test_train=np.array([[1.0, 2, 1], [3, 1, 1]])).number
    array([1, 1])
    """
    problem = _problem(f, x, labels, k_test_train)
    found = [part for some in problem.batches(progress) for part in _weakest(problem, some)]
    number, indices, new = zip(*found, strict=True)
    return Flips(np.array(number), indices, new, len(problem.classes))


def flip_accuracy(found: Flips, budgets: Numbers | int, *, level: float = 0.95) -> Estimate:
    """Share of inputs that are right whatever r training labels are changed for each, with Wilson intervals.

    Each input has the worst changes for itself: exact for an attacker of one input at a time, and a lower
    bound where one set of changes is for all (`shared_flip_accuracy`).

    Args:
        found: from `flips`.
        budgets: r ≥ 0, (q,) or a number.
        level: coverage of each interval, in (0, 1).

    Returns:
        An estimate for each r, q of them.

    Raises:
        TypeError, ValueError: budgets that are no integers ≥ 0.

    >>> flip_accuracy(Flips(np.array([0, 1, 3]), (), (), 9), [0, 1, 2]).value.round(2)
    array([0.67, 0.33, 0.33])
    """
    return proportion(found.number[:, None] > _budgets(budgets), level=level)


def shared_flip_accuracy(
    f: KernelPredictor,
    x: Float[Any, "m ..."] | None,
    labels: Int[Any, " m"],
    budgets: Numbers | int,
    *,
    k_test_train: Float[np.ndarray, "m n"] | None = None,
    progress: bool = False,
) -> Float[np.ndarray, " q"]:
    """A lower bound of accuracy on these inputs where one set of r changed labels is for all of them.

    With g_ij what a change of label j can take from the margin m_i (the largest share of it over rivals), a
    set S that fools input i has Σ_{j∈S} min(1, g_ij/m_i) ≥ 1. So of those that r changes can fool at all, a
    set of r fools at most the sum of the r largest column sums of min(1, g_ij/m_i).

    Args:
        f: as for `flips`, as the others.
        x: inputs (m, ...), or None.
        labels: their true classes (m,).
        budgets: r ≥ 0, (q,) or a number.
        k_test_train: Θ(x, X), (m, n), or None.
        progress: show a tqdm bar over the inputs.

    Returns:
        A bound for each r, (q,), never below `flip_accuracy`. For this test set: no interval.

    Raises:
        TypeError, ValueError: as `flips` and `flip_accuracy`.

    Cost: that of `flips`. Source: ours.

    >>> from companion.regression import fit
    >>> f = fit(np.eye(4), targets=np.array([[1.0], [1.0], [-1.0], [-1.0]]))
    >>> shared_flip_accuracy(f, None, np.array([1, 1, 0, 0]), [0, 1, 2], k_test_train=np.eye(4))
    array([1.  , 0.75, 0.5 ])
    """
    budgets, problem = _budgets(budgets), _problem(f, x, labels, k_test_train)
    columns, numbers = np.zeros((len(budgets), len(problem.classes))), []
    for some in problem.batches(progress):
        number = np.array([part[0] for part in _weakest(problem, some)])
        shares = np.zeros((len(number), len(problem.classes)))
        for gain, _, margin in _rivals(problem, some):
            part = np.minimum(gain / np.maximum(margin, np.finfo(float).tiny)[:, None], 1.0)
            np.maximum(shares, part, out=shares)
        for row, r in enumerate(budgets):
            columns[row] += shares[(number > 0) & (number <= r)].sum(axis=0)
        numbers.append(number)
    number = np.concatenate(numbers)
    strongest = np.sort(columns, axis=1)[:, ::-1].cumsum(axis=1)
    fooled = np.array(
        [
            min(((number > 0) & (number <= r)).sum(), np.floor(row[min(r, len(row)) - 1] + 1e-6)) if r else 0
            for r, row in zip(budgets, strongest, strict=True)
        ]
    )
    return ((number > 0).sum() - fooled) / len(number)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Outputs of k ≥ 2 classes as Σ_j c_j(x) y_j, one-hot targets of height h, and true classes."""

    influence: Float[np.ndarray, "n n"]
    kernel: Float[np.ndarray, "m n"]
    outputs: Float[np.ndarray, "m k"]
    labels: Int[np.ndarray, " m"]
    classes: Int[np.ndarray, " n"]
    height: float

    def batches(self, progress: bool) -> Iterator[slice]:
        size = max(1, _BATCH // len(self.classes))
        with tqdm(total=len(self.kernel), desc="label flips", unit="input", disable=not progress) as bar:
            for first in range(0, len(self.kernel), size):
                yield slice(first, first + size)
                bar.update(min(size, len(self.kernel) - first))


def _weakest(problem: _Problem, some: slice) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Of each input of a batch: the smallest number of changes, which training points, and their classes."""
    n, labels = len(problem.classes), problem.labels[some]
    number, keys = np.full(len(labels), n + 1), np.zeros((len(labels), n))
    new = np.zeros((len(labels), n), int)
    right = predicted(problem.outputs[some]) == labels
    for gain, to, margin in _rivals(problem, some):
        right &= margin > 0
        taken = -np.sort(-gain, axis=1)
        needed = np.minimum((taken.cumsum(axis=1) < margin[:, None]).sum(axis=1) + 1, n)
        better = needed < number
        number[better], keys[better], new[better] = needed[better], gain[better], to[better]
    found = []
    for row, each in enumerate(np.where(right, number, 0)):
        order = np.argsort(-keys[row], kind="stable")[:each]
        found.append((int(each), order, new[row, order]))
    return found


def _rivals(problem: _Problem, some: slice) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Against each rival: what each label's change takes away, the class it becomes, and the margin."""
    c = problem.kernel[some] @ problem.influence
    outputs, own = problem.outputs[some], problem.classes[None]
    rows, winner = np.arange(len(c)), predicted(outputs)[:, None]
    sizes = problem.height * np.abs(c)
    tie = _TIE * (sizes.sum(axis=1) + np.abs(outputs).max(axis=1))
    for step in range(1, outputs.shape[1]):
        rival = (winner + step) % outputs.shape[1]
        positive = c > 0
        full = own == np.where(positive, winner, rival)
        other = (own != winner) & (own != rival)
        gap = outputs[rows, winner[:, 0]] - outputs[rows, rival[:, 0]]
        yield sizes * (2 * full + other), np.where(positive, rival, winner), gap - tie


def _problem(f: Unchecked, x: Unchecked, labels: Unchecked, k_test_train: Unchecked) -> _Problem:
    targets = whole(f).eigenvectors @ f.projections
    classes, height = _classes(targets)
    if k_test_train is None:
        if x is None or f.kernel is None:
            raise TypeError("flips needs x and a fit of a kernel, or k_test_train, Θ(x, X)")
        k_test_train = gram(f.kernel, x, f.x_train, kind=f.kind)
    elif x is not None and len(x) != len(k_test_train):
        raise ValueError(f"k_test_train must have a row for each of the {len(x)} x, got {len(k_test_train)}")
    if not len(k_test_train):
        raise ValueError("k_test_train must have a row for each input, at least one, got none")
    outputs = f.from_kernel(k_test_train)
    kernel = np.asarray(k_test_train, np.float64)
    labels = class_labels("labels", labels, len(kernel), outputs.shape[1])
    if outputs.shape[1] == 1:
        outputs = np.concatenate([-outputs, outputs], axis=1) / 2
    return _Problem(coefficient_matrix(f), kernel, outputs, labels, classes, height)


def _classes(targets: np.ndarray) -> tuple[np.ndarray, float]:
    """Training classes and the height of their targets; or an error where they are no classes'."""
    if targets.shape[1] == 1:
        classes, height, size = (targets[:, 0] > 0).astype(int), 1.0, 1.0
        meant = 2.0 * classes[:, None] - 1
    else:
        classes = targets.argmax(axis=1)
        low, high = targets.min(), targets.max()
        size = float(max(abs(high), abs(low)))
        height, meant = float(high - low), np.where(np.eye(targets.shape[1])[classes] > 0, high, low)
    far = float(np.abs(targets - meant).max())
    if not height > 0 or far > 1e-6 * size:
        wanted = "±1" if targets.shape[1] == 1 else "one-hot, of one height and shift"
        raise ValueError(
            f"f must be fitted to targets that are {wanted}, for its labels to be read from them: they are "
            f"off by {far:.3g}"
        )
    return classes, height


def _budgets(value: int | Sequence[int] | np.ndarray) -> np.ndarray:
    values = [value] if np.ndim(value) == 0 else list(value)
    return np.array([count("budgets", each, least=0) for each in values])
