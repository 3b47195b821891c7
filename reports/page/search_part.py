"""What a page shows of a search: its course, what was found, and the networks on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from latlut.reports.architecture import plot_architecture
from latlut.reports.page import charts
from latlut.reports.page.csv_files import number_in, read_rows
from latlut.reports.page.parts import Block, Chart, Facts, Grid, Picture, Section, Text
from latlut.reports.page.pictures import drawn
from latlut.search.cosearch.worth import Finalists, Worth
from latlut.search.networks.nodes import architecture_rows
from latlut.search.runs.folder import RESULT, RUN, SETTINGS, read_json
from latlut.spaces import Architecture

TRAJECTORY = "trajectory.csv"
#: What is drawn of the trajectory: columns' beginning, title, axis, whether it is logarithmic.
_COURSES = (
    (("expected_ms", "derived_ms_", "fitted_ms_"), "Latency by the table", "ms", False),
    (("miou_", "teacher_miou_"), "Mean IoU on validation images", "fraction", False),
    (("skip_share", "narrowest_share", "largest_alpha"), "Shares of choices", "share", False),
    (("lambda_per_ms",), "Weight of the latency penalty", "per ms", True),
)


def is_search(folder: Path) -> bool:
    """Whether a folder is of a search."""
    return (folder / TRAJECTORY).is_file() and (folder / SETTINGS).is_file()


def search_section(folder: Path) -> Section:
    """All that a page shows of a search, also of one that is under way.

    Raises:
        LatlutError: its files cannot be read.
    """
    return Section(folder.name, str(folder), "search", tuple(_blocks(folder)))


def _blocks(folder: Path) -> Iterator[Block]:
    run = read_json(folder / RUN)
    target_ms = number_in(run.get("target_ms"))
    result = read_json(folder / RESULT) if (folder / RESULT).is_file() else None
    if result is None:
        yield Text("The search has not finished.", "caution")
    facts = {"target, ms": target_ms, "table": run.get("table"), "data": run.get("data"),
             "input size": "x".join(map(str, run.get("input_size") or ())),
             "started": run.get("started_at")}  # fmt: skip
    yield Facts({name: value for name, value in facts.items() if value})
    rows = read_rows(folder / TRAJECTORY, "trajectory of a search")
    searched = [row for row in rows if row.get("phase") == "search"]
    if result is not None:
        yield from _found(result, target_ms)
    for prefixes, title, axis, is_log in _COURSES:
        series = _series(searched, prefixes)
        if series:
            limit = target_ms if axis == "ms" else None
            name = title.split()[0].lower()
            yield Chart(name, title, charts.lines(series, axis, limit=limit, is_log=is_log),
                        "dashed: the target" if limit else "")  # fmt: skip
    if pareto := _pareto(searched):
        yield Chart("pareto", "Networks on the way",
                    charts.plane(pareto, "latency by the table, ms",
                                 "mean IoU in the supernet, %", limit=target_ms),
                    "dashed: the target")  # fmt: skip
    for role in ("student", "teacher"):
        path = folder / f"{role}.json"
        if path.is_file():
            yield from architecture_blocks(path, role, tuple(run.get("input_size") or (1024, 2048)))


def architecture_blocks(path: Path, title: str, input_size: tuple[int, ...]) -> Iterator[Block]:
    """A network drawn and listed.

    Args:
        path: its JSON file.
        title: its name on the page.
        input_size: (height, width) that multiply-accumulates are counted at.
    """
    architecture = Architecture.load(path)
    uri = drawn(lambda file: plot_architecture(architecture, title, file))
    yield Picture(f"The {title}", uri)
    rows = architecture_rows(architecture, (input_size[0], input_size[1]))
    yield Grid(
        f"The {title}, cell by cell",
        ["node", "operator", "scale", "width", "channels", "stride", "parameters", "M MACs"],
        [[row["node"], row["operator"], f"1/{row['scale']}",
          "" if row["width"] is None else f"{row['width']}/12",
          f"{'+'.join(map(str, row['in_channels']))} to {row['channels']}", row["stride"],
          row["parameters"], row["macs"] / 1e6] for row in rows],
    )  # fmt: skip


def _found(result: Mapping[str, Any], target_ms: float | None) -> Iterator[Block]:
    rows = [
        [role, item.get("latency_ms"), _percent_off(item.get("latency_ms"), target_ms),
         item.get("branches"), item.get("kind"), item.get("epoch"),
         _percent(item.get("supernet_miou")),
         *([_percent(item.get("trained_miou"))] if result.get("finalists") else [])]
        for role in ("student", "teacher")
        if isinstance(item := result.get(role), dict)
    ]  # fmt: skip
    if rows:
        columns = ["role", "latency, ms", "from the target, %", "branches", "kind", "epoch",
                   "supernet mIoU, %"]  # fmt: skip
        columns += ["trained mIoU, %"] if result.get("finalists") else []
        yield Grid("What was found", columns, rows)
    if (worth := result.get("against_random")) and target_ms:
        try:
            text = TypeAdapter(Worth).validate_python(worth).describe(target_ms)
        except ValidationError:
            text = "its result does not say how it compares with random networks"
        yield Text(text[:1].upper() + text[1:] + ".")
    if finalists := result.get("finalists"):
        try:
            text = TypeAdapter(Finalists).validate_python(finalists).describe()
        except ValidationError:
            text = "its result does not say what its finalists came to"
        yield Text(text[:1].upper() + text[1:] + ".")
    front = [item for item in result.get("front") or () if isinstance(item, dict)]
    if len(front) > 1:
        names = ["target_ms", "latency_ms", "branches", "kind"]
        columns = ["target, ms", "latency, ms", "branches", "kind", "supernet mIoU, %"]
        if any("measured_ms" in item for item in front):
            names.insert(2, "measured_ms")
            columns.insert(2, "measured, ms")
        listed = [
            [*(item.get(name) for name in names), _percent(item.get("supernet_miou"))]
            for item in front
        ]
        yield Grid("The front", columns, listed)


def _percent(fraction: object) -> float | None:
    return 100 * fraction if isinstance(fraction, float) else None


def _percent_off(ms: object, target_ms: float | None) -> float | None:
    if not isinstance(ms, float) or not target_ms:
        return None
    return 100 * (ms / target_ms - 1)


def _series(rows: list[dict[str, str]], prefixes: tuple[str, ...]) -> list[dict[str, Any]]:
    columns = [name for name in (rows[0] if rows else ()) if name and name.startswith(prefixes)]
    return [
        {
            "epoch": number_in(row.get("epoch")),
            "series": _series_name(name),
            "value": value,
        }
        for name in columns
        for row in rows
        if (value := number_in(row.get(name))) is not None
    ]


def _series_name(column: str) -> str:
    """Of a trajectory's column: ``derived_ms_16+32`` as "derived 16+32"."""
    if column == "lambda_per_ms":
        return "lambda, per ms"
    return column.replace("_ms", "").replace("miou", "mIoU").replace("_", " ")


def _pareto(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        for name, text in row.items():
            kind, _, branches = (name or "").partition("_ms_")
            ms, miou = number_in(text), number_in(row.get(f"miou_{branches}"))
            if kind in ("derived", "fitted") and ms is not None and miou is not None:
                found.append({"network": f"epoch {row.get('epoch')}, branches {branches}",
                              "series": kind, "x": ms, "y": 100 * miou})  # fmt: skip
    return found
