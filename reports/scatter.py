"""The picture of a validation: estimated against measured latency of whole networks.

The upper panel is the FasterSeg paper's Fig. 3 with the line y = x, the lower one shows what that
figure hides: the relative error of every network, with a band of 5% around zero.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latlut.errors import SpecError
from latlut.reports.style import (
    GRID,
    MUTED,
    STYLE,
    draw_heading,
    heading_of,
    picture_path,
    save,
)
from latlut.stats.agreement import Agreement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND_PERCENT = 5.0

#: The page in inches: heading and legend, a square panel, and a flat one of the same width below.
_WIDTH, _LEFT, _SIDE = 6.1, 0.75, 5.1
_LEGEND, _LEGEND_LINE, _PANEL_BOTTOM = 0.06, 0.18, 2.35

_POINTS = "#2563a8"
_CALIBRATED = "#d97706"
_IDEAL = "#d62728"


def plot_agreement(
    estimated_ms: npt.ArrayLike,
    measured_ms: npt.ArrayLike,
    agreement: Agreement,
    title: str,
    subtitle: str,
    path: str | Path,
    *,
    ci_low_ms: npt.ArrayLike | None = None,
    ci_high_ms: npt.ArrayLike | None = None,
    calibrated_ms: npt.ArrayLike | None = None,
    calibrated_agreement: Agreement | None = None,
) -> None:
    """Draw estimated against measured latency, with relative errors below, into a file.

    Args:
        estimated_ms: (N,) float, estimated latency of each network, milliseconds; the plain one
            where there are calibrated ones.
        measured_ms: (N,) float, measured latency, milliseconds.
        agreement: the numbers of the text box, of these estimates.
        title: above the picture.
        subtitle: what was measured where. Both are wrapped, and shortened where they are too long.
        path: .png, .svg or .pdf; replaced if it exists, whole or not at all.
        ci_low_ms, ci_high_ms: (N,) float, interval of each estimate, drawn as a horizontal bar;
            of the calibrated estimates where these are given.
        calibrated_ms: (N,) float, the estimates after calibration, drawn as a second series.
        calibrated_agreement: the numbers of these, beside the others in the text box.

    Raises:
        SpecError: shapes that differ, latencies that are not finite and positive, an interval
            without its other end, calibrated estimates without their agreement or the other way
            round, or another suffix.
        ImportFileError: the file cannot be written.

    Source: FasterSeg, Fig. 3.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = picture_path(path)
    estimated = _checked("estimated_ms", estimated_ms, None)
    measured = _checked("measured_ms", measured_ms, len(estimated))
    if (ci_low_ms is None) != (ci_high_ms is None):
        raise SpecError("ci_low_ms and ci_high_ms: give both or neither")
    if (calibrated_ms is None) != (calibrated_agreement is None):
        raise SpecError("calibrated_ms and calibrated_agreement: give both or neither")
    calibrated = None
    if calibrated_ms is not None:
        calibrated = _checked("calibrated_ms", calibrated_ms, len(estimated))
    bars = None
    if ci_low_ms is not None and ci_high_ms is not None:
        low = _checked("ci_low_ms", ci_low_ms, len(estimated), is_bound=True)
        high = _checked("ci_high_ms", ci_high_ms, len(estimated), is_bound=True)
        middle = estimated if calibrated is None else calibrated
        bars = np.clip([middle - low, high - middle], 0, None)  # (2, N)

    with matplotlib.rc_context(STYLE):
        figure = Figure()
        heading = heading_of(figure, title, subtitle, _WIDTH - _LEFT - 0.1)
        legend = _LEGEND + _LEGEND_LINE * (1 if bars is None and calibrated is None else 2)
        page = _PANEL_BOTTOM + _SIDE + legend + heading.inches
        figure.set_size_inches(_WIDTH, page)
        upper = figure.add_axes(_box(page, bottom=_PANEL_BOTTOM, height=_SIDE))
        lower = figure.add_axes(_box(page, bottom=0.55, height=1.2))
        _draw_scatter(upper, estimated, measured, bars, calibrated)
        _draw_errors(lower, estimated, measured, calibrated)
        lower.set_xlim(upper.get_ylim())
        series = [estimated] if calibrated is None else [estimated, calibrated]
        if calibrated_agreement is None:
            _draw_summary(upper, agreement, _emptier_corner(upper, series, measured))
        else:
            corner = _emptier_corner(upper, series, measured)
            _draw_summaries(upper, agreement, calibrated_agreement, corner)
        draw_heading(figure, heading, _LEFT)
        figure.legend(  # above the panel, which points fill
            *upper.get_legend_handles_labels(), loc="lower left", ncols=2, frameon=False,
            bbox_to_anchor=(_LEFT / _WIDTH, (_PANEL_BOTTOM + _SIDE + 0.04) / page), fontsize=9,
            handlelength=1.6, borderaxespad=0, borderpad=0, labelspacing=0.35,
        )  # fmt: skip
        save(figure, path)


