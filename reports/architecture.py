"""The picture of one discrete network, in the manner of the FasterSeg paper's Fig. 6.

Layers run from left to right, scales from top to bottom. A cell is a bar: its colour and label
are the operator, its height the width, with the channels below. Cells that both branches share
stand once, between the lanes of the branches; a down cell leads into the next row. On the right
the branches come back up through their refinements, meet in the fusion and end in the head.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlut.reports.style import INK, MUTED, STYLE, picture_path, save, wrapped
from latlut.spaces.architecture import Architecture, Branch
from latlut.spaces.shapes import FULL_WIDTH, SCALES, channels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A column of the drawing, a lane, the space between rows, and margins, in inches.
_COLUMN, _LANE, _ROW_SPACE = 0.74, 1.02, 0.2
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.75, 0.25, 0.85, 0.72
_LEAST_WIDTH = 8.1  # of the legend
#: Bars: shares of a column and of a lane that a full width takes.
_BAR_WIDTH, _FULL_BAR = 0.74, 0.62
#: How far above a lane's middle, in lanes, a map runs along it that passes a down cell by.
_OVER = 0.48

_FAINT, _BOX = "#c3c9d1", "#eceff3"
_COLOURS = {
    "conv": "#8fbbe8",
    "conv_2x": "#2563a8",
    "zoomed_conv": "#f6bd6b",
    "zoomed_conv_2x": "#d97706",
}
_LABELS = {
    "conv": "conv",
    "conv_2x": "conv ×2",
    "zoomed_conv": "zoom",
    "zoomed_conv_2x": "zoom ×2",
}
_DARK = ("conv_2x", "zoomed_conv_2x")
_BRANCH_COLOURS = {8: "#7c3aed", 16: "#15803d", 32: "#b91c1c"}
#: As other pictures, a little smaller.
_STYLE: Any = STYLE | {"font.size": 9}

Point = tuple[float, float]


def plot_architecture(
    architecture: Architecture, title: str, path: str | Path, subtitle: str = ""
) -> None:
    """Draw a network into a file.

    Args:
        title: first line above the picture.
        subtitle: second line, such as parameters and latency.
        path: .png, .svg or .pdf; replaced if it exists, whole or not at all.

    Raises:
        SpecError: another suffix.
        ImportFileError: the file cannot be written.

    Source: FasterSeg, Fig. 6.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = picture_path(path)
    sheet = _Sheet(architecture)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(sheet.width, sheet.height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, sheet.width)
        axes.set_ylim(0, sheet.height)
        axes.axis("off")
        across = sheet.width - _LEFT - _RIGHT
        bold: Any = {"fontsize": 13, "fontweight": "bold"}
        small: Any = {"fontsize": 9}
        title = wrapped(figure, title, across, most_lines=1, **bold)
        subtitle = wrapped(figure, subtitle, across, most_lines=1, **small)
        axes.text(_LEFT, sheet.height - 0.18, title, va="top", **bold)
        axes.text(_LEFT, sheet.height - 0.47, subtitle, color=MUTED, va="top", **small)
        _Drawing(axes, sheet).draw()
        save(figure, path)


