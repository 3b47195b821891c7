"""± means one thing: half of an interval over its value."""

from __future__ import annotations

import math

import pytest

from latlut.stats.entry_intervals import error_of_difference, error_of_latency
from latlut.stats.half_widths import percent_text, relative_half_width
from latlut.table.entry import Entry


def test_it_is_half_of_the_interval_over_the_value() -> None:
    assert relative_half_width(2.0, 1.8, 2.6) == pytest.approx(0.2)
    assert relative_half_width(-2.0, -2.2, -1.8) == pytest.approx(0.1)
    assert relative_half_width(0.1, -0.1, 0.3) is None
    assert relative_half_width(1.0, None, 1.1) is None


@pytest.mark.parametrize("spread", [0.01, 0.162, 0.5])
def test_a_warning_and_an_entry_say_the_same(spread: float) -> None:
    error = error_of_latency(3.0, spread, math.nan, math.nan, 0.0)
    assert error.low_ms is not None and error.high_ms is not None and error.total is not None
    entry = Entry("conv 4->4 at 8x8", 3.0, error.low_ms, error.high_ms, spread, 5, 100, None, "")
    assert entry.ci_percent == pytest.approx(100 * error.total)
    assert f"±{percent_text(100 * error.total)}%" in repr(entry)
    difference = error_of_difference(3.0, spread, math.nan, math.nan, 0.0)
    expected = relative_half_width(3.0, difference.low_ms, difference.high_ms)
    assert difference.total == pytest.approx(expected)
