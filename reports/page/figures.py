"""Single figures of a table: a page's charts as pictures, or the data behind them."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from latlut.errors import SpecError, TableError, UnknownNameError, did_you_mean
from latlut.files.writing import written_whole
from latlut.reports.page.parts import Chart, Text
from latlut.reports.page.table_part import entry_charts, latencies, validation_blocks
from latlut.reports.style import GRID, INK, MUTED
from latlut.table.table import LatencyTable

SUFFIXES = (".csv", ".png", ".svg")
WIDTH, SCALE = 720, 2
#: Characters of a line of the note above a figure; a line that is too long would be cut off.
_NOTE_LINE = 110
_WHY_NOT = {
    "heatmap": "it has no entries",
    "roofline": "latlut does not know its operators, so not what its operators compute",
}
_CONFIG = {
    "background": "white",
    "font": "DejaVu Sans",
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": INK,
        "gridColor": GRID,
        "titleFontWeight": "normal",
    },
}


def figure_of(table: LatencyTable, name: str) -> Chart:
    """A chart of a table by its name: heatmap, roofline, agreement, residuals.

    Raises:
        TableError: the table has nothing to draw it from.
    """
    of_entries = name in _WHY_NOT
    blocks = list(entry_charts(table, latencies(table)) if of_entries else validation_blocks(table))
    for block in blocks:
        if isinstance(block, Chart) and block.name == name:
            return block
    why = _WHY_NOT.get(name) or next(
        (block.text for block in blocks if isinstance(block, Text)), "it has no validation"
    )
    raise TableError(f"{table.title}: nothing to draw {name} from: {why}")


def operators_of(chart: Chart) -> list[str]:
    """What a heat map can show, one at a time; empty for other charts."""
    names = {row["operator"] for row in _rows(chart) if "operator" in row}
    return sorted(names)


def save_figure(chart: Chart, path: Path, operator: str | None = None) -> None:
    """Write a chart as a picture, or its data.

    Args:
        chart: of ``figure_of``.
        path: .png, .svg or .csv; its folder is made, a file that exists is replaced, whole or not
            at all.
        operator: which one a heat map shows; the first if not given. Of the data, only its rows.

    Raises:
        SpecError: another suffix, or an operator for a chart that has none to choose.
        UnknownNameError: the chart has no such operator.
        WriteError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SpecError(f"{path}: a figure ends in {', '.join(SUFFIXES)}, received {suffix!r}")
    known = operators_of(chart)
    if operator is not None and operator not in known:
        if not known:
            raise SpecError(f"--operator chooses what a heat map shows; {chart.name} shows all")
        raise UnknownNameError(
            f"no operator {operator!r} in the heat map; {did_you_mean(operator, known)}"
        )
    if suffix == ".csv":
        rows = [row for row in _rows(chart) if operator in (None, row.get("operator"))]
        _write_csv(rows, path)
        return
    import vl_convert

    spec = _still(chart, operator or (known[0] if known else None))
    with written_whole(path) as temporary:
        if suffix == ".svg":
            temporary.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
        else:
            temporary.write_bytes(vl_convert.vegalite_to_png(spec, scale=SCALE))


def _rows(chart: Chart) -> list[dict[str, Any]]:
    """The largest of a chart's sets of data: what the points show, not its lines."""
    layers = chart.spec.get("layer") or [chart.spec]
    sets: list[list[dict[str, Any]]] = [layer["data"]["values"] for layer in layers]
    return max(sets, key=len)


def _still(chart: Chart, operator: str | None) -> dict[str, Any]:
    """The chart without what a reader could choose."""
    spec: dict[str, Any] = deepcopy(dict(chart.spec))
    if operator is not None:
        spec["data"] = {"values": [r for r in _rows(chart) if r["operator"] == operator]}
        spec.pop("params", None)
        spec.pop("transform", None)
    subtitle = [*filter(None, [operator]), *textwrap.wrap(chart.note, _NOTE_LINE)]
    spec["title"] = {"text": chart.title, "subtitle": subtitle, "anchor": "start", "color": INK,
                     "subtitleColor": MUTED}  # fmt: skip
    return spec | {"width": WIDTH, "config": _CONFIG}


def _write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with (
        written_whole(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