class _Sheet:
    """Where things stand, in inches from the lower left corner."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.branches = architecture.branches
        self.deepest = max(len(branch.cells) for branch in self.branches)
        coarsest = max(branch.scale for branch in self.branches)
        self.scales = tuple(scale for scale in SCALES if scale <= coarsest)
        # Stem, cells, refinements, fusion, head.
        self.columns = 1 + self.deepest + len(self.scales) - 1 + 2
        self.width = max(_LEAST_WIDTH, _LEFT + self.columns * _COLUMN + _RIGHT)
        self.lanes = {
            scale: tuple(branch for branch in self.branches if branch.scale >= scale)
            for scale in self.scales
        }
        rows = sum(len(lanes) * _LANE + _ROW_SPACE for lanes in self.lanes.values())
        self.height = _TOP + rows + _BOTTOM
        self.row_top = {}
        top = self.height - _TOP
        for scale, lanes in self.lanes.items():
            self.row_top[scale] = top
            top -= len(lanes) * _LANE + _ROW_SPACE

    def x(self, column: float) -> float:
        """The middle of a column; cell i stands in column i + 1, the stem in column 0."""
        return _LEFT + (column + 0.5) * _COLUMN

    def lane_y(self, scale: int, branch: Branch) -> float:
        return self.row_top[scale] - (self.lanes[scale].index(branch) + 0.5) * _LANE

    def row_middle(self, scale: int) -> float:
        return self.row_top[scale] - len(self.lanes[scale]) * _LANE / 2

    def cell_point(self, branch: Branch, index: int) -> Point:
        """The middle of a cell, which stands in the row of its input's scale."""
        scale = self.input_scale(branch, index)
        if index < self.architecture.shared_cells:
            return self.x(index + 1), self.row_middle(scale)
        return self.x(index + 1), self.lane_y(scale, branch)

    def input_scale(self, branch: Branch, index: int) -> int:
        return 8 if index == 0 else branch.output_scales()[index - 1]

    def refine_point(self, scale: int, branch: Branch) -> Point:
        """Each branch's first refinement stands behind the last cell, so that no two ways up
        share a column."""
        steps = SCALES.index(branch.scale) - SCALES.index(scale)
        return self.x(self.deepest + steps), self.lane_y(scale, branch)

    def fusion_point(self) -> Point:
        return self.x(self.columns - 2), self.row_middle(8)

    def head_point(self) -> Point:
        return self.x(self.columns - 1), self.row_middle(8)


