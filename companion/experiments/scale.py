"""Kernel regression on a whole data set, timed stage by stage (chapter 1), and then attacked (chapter 2).

The kernel of all training images, its Cholesky factorization in place, the kernel to the test images, and the
predictions; beside the kernel and the factorization their floors on the same machine, x xᵀ and n³/3
operations at the rate of a product of two matrices. Then claim A1 at this size: FGSM, PGD and AutoAttack on
the first test images. The profile "paper" has whole data sets, three depths and a pair of classes.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np

from companion import data, regression, statistics
from companion.attacks import Threat, autoattack, fgsm, pgd, random_sign, robust_accuracy
from companion.experiments._attacks_cases import STAGES
from companion.experiments._experiment import LISTS, Arrays, Experiment, Job, filled
from companion.experiments._shared import architecture, attack_batch, peak_memory
from companion.kernels import gram, plan


@dataclass(frozen=True)
class Config:
    """Sizes of one run, and of those that a profile has beside it.

    Attributes:
        dataset: name of the data set, for `data.load`.
        n_train: training images.
        n_test: test images.
        depth: hidden layers of the fully connected network.
        ridge: on the diagonal, in units of its mean.
        n_attacked: test images that are attacked; 0 for none.
        eps: size of the perturbation, L∞, pixels in [0, 1].
        steps: of PGD.
        auto: attacks of AutoAttack, in their order; none to leave it out.
        queries: of its Square.
        classes: a pair of classes; None for all.
        convolutions: convolutional layers, in place of fully connected ones; 0 for none.
        beside: more runs of the profile.
    """

    dataset: str = "mnist5k"
    n_train: int = 2000
    n_test: int = 1000
    depth: int = 1
    ridge: float = 1e-3
    n_attacked: int = 0
    eps: float = 8 / 255
    steps: int = 10
    auto: tuple[str, ...] = STAGES[1:]
    queries: int = 1000
    classes: tuple[str, ...] | None = field(default=None, metadata={"absent": None})
    convolutions: int = field(default=0, metadata={"absent": 0})
    beside: tuple["Config", ...] = field(default=(), metadata=LISTS)

    @property
    def kernel(self) -> str:
        """Its name, such as "FC-3"."""
        return kernel_of(self.depth, self.convolutions)


def kernel_of(depth: int, convolutions: int = 0) -> str:
    """The name of a kernel, such as "FC-3" or "Conv-1"."""
    return f"Conv-{convolutions}" if convolutions else f"FC-{depth}"


_WHOLE = {"dataset": "cifar10", "n_train": 50_000, "n_test": 10_000, "n_attacked": 1000, "auto": ()}
_WEAR = {"dataset": "fashion_mnist", "n_train": 60_000, "eps": 0.1}
# An entry of a kernel over 32 · 32 pixels is dozens of times the work.
_CONV = {"convolutions": 1, "n_train": 10_000, "n_test": 1000, "n_attacked": 200}
_PAIR = {"classes": ("airplane", "automobile"), "n_train": 10_000, "n_test": 2000, "auto": STAGES[1:]}
PROFILES = {
    "quick": Config(),
    "full": Config(dataset="cifar10", n_train=20_000, n_test=10_000, n_attacked=1000, auto=()),
    # Of ten classes PGD leaves a few images in a thousand: there is little for AutoAttack to find.
    "paper": Config(
        **_WHOLE,
        beside=(
            Config(**_WHOLE | _PAIR),
            Config(**_WHOLE, depth=3),
            Config(**_WHOLE, depth=5),
            Config(**_WHOLE | _WEAR),
            Config(**_WHOLE | _WEAR | {"dataset": "mnist"}),
            Config(**_WHOLE | _CONV),
        ),
    ),
}


def jobs(config: Config) -> list[Job]:
    """The run of this configuration, and those beside it."""
    found = []
    for one in (replace(config, beside=()), *config.beside):
        kind = f", {'/'.join(one.classes)}" if one.classes else ""
        deep = f", {one.kernel}" if one.kernel != "FC-1" else ""
        found.append(Job((one,), f"{one.dataset}{kind}, {one.n_train:,} images{deep}", 0, one.dataset))
    return found


def gather(config: Config, made: Mapping[Job, Mapping[str, np.ndarray]]) -> Arrays:
    """The arrays of `run`."""
    places = {job: i for i, job in enumerate(jobs(config))}
    return filled((len(places),), {(places[job],): arrays for job, arrays in made.items()})


def run(config: Config, *, progress: bool = False) -> Arrays:
    """Fit and test, and time every stage.

    Args:
        config: sizes.
        progress: show a tqdm bar.

    Returns:
        Arrays over runs r, this configuration's first; NaN where there is none. (r,): seconds of `gram`,
        `solve`, `cross` (the kernel to the test images) and `predict`; of `product`, the floor of `gram`: one
        n × n × d matrix product in float32 on the same device; of `cubes`, the floor of `solve`: n³/3
        operations at the rate of a product in NumPy. Compilations are not counted; with convolutions the
        first floor is far below. `peak`, the most bytes that the process held up to the coefficients, runs
        before included, NaN where the system does not tell; `residual`, ‖(Θ + ρI) α − Y‖ / ‖Y‖ on the first
        100 rows; `accuracy` (r, 3) on the test images: value, and ends of its 95 % interval. With attacks, on
        the `n_attacked` first images, `attacked` (r, 4, 3) of these intervals for clean, random signs, FGSM
        and PGD, `auto` (r, 5, 3), clean and after each attack of AutoAttack, and `attack_seconds` (r, 3) of
        FGSM, PGD and AutoAttack. Takes 4 n² bytes of host memory.
    """
    return EXPERIMENT.run(config, progress=progress)


def compute(config: Config) -> Arrays:
    """Every stage once, and the seconds of each."""
    sizes = {"n_train": config.n_train, "n_test": config.n_test}
    images = data.load(config.dataset, classes=config.classes, **sizes)
    kind = architecture(config.kernel)
    x, z = images.x_train, images.x_test
    seconds = {}
    # A plan compiles what `gram` then runs.
    plan(kind, x)
    plan(kind, z, x)
    with _timed(seconds, "gram"):
        kernel = gram(kind, x)
    ridge = config.ridge * float(np.diag(kernel).mean())
    targets = data.targets(images.y_train, len(images.classes))
    some = slice(min(100, len(x)))
    rows = kernel[some].astype(np.float64)
    with _timed(seconds, "solve"):
        how = regression.Cholesky(overwrite=True)
        f = regression.fit(kind, x, targets, k_train_train=kernel, ridge=ridge, solver=how)
    peak = peak_memory()
    del kernel
    residual = rows @ f.coefficients + ridge * f.coefficients[some] - targets[some]
    with _timed(seconds, "cross"):
        cross = gram(kind, z, x)
    with _timed(seconds, "predict"):
        outputs = cross @ f.coefficients.astype(np.float32)
    seconds["product"] = _product_seconds(x.reshape(len(x), -1))
    seconds["cubes"] = _cubes_seconds(len(x))
    left = np.linalg.norm(residual) / np.linalg.norm(targets[some])
    numbers = seconds | {"peak": peak, "residual": left}
    return {
        **{name: np.array(value) for name, value in numbers.items()},
        "accuracy": statistics.accuracy(outputs, images.y_test).as_array(),
        **(_attacked(f, images, config) if config.n_attacked else {}),
    }


def _attacked(f: regression.KernelPredictor, images: data.Dataset, config: Config) -> Arrays:
    """Accuracies of the first test images under attack, and what the attacks took."""
    x, y = images.x_test[: config.n_attacked], images.y_test[: config.n_attacked]
    threat, key, seconds = Threat("linf", config.eps), jax.random.key(0), {}
    noisy = random_sign(x, threat, key=key)
    batch = attack_batch(f.kernel)
    with _timed(seconds, "fgsm"):
        fast = fgsm(f, x, y, threat, batch_size=batch)
    with _timed(seconds, "pgd"):
        slow = pgd(f, x, y, threat, steps=config.steps, early_stop=True, batch_size=batch)
    points = (x, noisy, fast, slow)
    left = [robust_accuracy(f, z, y, batch_size=batch).as_array() for z in points]
    found = {"attacked": np.array(left)}
    if config.auto:
        # Batches are filled up: of the few images that resist, small ones.
        options = {"key": key, "version": config.auto, "queries": config.queries, "batch_size": 32}
        with _timed(seconds, "auto"):
            auto = autoattack(f, x, y, threat, **options)
        found["auto"] = np.array([auto.accuracy[stage].as_array() for stage in ("clean", *config.auto)])
    return found | {"attack_seconds": np.array(list(seconds.values()))}


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def _product_seconds(x: np.ndarray) -> float:
    """The least of three products x xᵀ, in row blocks that fit beside x."""
    product = jax.jit(lambda a, b: jnp.matmul(a, b.T, precision="highest"))
    rows = min(len(x), 5000)
    device, part = jnp.asarray(x), jnp.asarray(x[:rows])
    product(part, device).block_until_ready()
    least = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        product(part, device).block_until_ready()
        least = min(least, time.perf_counter() - start)
    return least * len(x) / rows


def _cubes_seconds(n: int) -> float:
    """n³/3 operations at the best rate of three products in NumPy's float32."""
    side = min(n, 4096)
    square, least = np.full((side, side), 0.5, np.float32), float("inf")
    for _ in range(3):
        start = time.perf_counter()
        square @ square
        least = min(least, time.perf_counter() - start)
    return least / (2 * side**3) * n**3 / 3


EXPERIMENT = Experiment(
    "scale",
    2,
    PROFILES,
    jobs,
    compute,
    gather,
    measured=("gram", "solve", "cross", "predict", "product", "cubes", "peak", "attack_seconds"),
    alone=True,
)
recorded = EXPERIMENT.recorded
