"""What a page shows of a comparison of networks: accuracy over latency, data set by data set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latlut.files.reading import read_text
from latlut.reports.comparison import KINDS
from latlut.reports.page import charts
from latlut.reports.page.csv_files import MAX_BYTES, number_in, read_rows
from latlut.reports.page.parts import Block, Chart, Grid, Section, Text

#: Columns that ``latlut compare --csv`` always writes.
COLUMNS = {"name", "title", "kind", "input", "macs", "latency_ms", "own_miou_percent"}
_SHOWN = {
    "title": "network", "input": "input", "parameters": "parameters", "macs": "MACs",
    "latency_ms": "latency, ms", "fps": "FPS", "own_miou_percent": "own mIoU, %",
    "own_data": "own data", "published_miou_val_percent": "published mIoU, val, %",
    "published_miou_test_percent": "published mIoU, test, %",
}  # fmt: skip


def is_comparison(path: Path) -> bool:
    """Whether a file was written by ``latlut compare --csv``."""
    if path.suffix.lower() != ".csv":
        return False
    header = read_text(path, limit_bytes=MAX_BYTES).split("\n", 1)[0]
    return {name.strip().strip('"') for name in header.split(",")} >= COLUMNS


def comparison_section(path: Path) -> Section:
    """All that a page shows of a comparison.

    Raises:
        ImportFileError: the file cannot be read.
    """
    rows = read_rows(path, "comparison of networks")
    return Section(path.name, str(path), "comparison of networks", tuple(_blocks(rows)))


def _blocks(rows: list[dict[str, str]]) -> Iterator[Block]:
    is_measured = any(number_in(row.get("latency_ms")) for row in rows)
    x = "measured latency, ms" if is_measured else "multiply-accumulates, billions"
    planes: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        point = number_in(row.get("latency_ms"))
        if not is_measured:
            macs = number_in(row.get("macs"))
            point = macs / 1e9 if macs else None
        if point is None:
            continue
        kind = row.get("kind") or ""
        for data, value in _accuracies(row):
            planes[data].append(
                {"network": row.get("title") or row.get("name"), "series": KINDS.get(kind, kind),
                 "x": point, "y": value,
                 "low": number_in(row.get("ci_low_ms")) if is_measured else None,
                 "high": number_in(row.get("ci_high_ms")) if is_measured else None}
            )  # fmt: skip
    if not planes:
        yield Text("No network has both an accuracy and a latency or multiply-accumulates.")
    for number, (data, points) in enumerate(planes.items()):
        yield Chart(f"plane{number or ''}", f"Accuracy over latency: {data}" if is_measured
                    else f"Accuracy over operations: {data}",
                    charts.plane(points, x, "mean IoU, %"))  # fmt: skip
    kept = {name: title for name, title in _SHOWN.items() if any(row.get(name) for row in rows)}
    listed = [[_shown(row.get(name)) for name in kept] for row in rows]
    yield Grid("Networks", list(kept.values()), listed, has_filter=True)


def _accuracies(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """(data set, percent); accuracies of different data sets never share an axis."""
    if (value := number_in(row.get("own_miou_percent"))) is not None:
        yield row.get("own_data") or "own data", value
    for split in ("val", "test"):
        if (value := number_in(row.get(f"published_miou_{split}_percent"))) is not None:
            yield f"published, Cityscapes {split}", value


def _shown(cell: str | None) -> object:
    value = number_in(cell)
    return cell or "" if value is None else value
