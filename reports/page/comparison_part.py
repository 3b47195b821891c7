"""What a page shows of a comparison of networks: accuracy over latency, data set by data set."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latlut.errors import ImportFileError
from latlut.files.reading import read_text
from latlut.reports.page import charts
from latlut.reports.page.parts import Block, Chart, Grid, Section, Text

MAX_COMPARISON_BYTES = 10 << 20
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
    header = read_text(path, limit_bytes=MAX_COMPARISON_BYTES).split("\n", 1)[0]
    return {name.strip().strip('"') for name in header.split(",")} >= COLUMNS


def comparison_section(path: Path) -> Section:
    """All that a page shows of a comparison.

    Raises:
        ImportFileError: the file cannot be read.
    """
    try:
        rows = list(csv.DictReader(read_text(path, limit_bytes=MAX_COMPARISON_BYTES).splitlines()))
    except csv.Error as error:
        raise ImportFileError(f"{path} is no comparison of networks: {error}") from error
    return Section(path.name, str(path), "comparison of networks", tuple(_blocks(rows)))


def _blocks(rows: list[dict[str, str]]) -> Iterator[Block]:
    is_measured = any(_float(row, "latency_ms") for row in rows)
    x = "measured latency, ms" if is_measured else "multiply-accumulates, billions"
    planes: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        point = _float(row, "latency_ms")
        if not is_measured:
            macs = _float(row, "macs")
            point = macs / 1e9 if macs else None
        if point is None:
            continue
        for data, value in _accuracies(row):
            planes[data].append(
                {"network": row.get("title") or row.get("name"), "series": row.get("kind") or "",
                 "x": point, "y": value,
                 "low": _float(row, "ci_low_ms") if is_measured else None,
                 "high": _float(row, "ci_high_ms") if is_measured else None}
            )  # fmt: skip
    if not planes:
        yield Text("No network has both an accuracy and a latency or multiply-accumulates.")
    for number, (data, points) in enumerate(planes.items()):
        yield Chart(f"plane{number or ''}", f"Accuracy over latency: {data}" if is_measured
                    else f"Accuracy over operations: {data}",
                    charts.plane(points, x, "mean IoU, %"))  # fmt: skip
    kept = {name: title for name, title in _SHOWN.items() if any(row.get(name) for row in rows)}
    listed = [[_cell(row.get(name)) for name in kept] for row in rows]
    yield Grid("Networks", list(kept.values()), listed, has_filter=True)


def _accuracies(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """(data set, percent); accuracies of different data sets never share an axis."""
    if (value := _float(row, "own_miou_percent")) is not None:
        yield row.get("own_data") or "own data", value
    for split in ("val", "test"):
        if (value := _float(row, f"published_miou_{split}_percent")) is not None:
            yield f"published, Cityscapes {split}", value


def _cell(text: str | None) -> object:
    try:
        return float(text or "")
    except ValueError:
        return text or ""


def _float(row: Mapping[str, str], name: str) -> float | None:
    try:
        return float(row.get(name) or "")
    except ValueError:
        return None
