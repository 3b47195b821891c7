"""Networks side by side: what they hold, compute and take, beside what their papers say.

Counting needs no engine. Measuring is the caller's: ``compare`` hands over what is to be measured,
all of it at once so that it can be measured in turns, and gets latencies back.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from latlut.errors import ImportFileError
from latlut.operators.workloads import Workload
from latlut.search.networks.baselines import Figure, Published
from latlut.search.networks.cost import NetworkCost
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
    def fps(self) -> float: ...
    def to_dict(self) -> dict[str, Any]: ...


Measure = Callable[[Sequence[Workload]], Sequence[Latency]]


@dataclass(frozen=True)
class ComparisonRow:
    """One network at one image size.

    Args:
        name, title, kind: of the contender.
        input_size: (height, width) in pixels.
        is_paper_size: whether its paper states its speed at this size.
        cost: None where only published numbers are known.
        published: what its paper says, at its own size and on its own device.
        latency: None where it was not measured.
        own_miou_percent, own_data: of a trained network.
    """

    name: str
    title: str
    kind: Kind
    input_size: tuple[int, int]
    is_paper_size: bool
    cost: NetworkCost | None
    published: Published | None
    latency: Latency | None = None
    own_miou_percent: float | None = None
    own_data: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what a paper says is under ``published``, with its sources."""
        cost, latency = self.cost, self.latency
        return {
            "name": self.name,
            "title": self.title,
            "kind": self.kind,
            "input_size": list(self.input_size),
            "is_paper_size": self.is_paper_size,
            "parameters": cost.parameters if cost else None,
            "training_parameters": cost.training_parameters if cost else None,
            "macs": cost.macs if cost else None,
            "latency": latency.to_dict() if latency else None,
            "own_miou_percent": self.own_miou_percent,
            "own_data": self.own_data or None,
            "published": _published_as_dict(self.published) if self.published else None,
        }

    def flat(self) -> dict[str, Any]:
        """One row of a CSV file; ``published_`` marks what latlut did not find out itself."""
        paper, height_width = self.published, "x".join(map(str, self.input_size))
        known = self.to_dict() | {"input": height_width}
        counts = ("input", "is_paper_size", "parameters", "training_parameters", "macs")
        row: dict[str, Any] = {name: known[name] for name in ("name", "title", "kind", *counts)}
        for name in ("latency_ms", "ci_low_ms", "ci_high_ms", "fps"):
            row[name] = getattr(self.latency, name, None)
        row |= {name: known[name] for name in ("own_miou_percent", "own_data")}
        for name in _FIGURES:
            figure: Figure | None = getattr(paper, name) if paper else None
            row[f"published_{name}"] = figure.value if figure else None
        row["published_input"] = f"{paper.input_size[0]}x{paper.input_size[1]}" if paper else None
        row["published_fps_device"] = paper.fps_device if paper else None
        return row


_FIGURES = ("parameters_m", "macs_g", "miou_val_percent", "miou_test_percent", "fps")


def compare(
    contenders: Sequence[Contender],
    sizes: Sizes,
    common_size: tuple[int, int],
    measure: Measure | None = None,
) -> list[ComparisonRow]:
    """One row per network and image size, in the order of ``contenders``.

    Args:
        contenders: the networks.
        sizes: ``paper``, ``common`` or ``both``; a network without a paper's size takes part at
            the common one alone.
        common_size: (height, width) in pixels.
        measure: gives one latency per workload; nothing is measured without it.

    Raises:
        LatlutError: a file that cannot be read, or whatever ``measure`` raises.
    """
    planned = [
        (contender, contender.size_at(size))
        for contender in contenders
        for size in _sizes_of(contender, sizes, common_size)
    ]
    measurable = [item for item in planned if item[0].kind != "published"]
    latencies: dict[tuple[str, tuple[int, int]], Latency] = {}
    if measure is not None and measurable:
        results = measure([contender.workload(size) for contender, size in measurable])
        latencies = {
            (contender.name, size): result
            for (contender, size), result in zip(measurable, results, strict=True)
        }
    return [
        ComparisonRow(
            contender.name,
            contender.title,
            contender.kind,
            size,
            contender.paper_size == size,
            contender.cost(size),
            contender.published,
            latencies.get((contender.name, size)),
            contender.own_miou_percent,
            contender.own_data,
        )
        for contender, size in planned
    ]


def write_rows(path: Path, rows: Sequence[ComparisonRow]) -> None:
    """Write the rows as a CSV file.

    Raises:
        ImportFileError: it cannot be written.
    """
    flat = [row.flat() for row in rows]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(flat[0]) if flat else [])
            writer.writeheader()
            writer.writerows(flat)
    except OSError as error:
        raise ImportFileError(f"cannot write {path}: {error.strerror}") from error


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
