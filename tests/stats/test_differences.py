"""Differences of two latencies: paired within a pass, combined over passes, near and below zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.errors import SpecError
from latlut.measure.timing import Pair, TimingSettings, measure_side_by_side
from latlut.stats.differences import combine_differences, paired_reading
from latlut.stats.entry_intervals import error_of_difference, error_of_latency
from latlut.stats.passes import combine_passes
from latlut.stats.quantiles import statistic_interval
from latlut.stats.sampling import PairedSampling


class Machine:
    """A clock and a speed that flips between levels, for everything that runs on it.

    ``levels`` are factors of a duration, each kept for an exponentially distributed time of mean
    ``dwell_ms``.
    """

    def __init__(self, seed: int, levels: tuple[float, ...] = (1.0, 1.3), dwell_ms: float = 60.0):
        self.generator = np.random.default_rng(seed)
        self.levels, self.dwell_ms = levels, dwell_ms
        self.now_ms = self.until_ms = 0.0
        self.level = 1.0

    def sampler(self, usual_ms: float, noise: float = 0.02):
        def sample_ns(count: int) -> np.ndarray:
            durations = np.empty(count)
            for index in range(count):
                while self.now_ms >= self.until_ms:
                    self.level = float(self.generator.choice(self.levels))
                    self.until_ms += self.generator.exponential(self.dwell_ms)
                durations[index] = usual_ms * self.level * self.generator.lognormal(0, noise)
                self.now_ms += durations[index]
            return np.rint(durations * 1e6).astype(np.int64)

        return sample_ns


def test_paired_differences_are_closer_to_the_truth_than_unpaired_ones() -> None:
    """On a machine that flips by 30%, of an op that takes a quarter of the graph with it."""
    timing, truth_ms = TimingSettings(), 0.25 * np.exp(-1.2816 * 0.02)
    paired, unpaired = [], []
    for seed in range(40):
        machine = Machine(seed, levels=(1.0, 1.3, 1.3, 1.3))
        pair = Pair(machine.sampler(1.0), machine.sampler(0.75))
        beside = machine.sampler(0.5)
        (found, _), _ = measure_side_by_side([pair, beside], timing)
        assert isinstance(found, PairedSampling)
        # Relative to the speed at which WITH was read: entries are brought to the usual one.
        speed = found.with_ms / (1.0 * np.exp(-1.2816 * 0.02))
        paired.append(found.interval_ms.value / speed)
        without_ms = statistic_interval(found.without_ns / 1e6, "p10").value
        unpaired.append((found.with_ms - without_ms) / speed)
    error = {
        name: float(np.sqrt(np.mean((np.array(values) - truth_ms) ** 2)))
        for name, values in (("paired", paired), ("unpaired", unpaired))
    }
    assert error["paired"] < 0.7 * error["unpaired"], error
    assert abs(np.median(paired) - truth_ms) < 0.02 * truth_ms


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_the_interval_of_a_pair_covers_the_truth(share: float) -> None:
    """Also where the op costs nothing at all. Without flips: within a pass nothing sees levels."""
    covered, below = 0, 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        with_ns = 1e6 * generator.lognormal(0, 0.03, 120)
        without_ns = (1 - share) * 1e6 * generator.lognormal(0, 0.03, 120)
        found = paired_reading(with_ns, without_ns, [10] * 12, "p10")
        truth_ms = share * np.exp(-1.2816 * 0.03)
        covered += found.difference_ms.low <= truth_ms <= found.difference_ms.high
        below += found.difference_ms.value < truth_ms
    assert covered >= 180
    assert 60 <= below <= 140


def test_a_difference_below_zero_is_not_clipped() -> None:
    generator = np.random.default_rng(0)
    with_ns, without_ns = (ms * 1e6 * generator.lognormal(0, 0.01, 120) for ms in (1.0, 1.2))
    found = paired_reading(with_ns, without_ns, [10] * 12, "median")
    assert found.difference_ms.value == pytest.approx(-0.2, abs=0.01)
    assert found.difference_ms.high < 0
    assert found.with_ms.value - found.without_ms == pytest.approx(found.difference_ms.value)


def test_few_turns_leave_the_interval_open() -> None:
    samples = np.linspace(1e6, 1.1e6, 40)
    assert np.isnan(paired_reading(samples, samples, [20, 20], "p10").difference_ms.low)
    assert np.isfinite(paired_reading(samples, samples, [8] * 5, "p10").difference_ms.value)


@pytest.mark.parametrize("level_ms", [0.005, 1.0, 30.0])
def test_both_graphs_get_as_many_samples_in_each_of_six_turns_or_more(level_ms: float) -> None:
    calls: list[tuple[str, int]] = []

    def sampler(name: str, ms: float):
        def sample_ns(count: int) -> np.ndarray:
            calls.append((name, count))
            return np.full(count, ms * 1e6).astype(np.int64)

        return sample_ns

    pair = Pair(sampler("with", level_ms), sampler("without", 0.4 * level_ms))
    (found,), _ = measure_side_by_side([pair], TimingSettings())
    assert isinstance(found, PairedSampling)
    assert len(found.samples_ns) == len(found.without_ns) == sum(found.turn_sizes)
    assert len(found.turn_sizes) >= 6
    assert found.interval_ms.value == pytest.approx(0.6 * level_ms)
    bursts = [name for name, count in calls if count > 1][-2 * len(found.turn_sizes) :]
    if min(found.turn_sizes) > 1:  # neither graph is always the first
        assert bursts[:4] == ["with", "without", "without", "with"]


# ---- over passes ---------------------------------------------------------------------------


def _drawn(
    generator: np.random.Generator, truth_ms: np.ndarray, without_ms: np.ndarray, passes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(differences, with, without), (E, P): each graph's latency differs by 2% between passes."""
    shape = (len(truth_ms), passes)
    with_ms = (truth_ms + without_ms)[:, None] * generator.lognormal(0, 0.02, shape)
    beside_ms = without_ms[:, None] * generator.lognormal(0, 0.02, shape)
    return with_ms - beside_ms, with_ms, beside_ms


