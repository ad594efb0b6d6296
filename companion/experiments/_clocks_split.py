"""The images of a case of the experiment on clocks, in their parts, and what attacks leave of them."""

import jax
import numpy as np

from companion import data, regression
from companion._core.checks import predicted
from companion._core.types import Key, Predict
from companion.attacks import STANDARD, Threat, autoattack, outputs_of, pgd
from companion.experiments._clocks_cases import Case
from companion.experiments._experiment import Arrays
from companion.experiments._shared import architecture

BITS = 16  # of images in a number: a record's float32 holds it exactly


class Split:
    """The images of a case, in their parts, and the kernel fitted to them."""

    def __init__(self, case: Case, seed: int, weights: tuple[float, float]) -> None:
        n = case.n_train
        d = data.load(
            case.dataset, classes=case.classes, n_train=n + case.n_val, n_test=case.n_test, seed=seed
        )
        self.case, self.seed, self.threat = case, seed, Threat("linf", case.eps)
        self.x, self.labels = d.x_train, d.y_train
        self.val, self.test = (d.x_train[n:], d.y_train[n:]), (d.x_test, d.y_test)
        self.kernel = architecture(case.kernel, w_std=weights[0], b_std=weights[1])
        self.targets = data.targets(d.y_train, len(d.classes))
        self.f = regression.fit(self.kernel, self.x[:n], self.targets[:n])
        self.unit = float(self.f.eigenvalues.mean())

    def key(self, number: int) -> Key:
        return jax.random.fold_in(jax.random.key(self.seed), number)

    def right(self, f: Predict, part: tuple[np.ndarray, np.ndarray], steps: int) -> np.ndarray:
        """Right as it is, and under PGD too, (2, m)."""
        x, y = part
        moved = pgd(f, x, y, self.threat, steps=steps, early_stop=True)
        clean, attacked = (predicted(outputs_of(f, points, 256)) == y for points in (x, moved))
        return np.stack([clean, clean & attacked])

    def resisting(self, f: Predict, right: np.ndarray, n: int, names: tuple[str, ...]) -> np.ndarray:
        """Of the first n images those that PGD and AutoAttack's attacks leave, after each of them, (., n)."""
        some, found = np.flatnonzero(right[1, :n]), np.zeros((len(names), n), bool)
        if len(some):
            x, y = self.test[0][some], self.test[1][some]
            options = {"version": names, "batch_size": min(128, len(some))}
            by = autoattack(f, x, y, self.threat, key=self.key(1), **options).fooled_by
            for place, after in enumerate(found, start=1):
                after[some] = (by < 0) | (by > place)
        return found

    def measured(self, fits: list[tuple[Predict, bool]], steps: int) -> Arrays:
        """Packed, of all fits; Auto-PGD where it is wanted."""
        rights = [self.right(f, self.test, steps) for f, _ in fits]
        nothing = np.full(-(-self.case.n_auto // BITS), np.nan)
        autos = [
            packed(self.resisting(f, right, self.case.n_auto, STANDARD[:2])[-1]) if wanted else nothing
            for (f, wanted), right in zip(fits, rights, strict=True)
        ]
        return {
            "right": np.stack([[packed(one) for one in right] for right in rights]),
            "auto": np.stack(autos),
        }


def packed(right: np.ndarray) -> np.ndarray:
    padded = np.zeros((-(-len(right) // BITS), BITS))
    padded.ravel()[: len(right)] = right
    return padded @ 2.0 ** np.arange(BITS)


def unpacked(packed: np.ndarray, n: int) -> np.ndarray:
    return (packed.astype(int)[:, None] >> np.arange(BITS) & 1).ravel()[:n].astype(np.float32)