_Floats = npt.NDArray[np.float64]


def _box(page: float, *, bottom: float, height: float) -> tuple[float, float, float, float]:
    """Left, bottom, width and height as shares of a page of so many inches, from inches."""
    return _LEFT / _WIDTH, bottom / page, _SIDE / _WIDTH, height / page


def _checked(
    name: str, values: npt.ArrayLike, length: int | None, *, is_bound: bool = False
) -> _Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or (length is not None and len(array) != length):
        expected = f"({length},)" if length else "(N,)"
        raise SpecError(f"{name}: expected shape {expected}, received {array.shape}")
    if not np.isfinite(array).all() or (not is_bound and (array <= 0).any()):
        raise SpecError(f"{name}: latencies are finite and positive, some of these are not")
    return array


def _marker_area(count: int) -> float:
    """Square points: large for tens of networks, small for thousands."""
    return float(np.clip(225 / math.sqrt(count), 9, 34))


def _limits(*series: _Floats | None) -> tuple[float, float]:
    together = np.concatenate([values for values in series if values is not None])
    low, high = float(together.min()), float(together.max())
    margin = 0.06 * (high - low) or 0.05 * high
    return max(0.0, low - margin), high + margin


def _draw_scatter(
    axes: Axes,
    estimated: _Floats,
    measured: _Floats,
    bars: _Floats | None,
    calibrated: _Floats | None,
) -> None:
    low, high = _limits(estimated, measured, calibrated)
    count = len(estimated)
    opacity = 0.85 if count <= 100 else 0.55
    _frame(axes)
    axes.plot([low, high], [low, high], color=_IDEAL, linewidth=1.4, zorder=2, label="y = x")
    is_plain = calibrated is None
    if bars is not None:
        axes.errorbar(
            estimated if calibrated is None else calibrated, measured, xerr=bars, fmt="none",
            ecolor=_POINTS if is_plain else _CALIBRATED, elinewidth=0.9, alpha=0.35, zorder=2.5,
            label="95% interval of the estimate" if is_plain else "95% interval, calibrated",
        )  # fmt: skip
    axes.scatter(
        estimated, measured, s=_marker_area(count), color=_POINTS, alpha=opacity, linewidths=0.5,
        edgecolors="white", zorder=3, label="estimate" if is_plain else "plain: sum of entries",
    )  # fmt: skip
    if calibrated is not None:
        axes.scatter(
            calibrated, measured, s=_marker_area(count) * 0.8, facecolors="none",
            edgecolors=_CALIBRATED, linewidths=1.0, alpha=opacity, zorder=3.5, label="calibrated",
        )  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel("estimated latency, ms")
    axes.set_ylabel("measured latency, ms")


