"""What a table knows of an op spec whose parameters vary: latencies, and steps along each.

grid = parse_grid("conv 64->{32..128} at 64x128")
profile(plan_of_grid(grid), engine, target, path)       # as any plan
scan = read_scan(LatencyTable.open(path), grid)
scan.lines[0].staircase.steps
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from latlut.errors import SpecError
from latlut.files.writing import write_csv
from latlut.measure.plans import Plan
from latlut.measure.ranges import MOST_LISTED, OpGrid, Value
from latlut.operators.registry import check
from latlut.stats.steps import LEAST_POINTS, Staircase, common_multiple, find_steps
from latlut.table.entry import Entry
from latlut.table.table import LatencyTable


@dataclass(frozen=True)
class ScanPoint:
    """One op spec of a scan, and its entry; None where it could not be measured."""

    values: tuple[Value, ...]
    key: str
    entry: Entry | None

    @property
    def is_measured(self) -> bool:
        """Whether it has an entry that no model predicted."""
        return self.entry is not None and not self.entry.is_predicted


@dataclass(frozen=True)
class ScanLine:
    """The points along one parameter, the other one held."""

    parameter: int
    """Its number in the grid."""
    held: Value | None
    """The other parameter's value, None where there is none."""
    points: tuple[ScanPoint, ...]
    """Those that were measured, by increasing value."""
    staircase: Staircase | None
    """None where the points do not say what is noise, or are too few."""

    @property
    def numbers(self) -> list[int]:
        """(N,) the parameter's value at each point."""
        return [int(point.values[self.parameter]) for point in self.points]

    @property
    def multiple(self) -> int | None:
        """A number of which all values are multiples that a step upwards follows; None where some
        changes may be steps too."""
        if self.staircase is None or self.staircase.unclear:
            return None
        numbers = self.numbers
        dearer = [numbers[step.before] for step in self.staircase.steps if step.percent > 0]
        return common_multiple(dearer, numbers)


@dataclass(frozen=True)
class CommonStep:
    """A step between two values of a parameter, over the lines along it."""

    before: int
    after: int
    lines: int
    """How many lines have it."""
    percents: tuple[float, float, float]
    """Least, median and largest of theirs, percent."""


@dataclass(frozen=True)
class Scan:
    """What a table knows of a grid."""

    grid: OpGrid
    points: tuple[ScanPoint, ...]
    lines: tuple[ScanLine, ...]
    """Along each parameter that has numbers."""


def plan_of_grid(grid: OpGrid) -> Plan:
    """The plan of all points.

    Raises:
        SpecError: too many points, or one that is no op spec; UnknownNameError an operator that
            is not registered.
    """
    if grid.size > MOST_LISTED:
        raise SpecError(
            f"{grid.text!r} names {grid.size} points, at most {MOST_LISTED} can be listed: use "
            "steps, {32..128..8}"
        )
    specs = [spec for _, spec in grid.points()]
    for spec in specs:
        check(spec)
    return Plan("scan", tuple(specs), grid.text)


def read_scan(table: LatencyTable, grid: OpGrid) -> Scan:
    """What the table has of the grid, with the steps along each parameter."""
    named = list(grid.points())
    held = {entry.key: entry for entry in table.held(spec for _, spec in named)}
    points = tuple(ScanPoint(values, spec.key, held.get(spec.key)) for values, spec in named)
    lines = [
        line
        for number, parameter in enumerate(grid.parameters)
        if parameter.is_numeric
        for line in _lines(grid, points, number)
    ]
    return Scan(grid, points, tuple(lines))


def common_steps(lines: Sequence[ScanLine]) -> list[CommonStep]:
    """The steps of several lines along one parameter, by place; upwards and downwards apart."""
    found: dict[tuple[int, int, bool], list[float]] = {}
    for line in lines:
        numbers = line.numbers
        for step in line.staircase.steps if line.staircase else ():
            place = numbers[step.before], numbers[step.before + 1], step.percent > 0
            found.setdefault(place, []).append(step.percent)
    return [
        CommonStep(before, after, len(own), (min(own), median(own), max(own)))
        for (before, after, _), own in sorted(found.items())
    ]


def _lines(grid: OpGrid, points: tuple[ScanPoint, ...], number: int) -> Iterator[ScanLine]:
    """The lines along the parameter of that number."""
    others = [parameter for place, parameter in enumerate(grid.parameters) if place != number]
    for held in others[0].values if others else (None,):
        own = tuple(
            point
            for point in points
            if point.is_measured and (held is None or point.values[1 - number] == held)
        )
        yield ScanLine(number, held, own, _staircase(number, own))


def _staircase(number: int, points: tuple[ScanPoint, ...]) -> Staircase | None:
    entries = [point.entry for point in points if point.entry is not None]
    latencies = [entry.latency_ms for entry in entries]
    if len(points) < LEAST_POINTS or min(latencies) <= 0:  # differences may be below zero
        return None
    try:
        return find_steps(
            [int(point.values[number]) for point in points],
            latencies,
            [entry.own_error for entry in entries],
        )
    except SpecError:  # nothing says what is noise
        return None


def write_points(scan: Scan, path: Path) -> None:
    """Write the points that have an entry as CSV.

    Raises:
        WriteError: the file cannot be written.
    """
    names = [parameter.name.replace(" ", "_") for parameter in scan.grid.parameters]
    rows = (
        (*point.values, point.key, entry.latency_ms, entry.ci_low_ms, entry.ci_high_ms)
        for point in scan.points
        if (entry := point.entry) is not None
    )
    write_csv(path, (*names, "op_spec", "latency_ms", "ci_low_ms", "ci_high_ms"), rows)
