"""Several devices: their variance is a term of its own, and intervals are those of the model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from latlut.stats.combining import CombinedReadings, combine_readings
from latlut.stats.devices import device_term, level_half_width

ONE_BUILD = 0


def simulated(
    generator: np.random.Generator, entries: int, devices: int, passes: int, device_sd: float
) -> tuple[np.ndarray, np.ndarray]:
    """(E, P) readings around 1, each pass of an entry on a device that is drawn, as leases are."""
    number = generator.integers(0, devices, (entries, passes))
    effects = generator.normal(0.0, device_sd, (entries, devices))
    of_device = np.take_along_axis(effects, number, axis=1)
    return np.exp(of_device + generator.normal(0.0, 0.01, number.shape)), number


def combined(readings: np.ndarray, number: np.ndarray | None) -> CombinedReadings:
    builds = np.full(readings.shape, ONE_BUILD)
    return combine_readings(readings, builds, None, number)


def coverage(found: list[CombinedReadings]) -> float:
    return float(np.mean([np.abs(np.log(item.value)) <= item.half_width for item in found]))


@pytest.mark.parametrize(("devices", "passes"), [(2, 6), (3, 5), (4, 8), (40, 5)])
@pytest.mark.parametrize("device_sd", [0.0, 0.02])
def test_intervals_cover_the_model_s_latency(devices: int, passes: int, device_sd: float) -> None:
    generator = np.random.default_rng(devices)
    found = [combined(*simulated(generator, 300, devices, passes, device_sd)) for _ in range(10)]
    assert binom.ppf(0.001, 3000, 0.93) / 3000 <= coverage(found) <= 0.99


def test_the_spread_between_passes_alone_would_claim_too_much() -> None:
    readings, number = simulated(np.random.default_rng(1), 2000, 2, 8, 0.03)
    assert coverage([combined(readings, number)]) > 0.93
    assert coverage([combined(readings, None)]) < 0.88


def test_the_variance_between_devices_is_recovered() -> None:
    generator = np.random.default_rng(2)
    found = [combined(*simulated(generator, 300, 4, 12, 0.03)) for _ in range(5)]
    assert np.mean([item.device_sd**2 for item in found]) == pytest.approx(0.03**2, rel=0.15)
    none = combined(*simulated(generator, 500, 4, 12, 0.0))
    assert np.median(none.device_sd) < 0.004


def test_an_entry_of_one_device_learns_from_the_others() -> None:
    readings, number = simulated(np.random.default_rng(3), 200, 3, 6, 0.03)
    number[0] = 1
    found = combined(readings, number)
    assert found.devices[0] == 1
    assert found.half_width[0] > 1.3 * np.median(found.half_width[1:])
    assert found.device_half_width[0] > 0.03


def test_a_pass_per_device_is_not_counted_twice() -> None:
    """Where each pass was on a device of its own the spread between passes knows it all."""
    generator = np.random.default_rng(4)
    readings = np.exp(generator.normal(0.0, 0.03, (300, 5)))
    number = np.tile(np.arange(5), (300, 1))
    apart, mixed = combined(readings, number), combined(readings, None)
    np.testing.assert_allclose(apart.half_width, mixed.half_width)
    assert np.isfinite(apart.device_half_width).all()


def test_one_device_has_no_term() -> None:
    readings = np.exp(np.random.default_rng(5).normal(0.0, 0.01, (20, 5)))
    found = combined(readings, np.full(readings.shape, 3))
    np.testing.assert_array_equal(found.half_width, combined(readings, None).half_width)
    assert np.isnan(found.device_half_width).all()
    assert (found.devices == 1).all()
    assert device_term(np.log(readings), np.full(readings.shape, 3)) is None


def test_the_level_of_the_model_is_known_as_well_as_devices_agree() -> None:
    """Against a mean of D levels with their own standard deviation, by hand."""
    speeds = np.array([1.0, 1.0, 1.02, 1.02, 0.99, 0.99])
    devices = np.array([0, 0, 1, 1, 2, 2])
    levels = np.log([1.0, 1.02, 0.99])
    expected = 4.3027 * levels.std(ddof=1) / np.sqrt(3)
    assert level_half_width(speeds, devices) == pytest.approx(expected, rel=1e-4)
    assert np.isnan(level_half_width(speeds, np.zeros(6)))
