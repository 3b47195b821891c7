"""A GPU is busy until its clock is steady, for at least 0.2 s and at most 3 s of run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from latlut.measure.device_warmup import BUSY_S, CAP_S, WINDOW_S, warm_device


class Script:
    """Runs of ``run_ns`` and a clock that is read in turns."""

    def __init__(self, clocks: Iterator[int | None], run_ns: float = 1e6) -> None:
        self.clocks, self.run_ns = clocks, run_ns
        self.runs = 0

    def sample_ns(self, count: int) -> np.ndarray:
        self.runs += count
        return np.full(count, self.run_ns).astype(np.int64)

    def clock_mhz(self) -> int | None:
        return next(self.clocks)


def _clock(value: Callable[[int], int | None]) -> Iterator[int | None]:
    return (value(number) for number in range(10_000))


@pytest.mark.parametrize("mhz", [1980, None])
def test_a_steady_or_unknown_clock_takes_the_least_time(mhz: int | None) -> None:
    script = Script(_clock(lambda _: mhz))
    found = warm_device([script.sample_ns], script.clock_mhz)
    assert found.is_steady
    assert BUSY_S <= found.busy_s <= BUSY_S + 2 * WINDOW_S
    assert found.busy_s == pytest.approx(script.runs * script.run_ns / 1e9)


def test_a_clock_that_rises_is_waited_for() -> None:
    """Two readings agree on the way up now and then; three in a row do not."""
    script = Script(_clock(lambda number: min(300 + 60 * (number - number % 2), 1980)))
    found = warm_device([script.sample_ns], script.clock_mhz)
    assert found.is_steady
    assert set(found.clocks_mhz[-3:]) == {1980}
    assert 29 * WINDOW_S < found.busy_s < CAP_S


def test_a_clock_that_never_settles_ends_at_the_cap() -> None:
    script = Script(_clock(lambda number: 1200 + 600 * (number % 2)))
    found = warm_device([script.sample_ns], script.clock_mhz)
    assert not found.is_steady
    assert CAP_S <= found.busy_s <= CAP_S + 2 * WINDOW_S


@pytest.mark.parametrize("run_ns", [2_000, 4e9])
def test_short_and_long_runs_are_both_bounded(run_ns: float) -> None:
    script = Script(_clock(lambda _: 1980), run_ns)
    found = warm_device([script.sample_ns], script.clock_mhz)
    assert found.busy_s <= max(CAP_S, 2 * run_ns / 1e9)


def test_all_that_is_going_to_be_timed_takes_turns() -> None:
    first, second = (Script(_clock(lambda _: 1980)) for _ in range(2))
    warm_device([first.sample_ns, second.sample_ns], first.clock_mhz)
    assert first.runs > 0
    assert second.runs > 0
