"""How much of a plan a table has measured, and how well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latlut.measure.plans import Plan
from latlut.table.table import LatencyTable


@dataclass(frozen=True)
class Coverage:
    """How much of a plan a table holds; intervals as relative 95% half-widths in percent.

    ``near_zero`` entries of differences have zero in their interval and are not in the percentages;
    ``negative`` ones, near zero or not, are below it. ``median_build_percent`` is the part that
    builds have in an interval, None where the table knows one build only; ``median_device_percent``
    likewise of devices.
    ``predicted`` op specs have an entry that was predicted; they are in no other number.
    """

    entries: int
    median_ci_percent: float | None
    p95_ci_percent: float | None
    median_build_percent: float | None = None
    near_zero: int = 0
    negative: int = 0
    median_device_percent: float | None = None
    predicted: int = 0


def plan_coverage(table: LatencyTable, plan: Plan) -> Coverage:
    """How much of the plan the table holds, and how well."""
    held = table.held(plan.specs)
    found = [entry for entry in held if not entry.is_predicted]
    widths = [entry.ci_percent for entry in found if entry.ci_percent is not None]
    known = [entry for entry in found if entry.is_distinguishable]
    builds = [100 * entry.build_error for entry in known if entry.build_error is not None]
    build = float(np.median(builds)) if builds else None
    devices = [100 * entry.device_error for entry in known if entry.device_error is not None]
    device = float(np.median(devices)) if devices else None
    median, p95 = np.quantile(widths, [0.5, 0.95]).tolist() if widths else (None, None)
    near_zero, negative = len(found) - len(known), sum(entry.latency_ms < 0 for entry in found)
    return Coverage(
        len(found), median, p95, build, near_zero, negative, device, len(held) - len(found)
    )