@pytest.mark.parametrize("passes", [3, 5, 8])
def test_intervals_cover_the_truth_also_at_zero_and_below(passes: int) -> None:
    generator = np.random.default_rng(passes)
    truth_ms = np.repeat([0.0, -0.1, 0.05, 1.0, 10.0], 60)
    without_ms = generator.uniform(0.5, 3.0, len(truth_ms))
    found = combine_differences(
        *_drawn(generator, truth_ms, without_ms, passes), np.zeros((len(truth_ms), passes), int)
    )
    covered = np.abs(found.value - truth_ms) <= found.half_width
    assert covered.mean() >= 0.92
    for value in (0.0, -0.1, 10.0):
        assert covered[truth_ms == value].mean() >= 0.85
    assert np.median(found.half_width / np.hypot(truth_ms + without_ms, without_ms)) < 0.08


def test_without_anything_before_it_a_difference_is_combined_like_a_latency() -> None:
    generator = np.random.default_rng(3)
    with_ms = generator.uniform(0.1, 5, 20)[:, None] * generator.lognormal(0, 0.02, (20, 5))
    speeds = generator.lognormal(0, 0.05, (20, 5))
    found = combine_differences(with_ms, with_ms, np.zeros((20, 5)), np.zeros((20, 5), int), speeds)
    whole = combine_passes(with_ms, speeds)
    assert found.value == pytest.approx(whole.value)
    assert found.elasticity == whole.elasticity
    assert found.half_width == pytest.approx(whole.half_width * whole.value, rel=0.1)


def test_the_machines_speed_is_taken_out_of_differences() -> None:
    generator = np.random.default_rng(4)
    speeds = np.repeat(generator.lognormal(0, 0.1, (1, 6)), 40, axis=0)
    truth_ms, without_ms = np.linspace(-0.5, 2, 40), np.full(40, 1.0)
    parts = [part * speeds for part in _drawn(generator, truth_ms, without_ms, 6)]
    none = np.zeros((40, 6), int)
    raw, corrected = combine_differences(*parts, none), combine_differences(*parts, none, speeds)
    assert corrected.elasticity == pytest.approx(1, abs=0.1)
    assert np.median(corrected.half_width) < np.median(raw.half_width)
    assert np.abs(corrected.value - truth_ms).mean() < 0.05


