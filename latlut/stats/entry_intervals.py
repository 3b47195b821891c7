"""The interval of one entry, from the spread between passes, within them, and what entries share.

A whole latency is positive, its errors are relative and its interval is one of its logarithm. A
difference of two latencies may be zero or negative: its errors are milliseconds, and its interval
reaches below zero where they do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from latlut.stats.half_widths import relative_half_width


@dataclass(frozen=True)
class EntryError:
    """What an entry's interval is made of; None where unknown."""

    own: float | None = None
    own_ms: float | None = None
    """``own``, ``own_ms``: the half-width that it does not share with others, relative to the entry
    and in milliseconds."""
    build: float | None = None
    device: float | None = None
    """``build``, ``device``: the parts of ``own`` that come from builds and from devices."""
    low_ms: float | None = None
    high_ms: float | None = None
    """``low_ms``, ``high_ms``: the interval."""
    total: float | None = None
    """Its half-width relative to the entry, as it is shown: ``relative_half_width``."""

    @property
    def is_near_zero(self) -> bool:
        """Whether zero lies in the interval."""
        if self.low_ms is None or self.high_ms is None:
            return False
        return self.low_ms <= 0 <= self.high_ms


def error_of_latency(
    value_ms: float,
    spread: float,
    within: float,
    build: float,
    shared: float,
    device: float = math.nan,
) -> EntryError:
    """The interval of a whole latency.

    Args:
        value_ms: the entry, positive.
        spread: relative half-width from the spread between passes; NaN if unknown, and then
            nothing is known: one sitting is no interval.
        within: relative half-width that the samples give; NaN if unknown.
        build: what of ``spread`` comes from builds; NaN if unknown.
        shared: relative half-width of what all entries share.
        device: what of ``spread`` comes from devices; NaN if unknown.
    """
    known_build = build if math.isfinite(build) else None
    known_device = device if math.isfinite(device) else None
    if not math.isfinite(spread):
        return EntryError(build=known_build, device=known_device)
    own = _wider(spread, within)
    total = math.hypot(own, shared)
    low, high = value_ms * math.exp(-total), value_ms * math.exp(total)
    shown = relative_half_width(value_ms, low, high)
    return EntryError(own, own * value_ms, known_build, known_device, low, high, shown)


def error_of_difference(
    value_ms: float,
    spread_ms: float,
    within_ms: float,
    build_ms: float,
    shared: float,
    device_ms: float = math.nan,
) -> EntryError:
    """The interval of a difference, which is not cut off at zero.

    Args:
        value_ms: the entry.
        spread_ms: half-width from the spread between passes, milliseconds; NaN if unknown.
        within_ms: half-width that the passes give by themselves, milliseconds; NaN if unknown.
        build_ms: what of ``spread_ms`` comes from builds; NaN if unknown.
        shared: half-width of what all entries share, relative to them.
        device_ms: what of ``spread_ms`` comes from devices; NaN if unknown.

    Returns:
        The error; what is relative to an entry of exactly zero is None, its ``total`` infinite.
    """
    size_ms = abs(value_ms)
    build = build_ms / size_ms if size_ms and math.isfinite(build_ms) else None
    device = device_ms / size_ms if size_ms and math.isfinite(device_ms) else None
    if not math.isfinite(spread_ms):
        return EntryError(build=build, device=device)
    own_ms = _wider(spread_ms, within_ms)
    half_ms = math.hypot(own_ms, shared * size_ms)
    own, total = (own_ms / size_ms, half_ms / size_ms) if size_ms else (None, math.inf)
    return EntryError(own, own_ms, build, device, value_ms - half_ms, value_ms + half_ms, total)


def _wider(spread: float, within: float) -> float:
    return max(spread, within) if math.isfinite(within) else spread
