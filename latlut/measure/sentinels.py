"""Sentinels: a few op specs that are timed throughout a sweep, to know the machine's speed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import numpy as np

from latlut.errors import DeviceLostError, EngineError
from latlut.measure.groups import GroupTimer
from latlut.measure.timing import SampleNs, TimingSettings, warm_up
from latlut.opspec import OpSpec
from latlut.stats.quantiles import statistic_interval

#: A sentinel this much slower than usual means that the machine was doing something else.
GROSSLY_SLOW = 1.15


def choose_sentinels(specs: Sequence[OpSpec], count: int) -> tuple[OpSpec, ...]:
    """Op specs spread over the plan's amount of work; the same for the same plan.

    Neither the smallest nor the largest: between the 30th and the 80th percentile of input and
    output elements times input channels.
    """
    if not specs or count < 1:
        return ()

    def work(spec: OpSpec) -> tuple[int, str]:
        out_channels, height, width = spec.output
        return spec.in_channels * out_channels * height * width, spec.key

    ordered = sorted(specs, key=work)
    shares = np.linspace(0.3, 0.8, count) if count > 1 else np.array([0.5])
    return tuple(dict.fromkeys(ordered[int(share * (len(ordered) - 1))] for share in shares))


def open_sentinels(
    timer: GroupTimer, specs: Iterable[OpSpec], timing: TimingSettings, stack: ExitStack
) -> list[tuple[OpSpec, SampleNs]]:
    """Each op spec that the engine takes with what times it, warmed up; sessions go to ``stack``.

    Raises:
        DeviceLostError: the device has gone.
    """
    opened: list[tuple[OpSpec, SampleNs]] = []
    attempts = timer.attempts
    stack.callback(attempts.turn_to, None)
    for spec in specs:
        attempts.turn_to(spec.key)
        try:
            # Always the first build: what is compared over the whole sweep must not change.
            opening = timer.opening(timer.workload_of(spec))
            session = stack.enter_context(opening.open(is_checked=False))
            warm_up(session.sample_ns, timing, timer.engine.resolution)
        except DeviceLostError:
            raise
        except EngineError:  # it fails as an entry, too, and is reported there
            continue
        stack.callback(attempts.turn_to, spec.key)  # closing is work on it, too
        opened.append((spec, attempts.told(spec.key, session.sample_ns)))
    attempts.turn_to(None)
    return opened


class Sentinels:
    """The sentinels of one pass, and what they read beside each group.

    Args:
        opened: each op spec with what times it, warmed up.
        statistic: what a reading is of its samples.

    ``groups`` counts the groups so far, also those that nothing was read beside.
    """

    def __init__(self, opened: Sequence[tuple[OpSpec, SampleNs]], statistic: str) -> None:
        self.specs = [spec for spec, _ in opened]
        self.samplers = [sampler for _, sampler in opened]
        self.statistic = statistic
        self.groups = 0
        self._rounds: list[list[float]] = []
        self._new: list[tuple[OpSpec, int, float]] = []

    def add(self, readings: Sequence[np.ndarray]) -> bool:
        """Note what they read beside a group; True if the machine was grossly slow.

        Args:
            readings: (n,) int64 nanoseconds per sentinel; empty where nothing was timed.
        """
        group, self.groups = self.groups, self.groups + 1
        if not readings:
            return False
        values = [statistic_interval(item / 1e6, self.statistic).value for item in readings]
        self._new += [(spec, group, ms) for spec, ms in zip(self.specs, values, strict=True)]
        self._rounds.append(values)
        if len(self._rounds) < 3:
            return False
        usual = np.median(np.array(self._rounds), axis=0)
        return float(np.median(np.array(values) / usual)) > GROSSLY_SLOW

    def take_new(self) -> list[tuple[OpSpec, int, float]]:
        """Readings not taken yet: (op spec, group index, milliseconds)."""
        new, self._new = self._new, []
        return new
