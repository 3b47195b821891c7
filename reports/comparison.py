"""The picture of a comparison: accuracy over what a network takes, or over what it computes.

Accuracies of different data sets, or of different parts of one, cannot be compared: each has a
panel of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlut.errors import SpecError
from latlut.reports.style import (
    DPI,
    GRID,
    MUTED,
    STYLE,
    draw_heading,
    heading_of,
    picture_path,
    save,
    wrapped,
)
from latlut.search.networks.comparing import ComparisonRow

#: Of each kind of network: its colour and its name in a legend.
COLOURS = {
    "fasterseg": "#d97706",
    "architecture": "#b91c1c",
    "trained": "#15803d",
    "baseline": "#2563a8",
    "onnx": "#7c3aed",
}
KINDS = {
    "fasterseg": "FasterSeg, published networks",
    "architecture": "searched",
    "trained": "trained here",
    "baseline": "designed by hand",
    "onnx": "ONNX file",
}
#: Splits of Cityscapes on which papers publish mean IoU, and what a panel says of them.
PUBLISHED = {
    "val": "published, Cityscapes validation set, at the paper's image size",
    "test": "published, Cityscapes test set, at the paper's image size",
}

#: The page in inches: width, margins, a panel with the space above it, and the legend.
_WIDTH, _LEFT, _RIGHT, _TOP = 8.2, 0.7, 0.25, 0.32
_BOTTOM, _LEGEND_LINE = 0.55, 0.22
_PANEL_HEIGHTS = (4.0, 3.0)  # of one alone, of several


@dataclass(frozen=True)
class _Point:
    title: str
    kind: str
    x: float
    miou_percent: float
    panel: str  # the data set and its part
    is_own: bool  # measured here, rather than published


def plot_comparison(
    rows: Sequence[ComparisonRow], title: str, subtitle: str, path: str | Path
) -> int:
    """Draw networks by accuracy and latency, or by multiply-accumulates where none was measured.

    Accuracy is what the papers publish, drawn hollow, or what a training here reached on its own
    data, drawn filled; a panel for each data set and each part of one. Networks without either are
    left out.

    Args:
        rows: of one comparison; measured ones alone where any was measured.
        title, subtitle: above the picture.
        path: .png, .svg or .pdf; replaced if it exists, whole or not at all.

    Returns:
        How many networks are drawn.

    Raises:
        SpecError: another suffix, or no network with both numbers.
        ImportFileError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = picture_path(path)
    is_measured = any(row.latency for row in rows)
    has_sizes = len({row.input_size for row in rows if row.kind != "published"}) > 1
    found = [list(_points(row, is_measured, has_sizes)) for row in rows]
    points = [point for of_row in found for point in of_row]
    if not points:
        raise SpecError("nothing to draw: no network has both an accuracy and a latency or MACs")
    panels = list(dict.fromkeys(point.panel for point in points))
    kinds = [kind for kind in KINDS if any(point.kind == kind for point in points)]
    panel_height = _PANEL_HEIGHTS[len(panels) > 1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(dpi=DPI)
        heading = heading_of(figure, title, subtitle, _WIDTH - _LEFT - _RIGHT)
        legend = _LEGEND_LINE * -(-len(kinds) // _LEGEND_COLUMNS) + 0.1
        height = heading.inches + len(panels) * (panel_height + _TOP) + _BOTTOM + legend
        figure.set_size_inches(_WIDTH, height)
        first: Any = None
        for number, panel in enumerate(panels):
            top = heading.inches + number * (panel_height + _TOP) + _TOP
            axes = figure.add_axes(
                (_LEFT / _WIDTH, 1 - (top + panel_height) / height,
                 (_WIDTH - _LEFT - _RIGHT) / _WIDTH, panel_height / height),
                sharex=first,
            )  # fmt: skip
            first = first or axes
            mine = [point for point in points if point.panel == panel]
            _log_scale(axes)
            axes.grid(color=GRID, linewidth=0.8)
            axes.set_axisbelow(True)
            _set_limits(axes, points, mine)
            _draw(axes, mine)
            axes.set_ylabel("mean IoU, %")
            font: Any = {"fontsize": 9.5}
            said = wrapped(figure, panel, _WIDTH - _LEFT - _RIGHT, most_lines=1, **font)
            axes.set_title(said, loc="left", color=MUTED, pad=5, **font)
            if number < len(panels) - 1:
                axes.tick_params(labelbottom=False)
        axes.set_xlabel(
            "measured latency, ms (log scale)"
            if is_measured
            else "multiply-accumulates, billions (log scale); nothing was measured"
        )
        _legend(figure, kinds, height)
        draw_heading(figure, heading, _LEFT)
        save(figure, path)
    return sum(bool(of_row) for of_row in found)


def _points(row: ComparisonRow, is_measured: bool, has_size: bool) -> Iterator[_Point]:
    if is_measured:
        x = row.latency.latency_ms if row.latency else None
    else:
        x = row.cost.macs / 1e9 if row.cost and row.cost.macs else None
    if x is None:
        return
    title = row.title
    if has_size and row.input_size is not None:
        title += f", {row.input_size[0]}x{row.input_size[1]}"
    if row.own_miou_percent is not None:
        panel = f"measured here, {row.own_data or 'on its own data'}"
        yield _Point(title, row.kind, x, row.own_miou_percent, panel, True)
    paper = row.published
    for split, panel in PUBLISHED.items():
        figure = getattr(paper, f"miou_{split}_percent") if paper else None
        if figure is not None:
            yield _Point(title, row.kind, x, figure.value, panel, False)


#: Where a name may stand beside its point: offset in points, and what of it is there.
_PLACES = (
    ((7, 4), "left", "bottom"),
    ((7, -4), "left", "top"),
    ((-7, 4), "right", "bottom"),
    ((-7, -4), "right", "top"),
    ((0, 8), "center", "bottom"),
    ((0, -8), "center", "top"),
)
_NAME_SIZE = 8.5


def _draw(axes: Any, points: Sequence[_Point]) -> None:
    """The points, and their names where none covers another or a point."""
    for point in points:
        colour = COLOURS.get(point.kind, MUTED)
        axes.scatter(
            point.x, point.miou_percent, s=52, marker="o",
            facecolors=colour if point.is_own else "none", edgecolors=colour,
            linewidths=1.6, zorder=3,
        )  # fmt: skip
    to_pixels = axes.transData.transform
    pixel = axes.figure.dpi / 72  # pixels a point
    centres = [to_pixels((point.x, point.miou_percent)) for point in points]
    left, right = axes.bbox.x0, axes.bbox.x1 + 10 * pixel
    taken = [_around(x, y, 5 * pixel) for x, y in centres]
    for number, point in enumerate(points):
        x, y = centres[number]
        others = taken[:number] + taken[number + 1 :]
        boxes = [_name_box(point.title, x, y, place, pixel) for place in _PLACES]
        faults = [
            2 * (box[0] < left or box[2] > right) + sum(_overlap(box, other) for other in others)
            for box in boxes
        ]
        chosen = faults.index(min(faults))
        offset, horizontal, vertical = _PLACES[chosen]
        taken.append(boxes[chosen])
        axes.annotate(
            point.title, (point.x, point.miou_percent), xytext=offset, zorder=4,
            textcoords="offset points", ha=horizontal, va=vertical, fontsize=_NAME_SIZE,
        )  # fmt: skip


_Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels


def _around(x: float, y: float, radius: float) -> _Box:
    return x - radius, y - radius, x + radius, y + radius


def _name_box(title: str, x: float, y: float, place: Any, pixel: float) -> _Box:
    """About where a name would stand; its letters are taken to be 0.56 of their height wide."""
    (right, up), horizontal, vertical = place
    width, height = 0.56 * _NAME_SIZE * len(title) * pixel, 1.15 * _NAME_SIZE * pixel
    share = {"left": 0.0, "center": 0.5, "right": 1.0}[horizontal]
    left = x + right * pixel - share * width
    bottom = y + up * pixel - (height if vertical == "top" else 0)
    return left, bottom, left + width, bottom + height


def _overlap(first: _Box, second: _Box) -> bool:
    is_beside = first[2] < second[0] or second[2] < first[0]
    return not is_beside and not (first[3] < second[1] or second[3] < first[1])


def _log_scale(axes: Any) -> None:
    """A logarithmic axis whose ticks are plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _set_limits(axes: Any, points: Sequence[_Point], mine: Sequence[_Point]) -> None:
    """Room for the names: over all panels in width, over its own in height."""
    low, high = min(point.x for point in points), max(point.x for point in points)
    axes.set_xlim(low / 1.4, high * 1.8)
    bottom = min(point.miou_percent for point in mine)
    top = max(point.miou_percent for point in mine)
    span = max(top - bottom, 5.0)
    axes.set_ylim(bottom - 0.1 * span, top + 0.1 * span)


#: Beside each other in the legend.
_LEGEND_COLUMNS = 3


def _legend(figure: Any, kinds: Sequence[str], height: float) -> None:
    """Kinds of networks, below the panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", color=COLOURS[kind], label=KINDS[kind], linestyle="none",
               markersize=7, markeredgewidth=1.6)
        for kind in kinds
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(_LEFT / _WIDTH, 0.06 / height),
        ncols=_LEGEND_COLUMNS, frameon=False, fontsize=8.5, borderaxespad=0, borderpad=0,
    )  # fmt: skip