def _draw_errors(
    axes: Axes, estimated: _Floats, measured: _Floats, calibrated: _Floats | None
) -> None:
    """Percent error of every network over its measured latency."""
    error_percent = 100 * (estimated / measured - 1)
    shown = [error_percent]
    area = _marker_area(len(measured)) * 0.7
    _frame(axes)
    axes.axhspan(-BAND_PERCENT, BAND_PERCENT, color="#9aa1ab", alpha=0.16, linewidth=0, zorder=0.5)
    axes.axhline(0, color=_IDEAL, linewidth=1.2, zorder=2)
    axes.scatter(
        measured, error_percent, s=area, color=_POINTS, alpha=0.8, linewidths=0.4,
        edgecolors="white", zorder=3,
    )  # fmt: skip
    if calibrated is not None:
        calibrated_percent = 100 * (calibrated / measured - 1)
        shown.append(calibrated_percent)
        axes.scatter(
            measured, calibrated_percent, s=area * 0.8, facecolors="none",
            edgecolors=_CALIBRATED, linewidths=0.9, alpha=0.8, zorder=3.5,
        )  # fmt: skip
    together = np.concatenate([*shown, [-1.3 * BAND_PERCENT, 1.3 * BAND_PERCENT]])
    margin = 0.06 * float(np.ptp(together))
    axes.set_ylim(float(together.min()) - margin, float(together.max()) + margin)
    axes.text(
        0.995, BAND_PERCENT, f"±{BAND_PERCENT:g}%", transform=axes.get_yaxis_transform(),
        ha="right", va="top", fontsize=8, color=MUTED, zorder=4,
        bbox={"boxstyle": "square,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.7},
    )  # fmt: skip
    axes.set_xlabel("measured latency, ms")
    axes.set_ylabel("error, %")


def _frame(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, width=0.8)


#: Of the box with the numbers, and about how much of the panel it takes.
_EDGE, _OPACITY = "#d0d4da", 0.94
_CORNER = (0.62, 0.22)


def _emptier_corner(axes: Axes, series: list[_Floats], measured: _Floats) -> str:
    """Of the two corners away from the line, the one in which fewer points lie."""
    to_share = axes.transData + axes.transAxes.inverted()
    shares = np.concatenate([to_share.transform(np.column_stack([x, measured])) for x in series])
    wide, high = _CORNER
    lower_right = (shares[:, 0] > 1 - wide) & (shares[:, 1] < high)
    upper_left = (shares[:, 0] < wide) & (shares[:, 1] > 1 - high)
    return "upper left" if upper_left.sum() < lower_right.sum() else "lower right"


def _draw_summary(axes: Axes, agreement: Agreement, corner: str) -> None:
    """The text box: correlation and error, each beside the best that the noise allows."""
    ceiling = _number(agreement.ceiling_r, 4)
    floor = _number(agreement.noise_floor_mape_percent, 2, "%")
    lines = (
        f"r = {_number(agreement.r, 4)}  (noise limit {ceiling})",
        f"MAPE = {_number(agreement.mape_percent, 2, '%')}  (noise limit {floor})",
        f"within 5%: {100 * agreement.within_5:.0f}% of n = {agreement.n} networks",
    )
    is_low = corner == "lower right"
    axes.text(
        0.97 if is_low else 0.03, 0.035 if is_low else 0.965, "\n".join(lines),
        transform=axes.transAxes, ha="right" if is_low else "left",
        va="bottom" if is_low else "top",
        multialignment="left", fontsize=9, linespacing=1.55, zorder=5,
        bbox={"boxstyle": "round,pad=0.6", "fc": "white", "ec": _EDGE, "alpha": _OPACITY},
    )  # fmt: skip


def _draw_summaries(axes: Axes, plain: Agreement, calibrated: Agreement, corner: str) -> None:
    """The text box with a column for each estimate, and what the noise allows both."""
    from matplotlib.patches import FancyBboxPatch

    floor = _number(plain.noise_floor_mape_percent, 2, "%")
    columns = (
        (f"n = {plain.n}", "r", "MAPE", "within 5%"),
        ("plain", *_numbers(plain)),
        ("calibrated", *_numbers(calibrated)),
        ("noise limit", _number(plain.ceiling_r, 4), floor, ""),
    )
    left, bottom = (0.4, 0.045) if corner == "lower right" else (0.03, 0.8)
    place: Any = (left, bottom, 0.57, 0.155)  # width and height as shares of the panel, too
    box = FancyBboxPatch(
        place[:2], place[2], place[3], boxstyle="round,pad=0.01,rounding_size=0.01",
        transform=axes.transAxes, facecolor="white", edgecolor=_EDGE, alpha=_OPACITY, zorder=5,
    )  # fmt: skip
    axes.add_artist(box)
    table = axes.table(
        list(zip(*columns, strict=True)), edges="open", cellLoc="left",
        colWidths=(0.26, 0.23, 0.265, 0.245), bbox=place, zorder=6,
    )  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for cell in table.get_celld().values():
        cell.PAD = 0.03  # of the cell's width, left of its text


def _numbers(agreement: Agreement) -> tuple[str, str, str]:
    """r, mean absolute percent error, share within 5%."""
    error = _number(agreement.mape_percent, 2, "%")
    return _number(agreement.r, 4), error, f"{100 * agreement.within_5:.0f}%"


def _number(value: float, digits: int, unit: str = "") -> str:
    return f"{value:.{digits}f}{unit}" if math.isfinite(value) else "undefined"
