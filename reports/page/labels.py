"""How a page names fields of tables and files, with their units."""

from __future__ import annotations

import re

IDENTITY = {
    "entries": "entries",
    "target": "target",
    "device_model": "device",
    "engine": "engine",
    "engine_version": "engine's version",
    "precision": "precision",
    "threads": "threads",
    "mode": "operators are measured",
    "statistic": "statistic of the samples",
    "power_mode": "power mode",
    "driver": "driver",
    "protocol_version": "measuring protocol",
    "engine_options": "engine's options",
}

#: What ``table.listing.overview`` gives, subject by subject.
OVERVIEW = {
    "runs": {
        "id": "run", "kind": "kind", "status": "status", "started_at": "started",
        "ended_at": "ended", "latlut_version": "latlut", "seconds": "duration, s",
    },
    "validations": {
        "id": "validation", "at": "time", "r": "correlation r",
        "mape_percent": "mean absolute error, %", "r12": "r of both measurements",
        "cpu_share": "share of the CPU", "is_disturbed": "disturbed",
    },
    "kinds": {"kind": "operator", "least_ms": "least, ms", "most_ms": "most, ms"},
    "gpus": {
        "least_sm_mhz": "lowest SM clock, MHz", "most_sm_mhz": "highest SM clock, MHz",
        "most_temperature_c": "highest temperature, °C", "most_power_w": "highest power, W",
        "throttled": "throttled groups",
    },
    "devices": {
        "device_percent": "interval from devices, ± %",
        "device_sd_percent": "spread of devices, %",
    },
    "quarantine": {"quarantine": "reason"},
    "failed": {"op_spec": "operator configuration", "at": "time"},
}  # fmt: skip

#: Of charts, where the pointer rests on a point.
CHART = {
    "op_spec": "operator configuration",
    "latency_ms": "latency, ms",
    "ci_percent": "95% interval, ± %",
    "bound_ms": "roofline latency, ms",
    "gmacs": "multiply-accumulates, billions",
    "gmacs_per_s": "GMAC/s",
    "measured_ms": "measured, ms",
    "estimated_ms": "estimated, ms",
    "error_percent": "error, %",
    "before_ms": "first table, ms",
    "after_ms": "second table, ms",
    "what": "line",
}

_UNITS = {"ms": "ms", "percent": "%", "mhz": "MHz", "w": "W", "c": "°C", "s": "s"}
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?(?:\+00:00|Z)")


def label(name: str, known: dict[str, str] | None = None) -> str:
    """A field's name for people: ``power_w`` as "power, W" where nothing better is known."""
    if known and name in known:
        return known[name]
    words, _, unit = name.rpartition("_")
    if words and unit in _UNITS:
        return f"{words.replace('_', ' ')}, {_UNITS[unit]}"
    return name.replace("_", " ")


def value_of(name: str, value: object) -> object:
    """A field's value for people: yes or no where the name asks."""
    if name.startswith("is_") and value in (0, 1):
        return "yes" if value else "no"
    return value


def time_text(text: str) -> str:
    """A time as latlut stores it, to the minute; any other text as it is."""
    found = _TIME.fullmatch(text)
    return f"{found[1]} {found[2]} UTC" if found else text
