"""What bounds a measurement: the target's peak figures, an empty kernel, the clock's step.

All are kept in the table, so that every later summary can judge its entries by them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from latlut.table.table import LatencyTable
from latlut.table.writing import set_fact

#: Measured faster than the roofline by this factor: a measurement error, not a clever kernel.
ROOFLINE_SLACK = 4.0


@dataclass(frozen=True)
class Roofline:
    """Peak figures of the target: FLOP/s, and bytes/s of memory and of the last-level cache."""

    flops_per_s: float | None = None
    memory_bytes_per_s: float | None = None
    cache_bytes_per_s: float | None = None

    def least_ms(self, macs: int | None, moved_bytes: int | None) -> float | None:
        """The least latency that compute and memory allow, None where neither is known."""
        bounds = []
        if macs and self.flops_per_s:
            bounds.append(2e3 * macs / self.flops_per_s)
        if moved_bytes and self.memory_bytes_per_s:
            bounds.append(1e3 * moved_bytes / self.memory_bytes_per_s)
        return max(bounds) if bounds else None

    def is_impossible(self, ms: float, macs: int | None, moved_bytes: int | None) -> bool:
        """Beyond 4x the compute peak or the last-level cache's bandwidth."""
        compute = macs and self.flops_per_s and ms * ROOFLINE_SLACK < 2e3 * macs / self.flops_per_s
        cache = (
            moved_bytes
            and self.cache_bytes_per_s
            and ms < 1e3 * moved_bytes / self.cache_bytes_per_s
        )
        return bool(compute or cache)


def set_bounds(
    table: LatencyTable,
    roofline: Roofline,
    launch_floor_ms: float | None,
    clock_error_ms: float = 0.0,
) -> None:
    """Keep the target's peak figures, and what an empty kernel takes on this engine.

    A floor of None leaves what is there, as a clock's error of 0 does.
    """
    with table.writing() as db:
        set_fact(db, "roofline", json.dumps(asdict(roofline)))
        if launch_floor_ms is not None:
            set_fact(db, "launch_floor_ms", repr(float(launch_floor_ms)))
        if clock_error_ms:
            set_fact(db, "clock_error_ms", repr(float(clock_error_ms)))


def bounds(table: LatencyTable) -> tuple[Roofline, float]:
    """The roofline, and what an empty kernel takes, in milliseconds; 0 if unknown."""
    roofline = Roofline(**json.loads(table.fact("roofline") or "{}"))
    return roofline, float(table.fact("launch_floor_ms") or 0.0)


def clock_error_ms(table: LatencyTable) -> float:
    """What a reading may be off by for the clock's sake, in milliseconds; 0 on most engines."""
    return float(table.fact("clock_error_ms") or 0.0)
