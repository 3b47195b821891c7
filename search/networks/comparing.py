"""Networks side by side: what they hold, compute and take, beside what their papers say.

Counting needs no engine. Measuring is the caller's: ``compare`` hands over what is to be measured,
all of it at once so that it can be measured in turns, and gets latencies back.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from latlut.errors import LatlutError
from latlut.files.writing import written_whole
from latlut.operators.workloads import Workload
from latlut.search.networks.baselines import Figure, Published
from latlut.search.networks.cost import NetworkCost, cost_of_onnx
from latlut.search.networks.finding import Contender, Kind

#: Which image sizes to compare at: each network's own paper's, the same for all, or both.
Sizes = Literal["paper", "common", "both"]


class Latency(Protocol):
    """What is read of a measured network: milliseconds with a 95% interval, images per second."""

    @property
    def latency_ms(self) -> float: ...
    @property
    def ci_low_ms(self) -> float: ...
    @property
    def ci_high_ms(self) -> float: ...
    @property
    def batch(self) -> int | None: ...
    @property
    def fps(self) -> float | None: ...
    def to_dict(self) -> dict[str, Any]: ...


#: Gives for each workload its latency, or why it cannot be measured.
Measure = Callable[[Sequence[Workload]], Sequence[Latency | LatlutError]]


@dataclass(frozen=True)
class ComparisonRow:
    """One network at one image size."""

    name: str
    title: str
    kind: Kind
    """``name``, ``title``, ``kind``: of the contender."""
    input_size: tuple[int, int] | None
    """(height, width) in pixels; None of a file that takes no image."""
    is_paper_size: bool
    """Whether its paper states its speed at this size."""
    cost: NetworkCost | None
    """None where only published numbers are known, or the file cannot be read."""
    published: Published | None
    """What its paper says, at its own size and on its own device."""
    batch: int | None = 1
    """Items that one run takes, of which the latency is; None where it is not known."""
    latency: Latency | None = None
    """None where it was not measured."""
    failure: str = ""
    """Why it cannot be counted or measured."""
    own_miou_percent: float | None = None
    own_data: str = ""
    """``own_miou_percent``, ``own_data``: of a trained network."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what a paper says is under ``published``, with its sources."""
        cost, latency = self.cost, self.latency
        return {
            "name": self.name,
            "title": self.title,
            "kind": self.kind,
            "input_size": list(self.input_size) if self.input_size else None,
            "batch": self.batch,
            "is_paper_size": self.is_paper_size,
            "parameters": cost.parameters if cost else None,
            "training_parameters": cost.training_parameters if cost else None,
            "macs": cost.macs if cost else None,
            "why_macs_unknown": (cost.why_unknown or None) if cost else None,
            "failure": self.failure or None,
            "latency": latency.to_dict() if latency else None,
            "own_miou_percent": self.own_miou_percent,
            "own_data": self.own_data or None,
            "published": _published_as_dict(self.published) if self.published else None,
        }

    def flat(self) -> dict[str, Any]:
        """One row of a CSV file; ``published_`` marks what latlut did not find out itself."""
        paper, height_width = self.published, "x".join(map(str, self.input_size or ()))
        known = self.to_dict() | {"input": height_width}
        counts = ("input", "batch", "is_paper_size", "parameters", "training_parameters", "macs")
        row: dict[str, Any] = {name: known[name] for name in ("name", "title", "kind", *counts)}
        for name in ("latency_ms", "ci_low_ms", "ci_high_ms", "fps"):
            row[name] = getattr(self.latency, name, None)
        row |= {name: known[name] for name in ("own_miou_percent", "own_data")}
        for name in _FIGURES:
            figure: Figure | None = getattr(paper, name) if paper else None
            row[f"published_{name}"] = figure.value if figure else None
        row["published_input"] = f"{paper.input_size[0]}x{paper.input_size[1]}" if paper else None
        row["published_fps_device"] = paper.fps_device if paper else None
        row["failure"] = self.failure or None
        return row


_FIGURES = ("parameters_m", "macs_g", "miou_val_percent", "miou_test_percent", "fps")


def compare(
    contenders: Sequence[Contender],
    sizes: Sizes,
    common_size: tuple[int, int],
    measure: Measure | None = None,
) -> list[ComparisonRow]:
    """One row per network and image size, in the order of ``contenders``.

    A file that cannot be read or measured is a row that says why.

    Args:
        contenders: the networks.
        sizes: ``paper``, ``common`` or ``both``; a network without a paper's size takes part at
            the common one alone.
        common_size: (height, width) in pixels.
        measure: gives one latency or error per workload; nothing is measured without it.

    Raises:
        LatlutError: whatever ``measure`` raises.
    """
    rows = [
        _counted(contender, size)
        for contender in contenders
        for size in _sizes_of(contender, sizes, common_size)
    ]
    found = [row for row, _ in rows]
    workloads = {index: item for index, (_, item) in enumerate(rows) if item is not None}
    if measure is None or not workloads:
        return found
    for index, result in zip(workloads, measure(list(workloads.values())), strict=True):
        is_error = isinstance(result, LatlutError)
        change = {"failure": str(result)} if is_error else {"latency": result}
        found[index] = replace(found[index], **change)
    return found


def _counted(
    contender: Contender, wanted: tuple[int, int]
) -> tuple[ComparisonRow, Workload | None]:
    """The row without a latency, and what is measured for one; None where nothing can be."""
    row = ComparisonRow(
        contender.name,
        contender.title,
        contender.kind,
        wanted,
        contender.paper_size == wanted,
        None,
        contender.published,
        failure=contender.failure,
        own_miou_percent=contender.own_miou_percent,
        own_data=contender.own_data,
    )
    if contender.kind == "published":
        return row, None
    if contender.kind != "onnx":
        return replace(row, cost=contender.cost(wanted)), contender.workload(wanted)
    row = replace(row, input_size=None, is_paper_size=False)
    if row.failure:
        return row, None
    try:
        workload = contender.file(wanted)
    except LatlutError as error:
        return replace(row, failure=str(error)), None
    size, cost = workload.image_size, cost_of_onnx(workload)
    return replace(row, input_size=size, batch=workload.batch, cost=cost), workload


def write_rows(path: Path, rows: Sequence[ComparisonRow]) -> None:
    """Write the rows as a CSV file, whole or not at all.

    Raises:
        WriteError: it cannot be written.
    """
    flat = [row.flat() for row in rows]
    with (
        written_whole(path, makes_folder=False) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, list(flat[0]) if flat else [])
        writer.writeheader()
        writer.writerows(flat)


def _sizes_of(
    contender: Contender, sizes: Sizes, common_size: tuple[int, int]
) -> list[tuple[int, int]]:
    own = contender.paper_size
    if contender.kind == "published" and own is not None:
        return [own]
    wanted = [] if sizes == "common" or own is None else [own]
    if sizes != "paper" or own is None:
        wanted.append(common_size)
    return list(dict.fromkeys(wanted))


def _published_as_dict(paper: Published) -> dict[str, Any]:
    found: dict[str, Any] = {
        "paper": paper.paper,
        "input_size": list(paper.input_size),
        "fps_device": paper.fps_device or None,
        "macs_input_size": list(paper.macs_input_size) if paper.macs_input_size else None,
    }
    for name in _FIGURES:
        figure: Figure | None = getattr(paper, name)
        found[name] = None if figure is None else vars(figure)
    return found
