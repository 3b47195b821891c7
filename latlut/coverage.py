"""How much of a plan a table holds, and how well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latlut.plans import Plan
from latlut.table import LatencyTable


@dataclass(frozen=True)
class Coverage:
    """How much of a plan a table holds; intervals as relative 95% half-widths in percent.

    ``median_build_percent`` is the part that builds have in an interval, None where the table
    knows one build only.
    """

    entries: int
    median_ci_percent: float | None
    p95_ci_percent: float | None
    median_build_percent: float | None = None


def plan_coverage(table: LatencyTable, plan: Plan) -> Coverage:
    """How much of the plan the table holds, and how well."""
    found = [table.lookup(spec) for spec in plan.specs if spec in table]
    widths = [
        50 * (entry.ci_high_ms - entry.ci_low_ms) / entry.latency_ms
        for entry in found
        if entry.ci_low_ms is not None and entry.ci_high_ms is not None
    ]
    builds = [100 * entry.build_error for entry in found if entry.build_error is not None]
    build = float(np.median(builds)) if builds else None
    if not widths:
        return Coverage(len(found), None, None, build)
    median, p95 = np.quantile(widths, [0.5, 0.95])
    return Coverage(len(found), float(median), float(p95), build)
