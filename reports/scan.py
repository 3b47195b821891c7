"""The picture of a scan: latency over one parameter with its steps, or over two as a heat map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlut.errors import SpecError
from latlut.measure.scan import Scan, ScanLine
from latlut.reports.style import GRID, INK, MUTED, STYLE, picture_path, save, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINT, _FIT, _STEP = "#2563a8", "#d97706", "#b91c1c"
#: So many steps are named in the picture; of more, only lines are drawn.
_NAMED = 12
#: Of the panel at least, in inches: a heat map leaves room for its colours.
_PANEL_WIDTH = 5.8


def plot_scan(found: Scan, subject: str, path: str | Path) -> None:
    """Draw a scan into a file.

    Args:
        found: what was measured; one parameter or two.
        subject: on what, below the title.
        path: .png, .svg or .pdf; replaced if it exists, whole or not at all.

    Raises:
        SpecError: no point has an entry, or another suffix.
        WriteError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = picture_path(path)
    if not any(point.entry is not None for point in found.points):
        raise SpecError("there is nothing to draw: no point of the scan has an entry")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 5.2), layout="constrained")
        axes = figure.subplots()
        if len(found.grid.parameters) == 2:
            _draw_map(figure, axes, found)
        elif found.lines:
            _draw_line(axes, found.lines[0])
            axes.set_xlabel(found.grid.parameters[0].name)
        else:
            _draw_words(axes, found)
        bold: Any = {"fontsize": 12, "fontweight": "bold"}
        figure.suptitle(wrapped(figure, found.grid.text, 7.8, **bold), x=0.01, ha="left", **bold)
        small: Any = {"fontsize": 8.5}
        said = wrapped(figure, subject, _PANEL_WIDTH, **small)
        axes.set_title(said, loc="left", color=MUTED, **small)
        save(figure, path)


def _draw_line(axes: Axes, line: ScanLine) -> None:
    numbers = np.array(line.numbers)
    entries = [point.entry for point in line.points if point.entry is not None]
    latencies = np.array([entry.latency_ms for entry in entries])
    bars = np.nan_to_num(np.array([entry.own_error_ms for entry in entries], dtype=float))
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylabel("latency, ms (95% intervals, without the error that all share)")
    axes.errorbar(
        numbers, latencies, bars, fmt="o", color=_POINT, ecolor=_POINT, markersize=3.2,
        elinewidth=0.9, alpha=0.8, zorder=3,
    )  # fmt: skip
    if line.staircase is None:
        return
    fitted = np.array(line.staircase.fitted_ms)
    for first, last in line.staircase.segments:
        axes.plot(numbers[first : last + 1], fitted[first : last + 1], color=_FIT, lw=1.8, zorder=4)
    steps = line.staircase.steps
    for step in steps:
        at = (numbers[step.before] + numbers[step.before + 1]) / 2
        axes.axvline(at, color=_STEP, lw=0.8, alpha=0.5, zorder=2)
        if len(steps) <= _NAMED:
            axes.text(
                at, 1.0, f"{numbers[step.before + 1]}: {step.percent:+.1f}%", color=_STEP,
                transform=axes.get_xaxis_transform(), rotation=90, fontsize=7.5, ha="right",
                va="top",
            )  # fmt: skip
    if 0 < len(steps) <= _NAMED:  # room for their names above the points
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.25 * (high - low))


def _draw_words(axes: Axes, found: Scan) -> None:
    """A parameter whose values are words."""
    points = [(p.values[0], p.entry) for p in found.points if p.entry is not None]
    axes.barh([str(value) for value, _ in points], [e.latency_ms for _, e in points], color=_POINT)
    axes.set_xlabel("latency, ms")
    axes.set_ylabel(found.grid.parameters[0].name)


def _draw_map(figure: Figure, axes: Axes, found: Scan) -> None:
    rows, columns = found.grid.parameters
    place = {
        (row, column): (y, x)
        for y, row in enumerate(rows.values)
        for x, column in enumerate(columns.values)
    }
    latencies = np.full((len(rows.values), len(columns.values)), np.nan)
    for point in found.points:
        if point.entry is not None:
            row, column = point.values
            latencies[place[row, column]] = point.entry.latency_ms
    image = axes.imshow(latencies, aspect="auto", origin="lower", cmap="viridis")
    figure.colorbar(image, ax=axes, label="latency, ms")
    for axis, parameter in ((axes.yaxis, rows), (axes.xaxis, columns)):
        every = -(-len(parameter.values) // 16)
        axis.set_ticks(
            range(0, len(parameter.values), every), [str(v) for v in parameter.values[::every]]
        )
        axis.set_label_text(parameter.name)
    for line in found.lines:
        other = found.grid.parameters[1 - line.parameter]
        across = other.values.index(line.held) if line.held is not None else 0
        values = list(found.grid.parameters[line.parameter].values)
        for step in line.staircase.steps if line.staircase else ():
            before = values.index(line.numbers[step.before])
            after = values.index(line.numbers[step.before + 1])
            at, sides = (before + after) / 2, [across - 0.5, across + 0.5]
            xy = (sides, [at, at]) if line.parameter == 0 else ([at, at], sides)
            axes.plot(*xy, color="white", lw=1.2, solid_capstyle="butt")
    axes.spines[:].set_color(INK)
