"""What the studies of the search compute and draw of networks' mIoU."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats


def compared(miou: np.ndarray) -> dict[str, Any]:
    """How far searched networks are above random ones.

    Args:
        miou: (S, T, 1 + R) of S searches, T training seeds, the searched network and R random ones.

    Returns:
        The difference in ``points``, and of each search (``by_seed``). ``mixed``: networks are a
        random effect within each search, whose variance the random ones tell; with balanced data
        that is a t test on means over trainings, with S (R - 1) degrees of freedom. ``paired``: a t
        test of the S T differences, for which the searches themselves are fixed.
        ``permutation_p``: one-sided and exact, over which network of each search is the searched.
    """
    searches, _, networks = miou.shape
    means = miou.mean(1)
    differences = means[:, 0] - means[:, 1:].mean(1)
    points, freedom = float(differences.mean()), searches * (networks - 2)
    error = np.sqrt(means[:, 1:].var(1, ddof=1).mean() * networks / (networks - 1) / searches)
    each = (miou[:, :, 0] - miou[:, :, 1:].mean(2)).ravel()
    # (S, 1 + R): the difference if that network were the searched one.
    others = (means.sum(1, keepdims=True) - means) / (networks - 1)
    sums = np.array([sum(choice) for choice in itertools.product(*(means - others))])
    return {
        "points": points,
        "by_seed": differences.tolist(),
        "mixed": _interval(points, error, freedom),
        "paired": _interval(points, float(stats.sem(each)), len(each) - 1),
        "permutation_p": float((sums >= searches * points - 1e-9).mean()),
        "ahead_of": f"{int((means[:, :1] > means[:, 1:]).sum())} of {means[:, 1:].size}",
        "trainings": int(miou.size),
    }


def _interval(points: float, error: float, freedom: int) -> dict[str, float]:
    low, high = stats.t.interval(0.95, freedom, points, error)
    p = 2 * stats.t.sf(abs(points) / error, freedom)
    return {"ci_low": float(low), "ci_high": float(high), "p": float(p)}


def draw_scores(found: dict[str, Any], path: Path) -> None:
    """A panel for each search: inherited and trained mIoU of the networks, percentages."""
    columns = min(3, len(found["inherited"]))
    lines = -(-len(found["inherited"]) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3 * columns, 2.6 * lines), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, (name, scores) in zip(axes.flat, found["inherited"].items(), strict=False):
        axis.scatter(scores, found["trained"], s=16)
        axis.set_title(f"{name}: {found['spearman'][name][0]:+.2f}", fontsize=9)
    for axis in axes.flat[len(found["inherited"]) :]:
        axis.remove()
    figure.supxlabel("inherited mIoU, %")
    figure.supylabel("trained mIoU, %")
    figure.savefig(path, dpi=110)
    plt.close(figure)
