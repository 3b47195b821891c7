"""What ``latlut scan`` prints: the steps along each parameter, or all points as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.output import print_json, print_table

if TYPE_CHECKING:
    from latlut.measure.scan import Scan, ScanLine
    from latlut.measure.sweep_report import SweepSummary
    from latlut.stats.steps import Step

#: Steps of one line that are printed.
_SHOWN = 40


def print_scan(found: Scan, path: Path, summary: SweepSummary) -> None:
    """The points in brief, then the steps."""
    measured = [point for point in found.points if point.entry is not None]
    click.echo(
        f"{len(measured)} of {len(found.points)} points have an entry in {path} "
        f"({summary.status}, {summary.seconds['total']:.0f} s, {summary.measured} new measurements)"
    )
    if len(found.grid.parameters) == 1 and (len(measured) <= _SHOWN or not found.lines):
        (parameter,) = found.grid.parameters
        rows = [
            [point.values[0], point.entry.latency_ms, point.entry.ci_low_ms, point.entry.ci_high_ms]
            for point in measured
            if point.entry is not None
        ]
        print_table([parameter.name, "ms", "from", "to"], rows)
    for line in found.lines:
        _print_line(found, line)
    if predicted := sum(p.entry is not None and p.entry.is_predicted for p in found.points):
        click.echo(f"{predicted} of the points are predicted, not measured")
    for key, message in summary.failed.items():
        click.echo(f"failed: {key}: {message}")
    if summary.status == "out of budget":
        click.echo("the budget is spent; the same command goes on from here")


def _print_line(found: Scan, line: ScanLine) -> None:
    name = found.grid.parameters[line.parameter].name
    where = _held_text(found, line)
    if line.staircase is None:
        click.echo(
            f"{name}{where}: {len(line.points)} points are too few, or too uncertain, for steps"
        )
        return
    steps, numbers = line.staircase.steps, line.numbers
    click.echo(
        f"{name}{where}: {len(steps) or 'no'} step{'' if len(steps) == 1 else 's'} of 1% or more "
        f"from {numbers[0]} to {numbers[-1]}; standard error of a point "
        f"{line.staircase.noise_percent:.2g}%"
    )
    for step in steps[:_SHOWN]:
        click.echo(f"  {_step_text(numbers, step)}")
    if len(steps) > _SHOWN:
        click.echo(f"  ... {len(steps) - _SHOWN} more, see --json")
    if line.multiple:
        click.echo(f"  steps upwards follow multiples of {line.multiple}: choose these")


def _held_text(found: Scan, line: ScanLine) -> str:
    if line.held is None:
        return ""
    return f" at {found.grid.parameters[1 - line.parameter].name} {line.held}"


def _step_text(numbers: list[int], step: Step) -> str:
    """``97 costs 9.1% (8.2 to 10.0%) more than 96``."""
    before, after = numbers[step.before], numbers[step.before + 1]
    size, low, high, word = step.percent, step.low_percent, step.high_percent, "more"
    if size < 0:
        size, low, high, word = -size, -high, -low, "less"
    return f"{after} costs {size:.1f}% ({low:.1f} to {high:.1f}%) {word} than {before}"


def print_scan_json(found: Scan, path: Path, summary: SweepSummary) -> None:
    """All of it."""
    names = [parameter.name for parameter in found.grid.parameters]
    print_json(
        {
            "table": str(path),
            "op_spec": found.grid.text,
            "status": summary.status,
            "measured": summary.measured,
            "reused": summary.reused,
            "parameters": names,
            "points": [
                {
                    "values": point.values,
                    "op_spec": point.key,
                    "latency_ms": point.entry.latency_ms,
                    "ci_low_ms": point.entry.ci_low_ms,
                    "ci_high_ms": point.entry.ci_high_ms,
                    "is_predicted": point.entry.is_predicted,
                }
                for point in found.points
                if point.entry is not None
            ],
            "lines": [_line_as_json(found, line) for line in found.lines],
            "failed": summary.failed,
        }
    )


def _line_as_json(found: Scan, line: ScanLine) -> dict[str, Any]:
    numbers, staircase = line.numbers, line.staircase
    facts: dict[str, Any] = {
        "parameter": found.grid.parameters[line.parameter].name,
        "held": line.held,
        "steps": None,
    }
    if staircase is None:
        return facts
    return facts | {
        "noise_percent": staircase.noise_percent,
        "multiple": line.multiple,
        "fitted_ms": staircase.fitted_ms,
        "steps": [
            {
                "before": numbers[step.before],
                "after": numbers[step.before + 1],
                "percent": step.percent,
                "low_percent": step.low_percent,
                "high_percent": step.high_percent,
                "beyond_trend_percent": step.beyond_trend_percent,
            }
            for step in staircase.steps
        ],
    }
