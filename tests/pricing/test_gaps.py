"""How well a difference of two latencies is known: entries, the table's level, the calibration."""

from __future__ import annotations

import numpy as np
import pytest

from latlut.opspec import OpSpec
from latlut.pricing.calibration import Calibration, features_ms
from latlut.pricing.gaps import gap_half_width_ms
from latlut.table.entry import Entry

CONV = OpSpec("conv", (8, 16, 16), 8)
TWICE = OpSpec("conv_2x", (8, 16, 16), 8)
EFFECTS = ("kind conv", "kind conv_2x", "network")
COVARIANCE = ((0.004, 0.001, 0.0), (0.001, 0.003, -0.002), (0.0, -0.002, 0.05))


def entry(spec: OpSpec, latency_ms: float, own_error_ms: float | None) -> Entry:
    return Entry(
        key=spec.key, latency_ms=latency_ms, ci_low_ms=None, ci_high_ms=None, own_error=None,
        own_error_ms=own_error_ms, passes=3, n=30, roofline_ms=None, warnings="",
    )  # fmt: skip


def calibration(most_ms: float = 100.0) -> Calibration:
    return Calibration(
        effects=EFFECTS, values=(0.1, -0.2, 0.5), covariance=COVARIANCE, prior_sd=(0.3, 0.3, 1.0),
        low_ms=(0.0, 0.0, 1.0), high_ms=(most_ms, most_ms, 1.0), residual_sd=0.01,
        entries_sd=0.001, dof=1e6, networks=30,
    )  # fmt: skip


ENTRIES = {item.key: item for item in (entry(CONV, 2.0, 0.05), entry(TWICE, 3.0, 0.1))}


def test_entries_and_the_shared_error() -> None:
    half = gap_half_width_ms({CONV: 1.0}, {CONV: 3.0, TWICE: 1.0}, ENTRIES, 0.04, None)
    assert half == pytest.approx(np.linalg.norm([2 * 0.05, 1 * 0.1, 0.04 * 7.0]))


def test_what_both_execute_cancels() -> None:
    same = {CONV: 5.0, TWICE: 2.0}
    assert gap_half_width_ms(same, same, ENTRIES, 0.04, calibration()) == 0


def test_an_entry_without_an_error_leaves_the_gap_without_one() -> None:
    entries = ENTRIES | {TWICE.key: entry(TWICE, 3.0, None)}
    assert gap_half_width_ms({CONV: 1.0}, {TWICE: 1.0}, entries, 0.0, None) is None
    assert gap_half_width_ms({TWICE: 1.0}, {CONV: 1.0, TWICE: 1.0}, entries, 0.0, None) is not None


def test_the_calibrations_effects_are_drawn_together() -> None:
    """Against what effects drawn from their posterior make of the gap; the constant cancels."""
    low, high = {CONV: 1.0}, {CONV: 4.0, TWICE: 2.0}
    exact = {key: entry(item.spec, item.latency_ms, 0.0) for key, item in ENTRIES.items()}
    own = calibration()
    half = gap_half_width_ms(low, high, exact, 0.0, own)
    rng = np.random.default_rng(0)
    drawn = rng.multivariate_normal(own.values, COVARIANCE, 200_000)
    ends = [
        features_ms(EFFECTS, [(spec, n * exact[spec.key].latency_ms, n) for spec, n in end.items()])
        for end in (low, high)
    ]
    gaps = drawn @ (ends[1] - ends[0])
    assert half == pytest.approx(1.96 * gaps.std(), rel=0.01)


def test_factors_scale_the_entries_and_the_level() -> None:
    own = calibration()
    certain = Calibration(**{**vars(own), "covariance": ((0.0,) * 3,) * 3})
    half = gap_half_width_ms({CONV: 1.0}, {CONV: 2.0}, ENTRIES, 0.04, certain)
    assert half == pytest.approx(np.hypot(1.1 * 0.05, 0.04 * 1.1 * 2.0))


def test_outside_the_fitted_range_less_is_known() -> None:
    low, high = {CONV: 1.0}, {CONV: 10.0}
    inside = gap_half_width_ms(low, high, ENTRIES, 0.0, calibration())
    outside = gap_half_width_ms(low, high, ENTRIES, 0.0, calibration(most_ms=5.0))
    assert outside == pytest.approx(np.hypot(inside, 1.96 * 0.3 * 15.0), rel=1e-3)
