"""Intervals cover the truth as often as they claim; passes combine as documented."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from latlut.errors import SpecError
from latlut.stats.passes import combine_passes, fit_spread_prior, shared_half_width
from latlut.stats.quantiles import STATISTICS, quantile_interval, statistic_interval


@pytest.mark.parametrize("q", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("n", [40, 150])
def test_quantile_interval_covers_the_truth(q: float, n: int) -> None:
    generator = np.random.default_rng(1)
    truth = math.exp(0.2 * norm.ppf(q))
    hits = 0
    for _ in range(1500):
        found = quantile_interval(generator.lognormal(0, 0.2, n), q)
        low = -math.inf if math.isnan(found.low) else found.low
        high = math.inf if math.isnan(found.high) else found.high
        hits += low <= truth <= high
    assert hits / 1500 >= 0.945  # distribution-free intervals cover at least what they claim
    assert hits / 1500 <= 0.99


def test_too_few_samples_leave_a_side_unbounded() -> None:
    found = quantile_interval(np.arange(1.0, 13.0), 0.1)
    assert math.isnan(found.low)
    assert math.isfinite(found.high)
    assert math.isnan(found.half_width)


def test_the_floor_has_no_upper_error() -> None:
    found = statistic_interval(np.array([5.0, 3.0, 3.5]), "min")
    assert found.value == found.high == 3.0
    assert found.low == pytest.approx(0.0)  # 3 - 0.5 * 19 is below zero


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200),
    st.sampled_from(sorted(STATISTICS)),
    st.floats(0.1, 10),
)
def test_intervals_contain_their_value_and_scale(
    samples: list[float], statistic: str, factor: float
) -> None:
    found = statistic_interval(np.array(samples), statistic)
    assert min(samples) * 0.999 <= found.value <= max(samples) * 1.001
    if not math.isnan(found.low):
        assert found.low <= found.value * 1.000001
    if not math.isnan(found.high):
        assert found.high >= found.value * 0.999999
    scaled = statistic_interval(np.array(samples) * factor, statistic)
    assert scaled.value == pytest.approx(found.value * factor)


@pytest.mark.parametrize("bad", [(np.array([]), 0.5), (np.ones(3), 1.0), (np.ones(3), -0.1)])
def test_nonsense_is_refused(bad: tuple[np.ndarray, float]) -> None:
    with pytest.raises(SpecError):
        quantile_interval(*bad)


def test_unknown_statistic_names_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"p99.*p10"):
        statistic_interval(np.ones(3), "p99")


@pytest.mark.parametrize("passes", [3, 5])
def test_intervals_between_passes_cover_the_truth(passes: int) -> None:
    generator = np.random.default_rng(2)
    covered, draws = 0, 60
    for _ in range(draws):
        truth = generator.lognormal(0, 1, 200)
        spread = 0.01 * np.sqrt(8 / generator.chisquare(8, 200))
        readings = truth[:, None] * np.exp(generator.normal(size=(200, passes)) * spread[:, None])
        found = combine_passes(readings)
        covered += np.mean(np.abs(np.log(found.value / truth)) <= found.half_width)
    assert 0.945 <= covered / draws <= 0.985


def test_the_prior_is_recovered() -> None:
    generator = np.random.default_rng(3)
    true_variances = 0.0004 * 10 / generator.chisquare(10, 5000)
    variances = true_variances * generator.chisquare(4, 5000) / 4
    prior = fit_spread_prior(variances, np.full(5000, 4.0))
    assert prior.variance == pytest.approx(0.0004, rel=0.1)
    assert prior.dof == pytest.approx(10, rel=0.25)


def test_equal_spreads_are_pooled_completely() -> None:
    generator = np.random.default_rng(4)
    prior = fit_spread_prior(0.01 * generator.chisquare(4, 300) / 4, np.full(300, 4.0))
    assert prior.dof > 10
    assert prior.variance == pytest.approx(0.01, rel=0.15)


def test_one_pass_is_no_interval() -> None:
    found = combine_passes(np.array([[1.0], [2.0], [3.0]]))
    assert np.isnan(found.half_width).all()
    assert found.value.tolist() == pytest.approx([1.0, 2.0, 3.0])


def test_an_entry_measured_once_borrows_the_spread_of_the_others() -> None:
    generator = np.random.default_rng(5)
    readings = np.exp(generator.normal(0, 0.02, (50, 4)))
    readings[0, 1:] = np.nan
    found = combine_passes(readings)
    assert found.passes[0] == 1
    assert found.half_width[0] > np.median(found.half_width[1:])


def test_the_machines_speed_is_taken_out_as_far_as_readings_follow_it() -> None:
    generator = np.random.default_rng(6)
    truth = generator.lognormal(0, 1, 100)
    speeds = generator.lognormal(0, 0.1, (100, 4))
    noise = np.exp(generator.normal(0, 0.005, (100, 4)))
    for elasticity in (1.0, 0.5, 0.0):
        readings = truth[:, None] * speeds**elasticity * noise
        found = combine_passes(readings, speeds)
        assert found.elasticity == pytest.approx(elasticity, abs=0.02)
        assert np.median(np.abs(np.log(found.value / truth))) < 0.005
        if elasticity:
            plain = combine_passes(readings)
            assert np.median(found.half_width) < 0.3 * np.median(plain.half_width)


def test_too_few_readings_cannot_tell_how_they_follow_the_speed() -> None:
    speeds = np.array([[1.0, 1.1, 0.9, 1.0, 1.2]])
    assert combine_passes(3 * speeds, speeds).elasticity == 0


def test_speeds_that_are_unknown_change_nothing() -> None:
    readings = np.random.default_rng(7).lognormal(0, 0.1, (30, 3))
    speeds = np.full((30, 3), np.nan)
    assert (
        combine_passes(readings, speeds).value.tolist() == combine_passes(readings).value.tolist()
    )


def test_the_shared_error_is_the_levels_between_passes() -> None:
    generator = np.random.default_rng(8)
    hits = 0
    for _ in range(500):
        levels = np.exp(generator.normal(0, 0.03, 5))
        hits += abs(np.log(levels).mean()) <= shared_half_width(levels)
    assert 0.92 <= hits / 500 <= 0.98
    assert math.isnan(shared_half_width(np.array([1.0])))


def test_negative_latencies_are_refused() -> None:
    with pytest.raises(SpecError):
        combine_passes(np.array([[1.0, -1.0]]))
