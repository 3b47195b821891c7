"""An interval as a half-width beside its value, and percentages as they are printed."""

from __future__ import annotations


def relative_half_width(value: float, low: float | None, high: float | None) -> float | None:
    """What ± says of an interval: half of (high - low) over the value.

    None where the interval is unknown, or where zero lies in it: nothing is a share of what may be
    nothing.
    """
    if low is None or high is None or low <= 0 <= high:
        return None
    return (high - low) / 2 / abs(value)


def percent_text(value: float) -> str:
    """A percentage in two digits, without an exponent."""
    return f"{float(f'{value:.2g}'):g}"
