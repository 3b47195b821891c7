"""The picture of a validation's residuals: errors over what the networks are, panel by panel.

Size and depth, then the three kinds of operator whose share goes along with the error most. All
panels share the error axis, so that a trend's steepness can be compared; plain and calibrated
estimates are drawn with their least-squares lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latlut.errors import SpecError
from latlut.reports.style import (
    GRID,
    INK,
    MUTED,
    STYLE,
    draw_heading,
    heading_of,
    picture_path,
    save,
    wrapped,
)
from latlut.validation.trends import DEPTH, SIZE, Slope, Trend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: How many kinds of operator get a panel.
KINDS = 3

_COLUMNS = 3
#: In inches: margins, the legend, what stands above the panels, and the least width of a page.
_LEFT, _RIGHT, _LEGEND, _ABOVE_PANELS, _LEAST_WIDTH = 0.65, 0.2, 0.22, 0.4, 4.6
_PLAIN, _CALIBRATED = "#2563a8", "#d97706"
_NOTES = (
    "Above each panel: change of the error in percentage points from the property's 10th to its "
    "90th percentile, least squares (95% interval); rank: Spearman's correlation, * where its "
    "p-value, corrected for all trends, is below 0.05."
)


def plot_residuals(
    trends: Sequence[Trend],
    plain_error_percent: npt.ArrayLike,
    calibrated_error_percent: npt.ArrayLike | None,
    subject: str,
    path: str | Path,
) -> None:
    """Draw relative errors over size, depth and the kinds with the largest trends, into a file.

    Args:
        trends: of the networks, as ``validation.trends.trends`` gives; at least one.
        plain_error_percent: (N,) 100 * (plain / measured - 1) of each network.
        calibrated_error_percent: (N,) the same of the calibrated estimates, None without them.
        subject: what was measured where, below the title.
        path: .png, .svg or .pdf; replaced if it exists, whole or not at all.

    Raises:
        SpecError: no trend, shapes that differ, errors that are not finite, or another suffix.
        ImportFileError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = picture_path(path)
    shown = shown_trends(trends)
    if not shown:
        raise SpecError("there are no trends to draw: the networks are too few, or all alike")
    count = len(shown[0].values)
    plain = _checked("plain_error_percent", plain_error_percent, count)
    calibrated = None
    if calibrated_error_percent is not None:
        calibrated = _checked("calibrated_error_percent", calibrated_error_percent, count)

    rows = math.ceil(len(shown) / _COLUMNS)
    columns = min(len(shown), _COLUMNS)
    width = max(3.05 * columns + 0.6, _LEAST_WIDTH)
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        inside = width - _LEFT - _RIGHT
        heading = heading_of(figure, "Errors by properties of the networks", subject, inside)
        font: Any = {"fontsize": 8}
        notes = wrapped(figure, _NOTES, inside, most_lines=4, **font)
        top = heading.inches + _LEGEND + _ABOVE_PANELS
        bottom = 0.62 + 0.14 * (notes.count("\n") + 1)
        height = 2.65 * rows - 0.45 + top + bottom
        figure.set_size_inches(width, height)
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
        figure.subplots_adjust(
            left=_LEFT / width, right=1 - _RIGHT / width, top=1 - top / height,
            bottom=bottom / height, hspace=0.52, wspace=0.08,
        )  # fmt: skip
        for panel, trend in zip(axes.flat, shown, strict=False):
            _draw(panel, trend, plain, calibrated)
        for panel in axes.flat[len(shown) :]:
            panel.set_visible(False)
        for row in axes:
            row[0].set_ylabel("error, %")
        _set_limits(axes[0, 0], plain, calibrated)
        draw_heading(figure, heading, _LEFT)
        figure.text(_LEFT / width, 0.1 / height, notes, color=MUTED, va="bottom", **font)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper left",
            bbox_to_anchor=(_LEFT / width, 1 - heading.inches / height),
            ncols=len(labels), frameon=False, fontsize=9, borderaxespad=0, borderpad=0,
            handlelength=1.6,
        )  # fmt: skip
        save(figure, path)


_Floats = npt.NDArray[np.float64]


def shown_trends(trends: Sequence[Trend]) -> list[Trend]:
    """Those that get a panel: size, depth, and the first kinds."""
    first = [trend for trend in trends if trend.name in (SIZE, DEPTH)]
    kinds = [trend for trend in trends if trend.name not in (SIZE, DEPTH)]
    return first + kinds[:KINDS]


def _draw(axes: Axes, trend: Trend, plain: _Floats, calibrated: _Floats | None) -> None:
    axes.grid(color=GRID, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, width=0.8)
    axes.axhline(0, color=INK, linewidth=1.0, alpha=0.6, zorder=2)
    area = float(np.clip(170 / math.sqrt(len(plain)), 6, 26))
    opacity = 0.7 if len(plain) <= 100 else 0.45
    axes.scatter(
        trend.values, plain, s=area, color=_PLAIN, alpha=opacity, linewidths=0.4,
        edgecolors="white", zorder=3, label="sum of entries",
    )  # fmt: skip
    _draw_line(axes, trend.values, plain, _PLAIN)
    text = [_change_text(trend.plain)]
    if calibrated is not None:
        axes.scatter(
            trend.values, calibrated, s=area * 0.8, facecolors="none", edgecolors=_CALIBRATED,
            linewidths=0.9, alpha=opacity, zorder=3.5, label="calibrated",
        )  # fmt: skip
        _draw_line(axes, trend.values, calibrated, _CALIBRATED)
        text += [] if trend.calibrated is None else [_change_text(trend.calibrated)]
    for position, (line, colour) in enumerate(zip(text, (_PLAIN, _CALIBRATED), strict=False)):
        axes.text(
            0.0, 1.02 + 0.085 * (len(text) - 1 - position), line, transform=axes.transAxes,
            fontsize=8, color=colour, va="bottom",
        )  # fmt: skip
    axes.set_xlabel(f"{trend.name}, {trend.unit}")


def _draw_line(axes: Axes, values: _Floats, error: _Floats, colour: str) -> None:
    slope, intercept = np.polyfit(values, error, 1)
    ends = np.array([values.min(), values.max()])
    axes.plot(ends, intercept + slope * ends, color=colour, linewidth=1.6, zorder=4)


def _change_text(slope: Slope) -> str:
    mark = "*" if slope.is_significant else ""
    return (
        f"{slope.change_percent:+.1f} ({slope.low_percent:+.1f} to {slope.high_percent:+.1f}) "
        f"points, rank {slope.spearman:+.2f}{mark}"
    )


def _set_limits(axes: Axes, plain: _Floats, calibrated: _Floats | None) -> None:
    together = np.concatenate([plain, [0.0], plain if calibrated is None else calibrated])
    margin = 0.07 * float(np.ptp(together)) or 1.0
    axes.set_ylim(float(together.min()) - margin, float(together.max()) + margin)


def _checked(name: str, values: npt.ArrayLike, length: int) -> _Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (length,):
        raise SpecError(f"{name}: expected shape ({length},), received {array.shape}")
    if not np.isfinite(array).all():
        raise SpecError(f"{name}: errors are finite, some of these are not")
    return array
