"""What ``latlut table info`` prints: a table's identity, its runs, and its entries by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from latlut.cli.output import is_quiet, print_table

_OF_AN_ENTRY = "operator configuration"
#: Subject -> its title, and the title of each column; columns that are not named are not printed.
_SUBJECTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "runs": (
        "runs",
        {"id": "run", "kind": "what", "status": "status", "started_at": "started",
         "ended_at": "ended", "plan": "plan", "latlut_version": "latlut", "host": "host",
         "seconds": "seconds", "measurements": "measurements"},
    ),
    "gpus": (
        "GPUs while measuring",
        {"device": "device", "runs": "runs", "groups": "groups",
         "least_sm_mhz": "slowest SM clock, MHz", "most_sm_mhz": "fastest, MHz",
         "most_temperature_c": "hottest, °C", "most_power_w": "most power, W",
         "throttled": "throttled groups"},
    ),
    "builds": (
        "builds",
        {"builds": "builds", "entries": "entries", "build_percent": "interval from builds, %",
         "build_sd_percent": "sd between builds, %", "pass_sd_percent": "sd between passes, %"},
    ),
    "devices": (
        "devices",
        {"devices": "devices", "entries": "entries",
         "device_percent": "interval from devices, %",
         "device_sd_percent": "sd between devices, %"},
    ),
    "quarantine": (
        "in quarantine", {"device": "device", "quarantine": "why", "readings": "readings"},
    ),
    "validations": (
        "validations",
        {"id": "validation", "at": "measured on", "networks": "networks", "r": "r",
         "mape_percent": "mean error, %", "r12": "r of two passes", "cpu_share": "CPU share",
         "is_disturbed": "disturbed"},
    ),
    "calibrations": (
        "calibrations",
        {"id": "calibration", "at": "fitted on", "version": "version", "networks": "networks",
         "plain_mape_percent": "mean error without, %", "mape_percent": "mean error, %",
         "coverage": "inside their intervals"},
    ),
    "failed": ("failed", {"op_spec": _OF_AN_ENTRY, "at": "tried on", "message": "why"}),
    "kinds": (
        "entries",
        {"kind": "operator", "entries": "entries", "predicted": "predicted",
         "least_ms": "fastest, ms", "most_ms": "slowest, ms"},
    ),
}  # fmt: skip
#: Columns that a narrow terminal can spare, of any subject.
_SPARE = (
    "ended", "version", "latlut", "host", "seconds", "CPU share", "r of two passes", "groups",
    "what", "tried on",
)  # fmt: skip
_TIMES = {"at", "started_at", "ended_at"}
#: Counts and marks that say something only where they are not zero.
_RARE = {"predicted", "throttled"}
_IDENTITY = {"device_model": "device"}


def print_info(facts: Mapping[str, Any], found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """The facts of a table, then what it holds by subject; with --quiet no history.

    Args:
        facts: as ``--json`` prints them, the table by the name that people call it.
        found: as ``table.listing.overview`` gives it.
    """
    predicted = f", {facts['predicted']} of them predicted" if facts["predicted"] else ""
    click.echo(f"{facts['table']}: {facts['entries']} entries{predicted}")
    for field, value in facts["identity"].items():
        if value != "":
            click.echo(f"  {_IDENTITY.get(field, field.replace('_', ' '))}: {value}")
    if "source" in facts:
        click.echo(f"  source: {facts['source']}")
    has_builds = any(row["builds"] > 1 for row in found["builds"])
    for subject, (title, columns) in _SUBJECTS.items():
        rows = found.get(subject, [])
        is_wanted = subject == "kinds" or not is_quiet()
        if rows and is_wanted and (has_builds or subject != "builds"):
            click.echo("")
            cells = [[_cell(name, row[name]) for name in columns] for row in rows]
            print_table(list(columns.values()), cells, title, spare=_SPARE)


def _cell(column: str, value: Any) -> object:
    if column in _TIMES:
        return time_text(value)
    if column == "is_disturbed":
        return "yes" if value else None
    if column == "coverage":
        return None if value is None else f"{100 * value:.0f}%"
    return value or None if column in _RARE else value


def time_text(value: str | None) -> str | None:
    """A stored time to the minute: ``2026-11-27 23:30``, UTC."""
    return None if value is None else value[:16].replace("T", " ")
