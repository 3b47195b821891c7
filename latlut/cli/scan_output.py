"""What ``latlut scan`` prints: the steps along each parameter, or all points as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.output import note, percent_text, print_json, print_table

if TYPE_CHECKING:
    from latlut.measure.scan import CommonStep, Scan, ScanLine
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
    for number in range(len(found.grid.parameters)):
        _print_lines(found, number)
    if predicted := sum(p.entry is not None and p.entry.is_predicted for p in found.points):
        note(f"{predicted} of the points are predicted, not measured: steps leave them out")
    for key, message in summary.failed.items():
        click.echo(f"failed: {key}: {message}")
    if summary.status == "out of budget":
        note("the budget is spent; the same command goes on from here")


def _print_lines(found: Scan, number: int) -> None:
    """The steps along the parameter of that number."""
    from statistics import median

    from latlut.measure.scan import common_steps

    lines = [line for line in found.lines if line.parameter == number]
    if not lines:  # a parameter of words
        return
    name = found.grid.parameters[number].name
    known = [line.staircase for line in lines if line.staircase is not None]
    if not known:
        most = max(len(line.points) for line in lines)
        click.echo(f"{name}: {most} points are too few, or too uncertain, for steps")
        return
    noise = f"standard error of a point {percent_text(median(s.noise_percent for s in known))}%"
    if len(lines) == 1:
        steps, numbers = known[0].steps, lines[0].numbers
        texts = [_step_text(numbers, step) for step in steps]
    else:
        other = found.grid.parameters[1 - number]
        noise += f"; {len(known)} lines, one for each {other.name}"
        numbers = sorted({value for line in lines for value in line.numbers})
        texts = [_common_text(step, len(known)) for step in common_steps(lines)]
    click.echo(
        f"{name}: {len(texts) or 'no'} step{'' if len(texts) == 1 else 's'} of 1% or more "
        f"from {numbers[0]} to {numbers[-1]}; {noise}"
    )
    for text in texts[:_SHOWN]:
        click.echo(f"  {text}")
    if len(texts) > _SHOWN:
        note(f"  ... {len(texts) - _SHOWN} more, see --json")
    if unclear := sum(len(staircase.unclear) for staircase in known):
        note(
            f"  {unclear} more change{'' if unclear == 1 else 's'} may be bends: too much noise to "
            "tell; more --passes on a quiet machine (--wait) would"
        )
    multiples = {line.multiple for line in lines} - {None}
    if len(multiples) == 1:
        note(f"  steps upwards follow multiples of {multiples.pop()}: choose these")


def _common_text(step: CommonStep, lines: int) -> str:
    """``97 costs 9.1% more than 96 (median; 8.2 to 10.0% in 12 of 13 lines)``."""
    low, middle, high = step.percents
    word = "more"
    if middle < 0:
        low, middle, high, word = -high, -middle, -low, "less"
    return (
        f"{step.after} costs {middle:.1f}% {word} than {step.before} (median; "
        f"{low:.1f} to {high:.1f}% in {step.lines} of {lines} lines)"
    )


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
        "unclear": [[numbers[place], numbers[place + 1]] for place in staircase.unclear],
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
