"""How well estimates predict measurements: against other tools, by simulation, at the edges."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.errors import SpecError
from latlut.stats.agreement import Agreement, agreement


def simulated(rng, n=40, estimate_error=0.05, noise=0.01):
    """Estimates and two passes of n networks between 5 and 20 ms."""
    true = rng.uniform(5, 20, n)
    first, second = true * (1 + noise * rng.normal(size=(2, n)))
    return true * (1 + estimate_error * rng.normal(size=n)), first, second


def test_known_answers_agree_with_scipy_and_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    from scipy import stats

    estimated, first, second = simulated(np.random.default_rng(3), n=57)
    measured = (first + second) / 2
    found = agreement(estimated, first, second, resamples=50)
    assert found.n == 57
    assert found.r == pytest.approx(stats.pearsonr(estimated, measured).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(estimated, measured).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(estimated, measured).statistic)
    assert found.r2 == pytest.approx(metrics.r2_score(measured, estimated))
    mape = metrics.mean_absolute_percentage_error(measured, estimated)
    assert found.mape_percent == pytest.approx(100 * mape)
    line = stats.linregress(estimated, measured)
    assert (found.slope, found.intercept_ms) == pytest.approx((line.slope, line.intercept))
    assert found.r2_of_line == pytest.approx(line.rvalue**2)
    assert found.r12 == pytest.approx(stats.pearsonr(first, second).statistic)
    assert found.median_ratio == pytest.approx(np.median(estimated / measured))


def test_small_example_by_hand():
    found = agreement([1.1, 1.8, 4.0, 8.0], [1, 2, 4, 8], [1, 2, 4, 8], resamples=20)
    assert found.mape_percent == pytest.approx(5)
    assert found.rmspe_percent == pytest.approx(100 * math.sqrt(0.02 / 4))
    assert found.bias_percent == pytest.approx(0, abs=1e-9)
    assert found.within_5 == 0.5
    assert found.within_10 == 1.0  # exactly 10%, whatever the rounding
    assert (found.spearman, found.kendall) == pytest.approx((1, 1))
    assert found.noise_floor_mape_percent == 0
    assert (found.r12, found.ceiling_r) == pytest.approx((1, 1))


def test_bias_lowers_r2_of_the_estimate_but_not_of_the_line():
    measured = np.linspace(5, 20, 30)
    found = agreement(2 * measured, measured, measured, resamples=20)
    assert found.r2 < 0
    assert found.r2_of_line == pytest.approx(1)
    assert found.slope == pytest.approx(0.5)
    assert found.median_ratio == pytest.approx(2)


def test_bootstrap_intervals_cover_the_truth_as_often_as_they_claim():
    rng = np.random.default_rng(11)
    estimate_error, noise, draws = 0.05, 0.01, 200
    big = agreement(*simulated(rng, 400_000, estimate_error, noise), resamples=1)
    names = ("r", "r2", "mape_percent", "rmspe_percent", "bias_percent", "within_5", "slope")
    hits = dict.fromkeys(names, 0)
    for _ in range(draws):
        found = agreement(*simulated(rng, 60, estimate_error, noise), resamples=400)
        for name in names:
            low, high = found.intervals[name]
            hits[name] += low <= getattr(big, name) <= high
    assert {name: count for name, count in hits.items() if count < 0.90 * draws} == {}


def test_bootstrap_r_equals_resampling_one_network_set_at_a_time():
    estimated, first, second = simulated(np.random.default_rng(5), n=12)
    measured = (first + second) / 2
    found = agreement(estimated, first, second, seed=9, resamples=300)
    drawn = np.random.default_rng(9).integers(0, 12, size=(300, 12))
    loop = [np.corrcoef(estimated[row], measured[row])[0, 1] for row in drawn]
    assert found.intervals["r"] == pytest.approx(tuple(np.quantile(loop, (0.025, 0.975))))


def test_ceiling_and_floor_are_what_a_perfect_estimate_scores():
    rng = np.random.default_rng(2)
    for noise in (0.02, 0.1, 0.3):
        true = rng.normal(10, 1, 200_000)
        first, second = true + noise * 10 * rng.normal(size=(2, true.size)) / 3
        found = agreement(true, first, second, resamples=1)
        assert found.r == pytest.approx(found.ceiling_r, abs=0.005)
        assert found.mape_percent == pytest.approx(found.noise_floor_mape_percent, rel=0.02)


def test_within_interval_stays_open_where_all_networks_hit():
    found = agreement(np.arange(1.0, 11), np.arange(1.0, 11), np.arange(1.0, 11))
    assert found.within_5 == 1
    low, high = found.intervals["within_5"]
    assert low < 0.8
    assert high == pytest.approx(1)


def test_same_seed_same_intervals_other_seed_other_intervals():
    data = simulated(np.random.default_rng(0))
    assert agreement(*data, seed=4) == agreement(*data, seed=4)
    assert agreement(*data, seed=4).intervals["r"] != agreement(*data, seed=5).intervals["r"]


def test_equal_estimates_give_nan_with_a_reason():
    found = agreement([3, 3, 3, 3], [1, 2, 3, 4], [1, 2, 3, 4.1], resamples=30)
    for name in ("r", "r2_of_line", "spearman", "kendall", "slope", "intercept_ms"):
        assert math.isnan(getattr(found, name)), name
    assert math.isfinite(found.mape_percent)
    assert any("all estimates are equal" in note for note in found.notes)


@pytest.mark.parametrize("value", [0.1, 7.0])
def test_equal_measurements_give_nan_with_a_reason(value):
    same = np.full(7, value)
    found = agreement(np.arange(1, 8), same, same, resamples=30)
    assert math.isnan(found.r) and math.isnan(found.r2) and math.isnan(found.ceiling_r)
    assert any("all measurements are equal" in note for note in found.notes)
    assert any("no noise limit" in note for note in found.notes)
    assert agreement(same, same, same, resamples=5).mape_percent == pytest.approx(0, abs=1e-9)


def test_passes_that_disagree_give_no_ceiling():
    found = agreement([1, 2, 3], [1, 2, 3], [3, 2, 1.1], resamples=5)
    assert math.isnan(found.ceiling_r)
    assert any("do not agree" in note for note in found.notes)


def test_to_dict_is_strict_json():
    found = agreement([3, 3, 3], [1, 2, 3], [1, 2, 3], resamples=5)
    read_back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert read_back["r"] is None
    assert read_back["intervals"]["r"] == [None, None]
    assert set(read_back) == set(Agreement.__dataclass_fields__)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (([1, 2, 3], [1, 2, 3], [1, 2]), "3 first and 2 second"),
        (([1, 2, 3, 4], [1, 2, 3], [1, 2, 3]), "4 estimates"),
        (([1, 2], [1, 2], [1, 2]), "3 networks or more"),
        (([1, 2, math.nan], [1, 2, 3], [1, 2, 3]), "estimated_ms.*position 2"),
        (([1, 2, 3], [1, math.inf, 3], [1, 2, 3]), "measured_first_ms.*position 1"),
        (([1, 2, 3], [1, 2, 3], [0, 2, 3]), "measured_second_ms.*position 0"),
        (([[1, 2, 3]], [1, 2, 3], [1, 2, 3]), "shape"),
        ((["a", 2, 3], [1, 2, 3], [1, 2, 3]), "expected numbers"),
    ],
)
def test_data_that_make_no_sense_are_refused(data, message):
    with pytest.raises(SpecError, match=message):
        agreement(*data)


def test_resamples_must_be_positive():
    with pytest.raises(SpecError, match="resamples"):
        agreement([1, 2, 3], [1, 2, 3], [1, 2, 3], resamples=0)


latencies = st.floats(1e-3, 1e4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(latencies, latencies, latencies), min_size=3, max_size=15))
def test_numbers_stay_in_their_ranges(rows):
    found = agreement(*np.array(rows).T, resamples=20)
    for name in ("r", "spearman", "kendall", "r12"):
        value = getattr(found, name)
        assert math.isnan(value) or -1 <= value <= 1 + 1e-12
    assert 0 <= found.within_5 <= found.within_10 <= 1
    assert abs(found.bias_percent) <= found.mape_percent * (1 + 1e-9) + 1e-12
    assert found.mape_percent <= found.rmspe_percent * (1 + 1e-9)
    assert all(math.isnan(low) or low <= high for low, high in found.intervals.values())