def test_builds_that_differ_are_in_the_interval() -> None:
    generator = np.random.default_rng(5)
    builds = np.tile(np.repeat(np.arange(3), 2), (50, 1))
    of_build = generator.normal(0, 0.2, (50, 3))[np.arange(50)[:, None], builds]
    truth_ms, without_ms = np.zeros(50), np.ones(50)
    difference, with_ms, beside_ms = _drawn(generator, truth_ms, without_ms, 6)
    found = combine_differences(difference + of_build, with_ms + of_build, beside_ms, builds)
    alone = combine_differences(
        difference + of_build, with_ms + of_build, beside_ms, np.zeros_like(builds)
    )
    assert (found.builds == 3).all()
    assert np.median(found.build_half_width) > 0.1
    assert np.mean(np.abs(found.value) <= found.half_width) >= 0.85
    assert np.mean(np.abs(alone.value) <= alone.half_width) < 0.85


@settings(max_examples=40, deadline=None)
@given(unit=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_differences_have_no_unit_of_their_own(unit: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    parts = _drawn(generator, generator.normal(0, 1, 12), np.full(12, 9.0), 4)
    none = np.zeros((12, 4), int)
    one = combine_differences(*parts, none)
    other = combine_differences(*(part * unit for part in parts), none)
    assert other.value == pytest.approx(one.value * unit, rel=1e-6, abs=1e-9 * unit)
    assert other.half_width == pytest.approx(one.half_width * unit, rel=1e-6)
    assert other.pass_sd == pytest.approx(one.pass_sd, nan_ok=True)


def test_a_pass_that_lacks_an_entry_changes_nothing_for_others() -> None:
    generator = np.random.default_rng(6)
    parts = _drawn(generator, np.ones(10), np.ones(10), 4)
    for part in parts:
        part[0, 1:] = np.nan
    found = combine_differences(*parts, np.zeros((10, 4), int))
    assert np.isfinite(found.value).all()
    assert np.isfinite(found.half_width[1:]).all()


def test_a_latency_with_the_operator_is_positive() -> None:
    with pytest.raises(SpecError, match="positive"):
        combine_differences(
            np.ones((2, 2)), np.array([[1.0, -1.0], [1.0, 1.0]]), np.ones((2, 2)),
            np.zeros((2, 2), int),
        )  # fmt: skip


# ---- one entry's interval ------------------------------------------------------------------


def test_an_interval_of_a_difference_reaches_below_zero() -> None:
    error = error_of_difference(0.1, 0.3, 0.2, float("nan"), 0.5)
    half = float(np.hypot(0.3, 0.05))
    assert (error.low_ms, error.high_ms) == pytest.approx((0.1 - half, 0.1 + half))
    assert error.is_near_zero
    assert error.own_ms == 0.3
    assert error.own == pytest.approx(3.0)


def test_an_entry_of_exactly_zero_has_an_error_in_milliseconds_only() -> None:
    error = error_of_difference(0.0, 0.3, float("nan"), 0.1, 0.5)
    assert (error.own, error.own_ms, error.build) == (None, 0.3, None)
    assert error.is_near_zero


@given(
    value=st.floats(1e-4, 1e4),
    spread=st.floats(0, 1),
    within=st.floats(0, 1) | st.just(float("nan")),
)
def test_an_interval_of_a_latency_never_does(value: float, spread: float, within: float) -> None:
    error = error_of_latency(value, spread, within, float("nan"), 0.01)
    assert error.low_ms is not None and error.high_ms is not None
    assert 0 < error.low_ms <= value <= error.high_ms
    assert not error.is_near_zero


def test_one_sitting_is_no_interval() -> None:
    for make in (error_of_latency, error_of_difference):
        error = make(1.0, float("nan"), 0.1, float("nan"), 0.0)
        assert (error.own, error.low_ms, error.total) == (None, None, None)
        assert not error.is_near_zero