class _Drawing:
    """Draws a sheet: lines first, boxes above them."""

    def __init__(self, axes: Axes, sheet: _Sheet) -> None:
        self.axes = axes
        self.sheet = sheet
        self.architecture = sheet.architecture

    def draw(self) -> None:
        self._rows()
        for number, branch in enumerate(self.sheet.branches):
            self._lines(branch)
            shared = self.architecture.shared_cells if number else 0
            for index in range(shared, len(branch.cells)):
                self._cell(branch, index)
            self._way_back(branch)
        self._ends()
        self._legend()

    def _rows(self) -> None:
        """A band per scale, with its name."""
        for scale, lanes in self.sheet.lanes.items():
            top = self.sheet.row_top[scale]
            height = len(lanes) * _LANE
            right = self.sheet.width - _RIGHT
            self.axes.fill(
                [_LEFT, right, right, _LEFT],
                [top, top, top - height, top - height],
                color="#f7f8fa",
                zorder=0,
                linewidth=0,
            )
            self.axes.text(
                _LEFT - 0.12, top - height / 2, f"1/{scale}", ha="right", va="center",
                fontsize=11, fontweight="bold", color=MUTED,
            )  # fmt: skip

    def _lines(self, branch: Branch) -> None:
        """From the stem through the cells; drawn for both branches where they share cells."""
        sheet = self.sheet
        points = [(sheet.x(0), sheet.row_middle(8))]
        for index in range(len(branch.cells)):
            x, y = sheet.cell_point(branch, index)
            # The step to another lane or row is in the gap before the cell.
            points += [(x - _COLUMN / 2, points[-1][1]), (x - _COLUMN / 2, y), (x, y)]
        self._line(points, _BRANCH_COLOURS[branch.scale])
        shared = self.architecture.shared_cells
        if shared and branch is sheet.branches[0]:
            # Behind a shared down cell the way down to the upper lane is shared, too.
            goes_down = points[2 + 3 * shared][1] < points[1 + 3 * shared][1] - _LANE
            self._line(points[: 2 + goes_down + 3 * shared], MUTED, zorder=1.5)

    def _line(self, points: list[Point], colour: str, style: Any = "-", zorder: float = 1) -> None:
        self.axes.plot(
            [x for x, _ in points], [y for _, y in points], color=colour, linestyle=style,
            linewidth=1.4, zorder=zorder, solid_joinstyle="round", dash_joinstyle="round",
        )  # fmt: skip

    def _cell(self, branch: Branch, index: int) -> None:
        cell = branch.cells[index]
        x, y = self.sheet.cell_point(branch, index)
        height = _FULL_BAR * _LANE * cell.width / FULL_WIDTH
        self._box(x, y, height, _COLOURS[cell.operator])
        self.axes.text(
            x, y, _LABELS[cell.operator], ha="center", va="center", fontsize=7.2, zorder=4,
            color="white" if cell.operator in _DARK else INK,
        )  # fmt: skip
        out = channels(self.architecture.base_width, branch.output_scales()[index], cell.width)
        arrow = "↓ " if cell.is_down else ""
        self._note(x, y - height / 2 - 0.035, f"{arrow}{out}", va="top")
        self._note(x, y + height / 2 + 0.03, f"{cell.width}/{FULL_WIDTH}", va="bottom")

    def _box(self, x: float, y: float, height: float, colour: str, zorder: float = 3) -> None:
        from matplotlib.patches import FancyBboxPatch

        width = _BAR_WIDTH * _COLUMN
        self.axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2), width, height, facecolor=colour,
                boxstyle="round,pad=0,rounding_size=0.05", edgecolor="white", linewidth=0.8,
                zorder=zorder,
            )
        )  # fmt: skip

    def _note(self, x: float, y: float, text: str, va: str) -> None:
        self.axes.text(
            x, y, text, ha="center", va=va, fontsize=6.8, color=MUTED, zorder=4,
            bbox={"boxstyle": "square,pad=0.08", "fc": "#f7f8fa", "ec": "none"},
        )  # fmt: skip

    def _way_back(self, branch: Branch) -> None:
        """Refinements, each with the map that it reads from before the down cell, to the fusion."""
        sheet = self.sheet
        colour = _BRANCH_COLOURS[branch.scale]
        start = sheet.cell_point(branch, len(branch.cells) - 1)
        downs = [index for index, cell in enumerate(branch.cells) if cell.is_down]
        for scale, down in reversed(list(zip(SCALES, downs, strict=False))):
            here = sheet.refine_point(scale, branch)
            self._line([start, (here[0], start[1]), here], colour)
            self._skip_line(branch, down, here, colour)
            out = channels(self.architecture.base_width, scale, self.architecture.head_width)
            self._plain_box(here, "refine", out)
            start = here
        end = sheet.fusion_point()
        turn = end[0] - _COLUMN / 2
        self._line([start, (turn, start[1]), (turn, end[1]), end], colour)

    def _skip_line(self, branch: Branch, down: int, end: Point, colour: str) -> None:
        """Dashed, from the input of a down cell along the branch's lane, which is empty behind."""
        x, y = self.sheet.cell_point(branch, down)
        left = x - 0.43 * _COLUMN  # beside the lines that other branches have in the gap
        is_shared = down < self.architecture.shared_cells
        along = end[1] if is_shared else end[1] + _OVER * _LANE
        self._line([(left, y), (left, along), (end[0], along), end], colour, (0, (3, 2)), 0.8)

    def _plain_box(self, point: Point, label: str, out_channels: int) -> None:
        x, y = point
        self._box(x, y, 0.42 * _LANE, _BOX)
        self.axes.text(x, y + 0.075, label, ha="center", va="center", fontsize=7.2, zorder=4)
        self.axes.text(
            x, y - 0.09, str(out_channels), ha="center", va="center", fontsize=6.8, color=MUTED,
            zorder=4,
        )  # fmt: skip

    def _ends(self) -> None:
        sheet, network = self.sheet, self.architecture
        self._line([sheet.fusion_point(), sheet.head_point()], INK)
        stem = channels(network.base_width, 8, network.stem_width)
        fused = len(network.branches) * channels(network.base_width, 8, network.head_width)
        self._plain_box((sheet.x(0), sheet.row_middle(8)), "stem", stem)
        self._plain_box(sheet.fusion_point(), "fusion", fused)
        self._plain_box(sheet.head_point(), "head", network.num_classes)

    def _legend(self) -> None:
        """Operators and branches in one line below the rows."""
        y, x = 0.44, _LEFT
        for operator, colour in _COLOURS.items():
            self.axes.fill(
                [x, x + 0.18, x + 0.18, x], [y - 0.07, y - 0.07, y + 0.07, y + 0.07], color=colour
            )
            self.axes.text(x + 0.25, y, operator, va="center", fontsize=8)
            x += 0.45 + 0.075 * len(operator)
        for branch in self.sheet.branches:
            self._line([(x, y), (x + 0.25, y)], _BRANCH_COLOURS[branch.scale])
            self.axes.text(x + 0.32, y, f"1/{branch.scale} branch", va="center", fontsize=8)
            x += 1.2
        self.axes.text(
            _LEFT, 0.16,
            "height of a bar and n/12: its width; below: channels, ↓ to the next scale; "
            "dashed: the map that a refinement reads",
            va="center", fontsize=7.5, color=MUTED,
        )  # fmt: skip
