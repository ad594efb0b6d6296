"""Figure of the chapter on neighbors: two features along training, and what attacks leave."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from companion.figures._layout import Figure, Places, sheet
from companion.plots import COLORS, interval

TRAINED = {
    "standard": ("clean", "o", "-"),
    "random signs": ("network", "^", "-"),
    "PGD": ("adversarial", "s", "-"),
    "lazy, standard": ("clean", "o", ":"),
    "lazy, PGD": ("adversarial", "s", ":"),
}
"""Ways of training with color, marker and style."""


def two_features(
    steps: Places,
    strengths: Mapping[str, Float[np.ndarray, "seeds e 2"]],
    sizes: Places,
    accuracy: Mapping[str, Float[np.ndarray, "m 3"]],
    *,
    window: tuple[float, float],
) -> Figure:
    """Draw how strong two features become in the weights, and accuracy against the size of an attack.

    Args:
        steps: at which strengths are given, (e,).
        strengths: after "standard" training and "PGD" training, by seed: of the robust feature and of the
            non-robust one, (seeds, e, 2).
        sizes: ε of the attacks, 0 for none, (m,).
        accuracy: of ways of training in `TRAINED`: value, low and high ends, (m, 3).
        window: the ε between which theory has the robust feature alone grow.

    Returns:
        The figure: strengths above, a thin line a seed, accuracy below.
    """
    figure, (ax, below) = sheet(2.9, 3.3)
    for name, style in (("standard", "--"), ("PGD", "-")):
        for part, hue in ((0, "robust"), (1, "nonrobust")):
            values = strengths[name][:, :, part]
            ax.semilogy(steps, values.T, style, color=COLORS[hue], alpha=0.3, linewidth=0.8)
            label = f"{'non-robust' if part else 'robust'}, {name}"
            middle = np.exp(np.log(values).mean(axis=0))
            ax.semilogy(steps, middle, style, color=COLORS[hue], label=label)
    ax.set(xlabel="gradient steps", ylabel="strength of the feature")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    below.axvspan(*window, color=COLORS["chance"], alpha=0.2, linewidth=0)
    for name, values in accuracy.items():
        hue, marker, style = TRAINED[name]
        kind = {"label": name, "color": hue, "linestyle": style, "marker": marker, "markersize": 4}
        interval(below, np.asarray(sizes), *np.asarray(values).T, **kind)
    below.set(xlabel=r"$\varepsilon$ of the attack", ylabel="accuracy", ylim=(-0.05, 1.05))
    below.legend(loc="upper right", fontsize=8)
    return figure
