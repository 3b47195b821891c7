"""The picture of a comparison: accuracy over what a network takes, or over what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlut.errors import SpecError
from latlut.reports.style import DPI, GRID, MUTED, STYLE, picture_path, save
from latlut.search.networks.comparing import ComparisonRow

_COLOURS = {
    "fasterseg": "#d97706",
    "architecture": "#d97706",
    "trained": "#15803d",
    "baseline": "#2563a8",
    "onnx": "#7c3aed",
}
_KINDS = {
    "fasterseg": "FasterSeg, published networks",
    "architecture": "searched",
    "trained": "trained here",
    "baseline": "designed by hand",
    "onnx": "ONNX file",
}


@dataclass(frozen=True)
class _Point:
    title: str
    kind: str
    x: float
    miou_percent: float
    source: str  # "val", "test" or "own"


def plot_comparison(
    rows: Sequence[ComparisonRow], title: str, subtitle: str, path: str | Path
) -> int:
    """Draw networks by accuracy and latency, or by multiply-accumulates where none was measured.

    Accuracy is what the papers publish, drawn hollow and labelled so, or what a training here
    reached on its own data, drawn filled. Networks without either are left out.

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
    points = [point for row in rows if (point := _point(row, is_measured, has_sizes))]
    if not points:
        raise SpecError("nothing to draw: no network has both an accuracy and a latency or MACs")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 6.0), dpi=DPI)
        axes = figure.add_axes((0.085, 0.205, 0.885, 0.665))
        _log_scale(axes)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        _set_limits(axes, points)
        _draw(axes, points)
        axes.set_xlabel(
            "measured latency, ms (log scale)"
            if is_measured
            else "multiply-accumulates, billions (log scale); nothing was measured"
        )
        axes.set_ylabel("mean IoU, %")
        _legend(figure, points)
        figure.text(0.02, 0.978, title, fontsize=13, fontweight="bold", va="top")
        figure.text(0.02, 0.937, subtitle, fontsize=9, color=MUTED, va="top")
        save(figure, path)
    return len(points)


def _point(row: ComparisonRow, is_measured: bool, has_size: bool) -> _Point | None:
    if is_measured:
        x = row.latency.latency_ms if row.latency else None
    else:
        x = row.cost.macs / 1e9 if row.cost and row.cost.macs else None
    if x is None:
        return None
    title = row.title
    if has_size and row.input_size is not None:
        title += f", {row.input_size[0]}x{row.input_size[1]}"
    if row.own_miou_percent is not None:
        return _Point(title, row.kind, x, row.own_miou_percent, "own")
    paper = row.published
    if paper is None or paper.miou_percent is None:
        return None
    source = "val" if paper.miou_val_percent else "test"
    return _Point(title, row.kind, x, paper.miou_percent.value, source)


_MARKERS = {"val": "o", "test": "^", "own": "o"}
_SOURCES = {
    "val": "published, Cityscapes validation set, at the paper's image size",
    "test": "published, Cityscapes test set, at the paper's image size",
    "own": "measured here, on its own data",
}


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
        colour = _COLOURS.get(point.kind, MUTED)
        axes.scatter(
            point.x, point.miou_percent, s=52, marker=_MARKERS[point.source],
            facecolors=colour if point.source == "own" else "none", edgecolors=colour,
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


def _set_limits(axes: Any, points: Sequence[_Point]) -> None:
    """Room for the names."""
    low, high = min(point.x for point in points), max(point.x for point in points)
    axes.set_xlim(low / 1.4, high * 1.8)
    bottom = min(point.miou_percent for point in points)
    top = max(point.miou_percent for point in points)
    span = max(top - bottom, 5.0)
    axes.set_ylim(bottom - 0.1 * span, top + 0.1 * span)


def _legend(figure: Any, points: Sequence[_Point]) -> None:
    from matplotlib.lines import Line2D

    shown: Any = {"linestyle": "none", "markersize": 7, "markeredgewidth": 1.6}
    kinds = [kind for kind in _KINDS if any(point.kind == kind for point in points)]
    handles = [
        Line2D([], [], marker="s", color=_COLOURS[kind], label=_KINDS[kind], **shown)
        for kind in kinds
    ]
    handles += [
        Line2D(
            [], [], marker=_MARKERS[source], color=MUTED, label=f"mean IoU: {text}",
            markerfacecolor=MUTED if source == "own" else "none", **shown,
        )
        for source, text in _SOURCES.items()
        if any(point.source == source for point in points)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.06, 0.0), ncols=2,
                  frameon=False, fontsize=8.5)  # fmt: skip
