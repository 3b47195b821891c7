"""The warm-up and sampling loop, on scripted durations: no clock, no waiting."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest

from latlut.engines.resolution import EVENT_TICK_S, EXACT, Resolution
from latlut.errors import SpecError
from latlut.measure.timing import TimingSettings, measure, measure_side_by_side, warm_up


class Script:
    """Durations in nanoseconds: the slow first runs, then a level with noise."""

    def __init__(self, level_ns: float, noise: float = 0.0, slow_runs: int = 0, seed: int = 0):
        self.level_ns, self.noise, self.slow_runs = level_ns, noise, slow_runs
        self.generator = np.random.default_rng(seed)
        self.runs = 0
        self.log: list[int] = []

    def __call__(self, count: int) -> np.ndarray:
        levels = np.where(np.arange(self.runs, self.runs + count) < self.slow_runs, 10.0, 1.0)
        self.runs += count
        self.log.append(count)
        noise = self.generator.lognormal(0, self.noise, count) if self.noise else np.ones(count)
        return (self.level_ns * levels * noise).astype(np.int64)


def test_warm_up_goes_on_until_two_windows_agree() -> None:
    """Each run is 2% faster than the one before until the 100th."""
    state = {"runs": 0}

    def settling(count: int) -> np.ndarray:
        numbers = np.minimum(np.arange(state["runs"], state["runs"] + count), 100)
        state["runs"] += count
        return (1e5 * 1.02 ** (100 - numbers)).astype(np.int64)

    runs, spent_s, is_steady, run_s, _ = warm_up(settling, TimingSettings(warmup_cap_s=1.0))
    assert is_steady
    assert runs == state["runs"] > 100
    assert spent_s > 100 * 1e-4
    assert run_s == pytest.approx(1e-4, rel=0.01)


def test_short_runs_share_readings_where_the_clock_has_steps() -> None:
    """The median of the first window decides; the first run alone is much slower."""
    asked: list[tuple[int, int]] = []

    def sample_ns(count: int, runs: int = 1) -> np.ndarray:
        asked.append((count, runs))
        return np.full(count, 1e6 if len(asked) == 1 else 4_000).astype(np.int64)

    resolution = Resolution(EVENT_TICK_S)
    warm = warm_up(sample_ns, TimingSettings(), resolution)
    assert warm.runs_per_reading == 13
    assert [runs for _, runs in asked] == [1, 1, 13]
    assert warm.runs == sum(count * runs for count, runs in asked)
    asked.clear()
    found = measure(sample_ns, TimingSettings(), resolution)
    bursts = [(count, runs) for count, runs in asked[3:] if count > 1]
    assert {runs for _, runs in bursts} == {13}
    # A turn is 12 ms of run time, and every run of a reading counts as time.
    assert all(count * 13 * 4e-6 <= 0.0121 for count, _ in bursts)
    assert found.timing_s == pytest.approx(1000 * 13 * 4e-6)
    assert len(found.samples_ns) == sum(count for count, _ in bursts)


def test_long_runs_and_exact_clocks_are_read_alone() -> None:
    for run_ns, resolution in ((60_000, Resolution(EVENT_TICK_S)), (4_000, EXACT)):
        script = Script(run_ns)
        assert warm_up(script, TimingSettings(), resolution).runs_per_reading == 1


def test_companions_share_readings_too() -> None:
    asked: list[tuple[int, int]] = []

    def companion(count: int, runs: int = 1) -> np.ndarray:
        asked.append((count, runs))
        return np.full(count, 5_000).astype(np.int64)

    resolution = Resolution(EVENT_TICK_S)
    measure_side_by_side([Script(1e5)], TimingSettings(), [companion], resolution=resolution)
    assert {runs for count, runs in asked if count > 3} == {10}


def test_a_step_that_cannot_be_averaged_widens_the_interval() -> None:
    coarse = Resolution(EVENT_TICK_S, can_average=False)
    exact, widened = (
        measure(Script(1e4, noise=0.0), TimingSettings(), resolution).interval_ms
        for resolution in (EXACT, coarse)
    )
    assert widened.value == exact.value
    assert widened.margin == pytest.approx(exact.margin + 1e3 * EVENT_TICK_S)


def test_warm_up_that_never_settles_ends_at_its_cap() -> None:
    state = {"level": 1e5}

    def climbing(count: int) -> np.ndarray:
        state["level"] *= 1.5
        return np.full(count, state["level"]).astype(np.int64)

    settings = TimingSettings(warmup_cap_s=0.05)
    _, spent_s, is_steady, *_ = warm_up(climbing, settings)
    assert not is_steady
    assert spent_s >= 0.05


def test_quiet_op_stops_early_and_noisy_op_at_the_cap() -> None:
    settings = TimingSettings(ci=0.01, min_time_s=0.01, time_cap_s=0.2, max_samples=100_000)
    quiet = measure(Script(1e5, noise=0.001), settings)
    noisy = measure(Script(1e5, noise=0.3), settings)
    assert quiet.timing_s < 0.1
    assert quiet.interval_ms.half_width <= 0.01
    assert noisy.timing_s >= 0.2
    assert noisy.interval_ms.half_width > 0.01


def test_a_slow_op_gets_its_least_samples_and_an_open_interval() -> None:
    found = measure(Script(5e8, noise=0.01), TimingSettings(min_samples=5, time_cap_s=0.1))
    assert len(found.samples_ns) == 5
    assert math.isnan(found.interval_ms.low)
    assert found.interval_ms.value == pytest.approx(500, rel=0.05)


def test_a_fast_op_stops_at_max_samples() -> None:
    found = measure(Script(1e3, noise=0.5), TimingSettings(max_samples=500, ci=0.0001))
    assert 499 <= len(found.samples_ns) <= 500


def test_outliers_do_not_move_a_low_quantile() -> None:
    script = Script(1e5, noise=0.002)
    plain = script.__call__

    def interrupted(count: int) -> np.ndarray:
        samples = plain(count)
        samples[::7] *= 20
        return samples

    assert measure(interrupted, TimingSettings()).interval_ms.value == pytest.approx(0.1, rel=0.01)


def test_ops_take_turns_and_companions_run_in_every_round() -> None:
    order: list[str] = []

    def sampler(name: str):
        script = Script(1e5, noise=0.2)

        def sample(count: int) -> np.ndarray:
            if not order or order[-1] != name:
                order.append(name)
            return script(count)

        return sample

    samplings, readings = measure_side_by_side(
        [sampler("a"), sampler("b")], TimingSettings(time_cap_s=0.1), [sampler("s")]
    )
    turns = "".join(order)
    assert turns.count("absabs") >= 2
    assert len(samplings) == 2
    assert len(readings) == 1
    assert len(readings[0]) > 10


def test_the_first_run_of_a_burst_is_not_counted() -> None:
    calls: list[int] = []

    def sample(count: int) -> np.ndarray:
        # A lone run is the one that fills the caches: 100 times slower than those of a burst.
        calls.append(count)
        return np.full(count, 1e7 if count == 1 else 1e5).astype(np.int64)

    found = measure(sample, TimingSettings())
    assert found.samples_ns.max() == 1e5
    assert calls.count(1) > 1


def test_garbage_collection_is_off_while_sampling_and_on_afterwards() -> None:
    seen = []

    def sample(count: int) -> np.ndarray:
        seen.append(gc.isenabled())
        return np.full(count, 1e6).astype(np.int64)

    measure(sample, TimingSettings())
    assert not any(seen)
    assert gc.isenabled()


@pytest.mark.parametrize(
    "wrong",
    [{"ci": 0.0}, {"ci": 1.0}, {"min_samples": 0}, {"min_samples": 9, "max_samples": 8},
     {"time_cap_s": -1.0}, {"statistic": "mode"}],
)  # fmt: skip
def test_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(SpecError):
        TimingSettings(**wrong)
