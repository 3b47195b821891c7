"""The picture of an ablation: mIoU against latency, every seed and each row's mean."""

from __future__ import annotations

from pathlib import Path

from latlut.reports.style import (
    DPI,
    GRID,
    MUTED,
    STYLE,
    draw_heading,
    heading_of,
    picture_path,
    save,
)
from latlut.search.cosearch.ablation import STRATEGIES
from latlut.search.cosearch.ablation_results import AblationResult

_COLOURS = {
    "one-branch": "#7c3aed",
    "two-branches": "#2563a8",
    "student": "#d97706",
    "teacher": "#6b7280",
    "pruned-teacher": "#b91c1c",
    "distilled": "#15803d",
}

#: The page in inches: its width, margins, the panel, and what is below it.
_WIDTH, _SIDE, _PANEL, _BELOW = 8.2, 0.16, 3.5, 1.37


def plot_ablation(found: AblationResult, title: str, subtitle: str, path: str | Path) -> None:
    """Draw mIoU against latency: a dot for each seed, the mean of a row as a diamond.

    Args:
        found: results of at least one seed.
        title, subtitle: above the picture.
        path: .png, .svg or .pdf; replaced if it exists, whole or not at all.

    Raises:
        SpecError: another suffix.
        ImportFileError: the file cannot be written.

    Source: the numbers of FasterSeg's Table 3.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = picture_path(path)
    with matplotlib.rc_context(STYLE):
        figure = Figure(dpi=DPI)
        heading = heading_of(figure, title, subtitle, _WIDTH - 2 * _SIDE)
        height = heading.inches + _PANEL + _BELOW
        figure.set_size_inches(_WIDTH, height)
        axes = figure.add_axes((0.085, _BELOW / height, 0.885, (_PANEL - 0.05) / height))
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        for strategy in STRATEGIES:
            rows, colour = found.of(strategy), _COLOURS[strategy.name]
            latency, score = (
                found.spread(strategy, name) for name in ("latency_ms", "miou_percent")
            )
            if latency is None or score is None:
                continue  # a teacher that the table cannot price
            axes.plot(
                [row.latency_ms or 0.0 for row in rows], [row.miou_percent for row in rows],
                "o", color=colour, alpha=0.45, markersize=5, markeredgewidth=0,
            )  # fmt: skip
            axes.plot(
                [latency.mean], [score.mean],
                "D", color=colour, markersize=9, markeredgecolor="white", label=strategy.title,
            )  # fmt: skip
        axes.set_xlabel("latency by the table, ms")
        axes.set_ylabel("mIoU after the last epoch, %")
        axes.margins(0.08)
        handles, labels = axes.get_legend_handles_labels()
        handles.append(
            axes.plot([], [], "o", color=MUTED, alpha=0.6, markersize=5, markeredgewidth=0)[0]
        )
        labels.append("each seed; diamonds are means")
        figure.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0.06, 0.0), ncols=3,
            frameon=False, fontsize=8.5,
        )  # fmt: skip
        draw_heading(figure, heading, _SIDE)
        save(figure, path)
