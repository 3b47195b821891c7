"""The picture of a front: inherited mIoU against latency, beside what else the search has seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latlut.reports.style import (
    DPI,
    GRID,
    INK,
    MUTED,
    STYLE,
    draw_heading,
    heading_of,
    picture_path,
    save,
)
from latlut.search.cosearch.folder import Found

#: Kinds of networks in the archive: how they are drawn, and what the legend calls them.
_KINDS = {
    ("random",): ("#9aa1ab", "random, near a target"),
    ("evolved",): ("#93b4dc", "evolved"),
    ("derived", "fitted"): ("#d9a26b", "of the search phase"),
}
_STUDENT = "#2563a8"
#: The page in inches: its width, margins, the panel, and what is below it.
_WIDTH, _SIDE, _PANEL, _BELOW = 8.2, 0.16, 3.9, 1.0


def plot_front(
    found: Found,
    measured_ms: Mapping[float, float],
    baselines_ms: Mapping[str, float],
    title: str,
    path: str | Path,
) -> None:
    """Draw all networks that were scored, and the student of each target.

    Args:
        found: a search with at least one student.
        measured_ms: of the students, by target; drawn beside the table's latency where known.
        baselines_ms: measured latencies of hand-designed networks by name: lines, as they have no
            mIoU without a training.
        title: above the picture.
        path: .png, .svg or .pdf; replaced if it exists, whole or not at all.

    Raises:
        SpecError: another suffix.
        WriteError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = picture_path(path)
    images = next((m.worth.images for m in found.members if m.worth is not None), None)
    judges = "" if images is None else f" on {images} validation images"
    subtitle = (
        f"mIoU with the supernet's weights{judges}, before any training of their own; "
        "latency by the table"
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(dpi=DPI)
        heading = heading_of(figure, title, subtitle, _WIDTH - 2 * _SIDE)
        height = heading.inches + _PANEL + _BELOW
        figure.set_size_inches(_WIDTH, height)
        axes = figure.add_axes((0.085, _BELOW / height, 0.885, (_PANEL - 0.45) / height))
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        for kinds, (colour, label) in _KINDS.items():
            items = [item for item in found.students if item.kind in kinds]
            axes.plot(
                [item.ms for item in items], [100 * item.inherited for item in items],
                "o", color=colour, alpha=0.8, markersize=4.5, markeredgewidth=0, label=label,
            )  # fmt: skip
        students = [member.student for member in found.members]
        axes.plot(
            [item.ms for item in students], [100 * item.inherited for item in students],
            "D-", color=_STUDENT, markersize=8, markeredgecolor="white", label="student",
        )  # fmt: skip
        seen = [m for m in found.members if m.target_ms in measured_ms]
        if seen:
            axes.plot(
                [measured_ms[m.target_ms] for m in seen],
                [100 * m.student.inherited for m in seen],
                "D", color=INK, fillstyle="none", markersize=8, label="student, measured",
            )  # fmt: skip
        for ms in baselines_ms.values():
            axes.axvline(ms, color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
        axes.set_xlabel("latency, ms")
        axes.set_ylabel("inherited mIoU, %")
        axes.margins(0.06)
        _name_lines(axes, baselines_ms)
        figure.legend(
            *axes.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0.06, 0.0),
            ncols=5, frameon=False, fontsize=8.5,
        )  # fmt: skip
        draw_heading(figure, heading, _SIDE)
        save(figure, path)


def _name_lines(axes: Any, baselines_ms: Mapping[str, float]) -> None:
    """Names above the panel, in three rows, those near its ends towards its middle."""
    left, right = axes.get_xlim()
    for number, (name, ms) in enumerate(sorted(baselines_ms.items(), key=lambda item: item[1])):
        place = (ms - left) / (right - left)
        axes.annotate(
            f"{name} {ms:.4g} ms", (ms, 1.0), (0, 3 + 10 * (number % 3)),
            xycoords=("data", "axes fraction"), textcoords="offset points",
            fontsize=7.5, color=MUTED, annotation_clip=False,
            ha="left" if place < 0.1 else "right" if place > 0.9 else "center",
        )  # fmt: skip
