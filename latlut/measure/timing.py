"""Warm up until steady, then sample until the statistic is known well enough or time is up.

Several ops are timed side by side, in short bursts that take turns. On a shared machine the
speed flips between levels for tens to hundreds of milliseconds (a neighbour on the same core,
the clock): samples of one op taken in one go fall into one such level, the same number of samples
spread over a few seconds see them all.

An operator in context is a pair of graphs, with it and without it, that are timed in the same
turns: what is asked for is their difference (``stats.differences``).

``sample_ns`` is anything that runs n times and gives n durations: an engine's session, or a
script in a test. Time is read only from the durations themselves, so a scripted engine needs no
clock. Where a run is short beside the step of the engine's clock, several runs share a reading.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from latlut.engines.resolution import EXACT, Resolution
from latlut.errors import SpecError
from latlut.stats.differences import paired_reading
from latlut.stats.quantiles import Interval, check_statistic, statistic_interval
from latlut.stats.sampling import PairedSampling, Sampling

#: ``sample_ns(n)`` gives n durations of a run, ``sample_ns(n, r)`` n means over r runs in a row.
SampleNs = Callable[..., np.ndarray]


@dataclass(frozen=True)
class TimingSettings:
    """How one op is timed within one pass. Times are seconds of run time, not of wall time.

    ``ci`` is the relative half-width of the statistic's interval that ends sampling early, not
    before ``min_time_s``; ``time_cap_s`` is not exceeded once ``min_samples`` runs are in, and
    ``max_samples`` never. A turn is one burst of ``burst_s`` after one run that is not counted,
    because the caches hold another op's data then. Warm-up ends when two consecutive windows of
    ``window_s`` agree within ``steady``.
    """

    statistic: str = "p10"
    ci: float = 0.01
    min_samples: int = 12
    max_samples: int = 1000
    min_time_s: float = 0.06
    time_cap_s: float = 0.12
    burst_s: float = 0.012
    window_s: float = 0.008
    warmup_cap_s: float = 0.08
    steady: float = 0.05

    def __post_init__(self) -> None:
        check_statistic(self.statistic)
        if not 0 < self.ci < 1:
            raise SpecError(f"--ci is a fraction between 0 and 1 (0.01 is 1%), received {self.ci}")
        if not 1 <= self.min_samples <= self.max_samples:
            raise SpecError("min_samples is at least 1 and at most max_samples")
        times = (self.min_time_s, self.time_cap_s, self.window_s, self.warmup_cap_s, self.burst_s)
        if min(times) < 0:
            raise SpecError("times are not negative")


@dataclass(frozen=True)
class Pair:
    """Samplers of the graph with an operator and of that without it."""

    with_operator: SampleNs
    without: SampleNs


class WarmUp(NamedTuple):
    """What warming up took, and what is known after it."""

    runs: int
    spent_s: float
    """``runs``, ``spent_s``: runs made, and seconds they took."""
    is_steady: bool
    """Whether two consecutive windows agreed."""
    run_s: float
    """Seconds of one run at the end."""
    runs_per_reading: int = 1
    """How many runs share a reading from here on."""


def warm_up(
    sample_ns: SampleNs, settings: TimingSettings, resolution: Resolution = EXACT
) -> WarmUp:
    """Run until two consecutive windows agree or the cap is reached.

    The median of the first window decides how many runs share a reading.
    """
    first = sample_ns(1)
    runs, spent_ns = 1, float(first.sum())
    run_ns = max(1.0, spent_ns)
    previous, shared = None, 0
    while True:
        # Sized anew each time: the first run allocates and is much slower than the rest.
        per_reading = shared or 1
        wanted = settings.window_s * 1e9 / (run_ns * per_reading)
        size = int(np.clip(wanted, 2, settings.max_samples))
        window = _read(sample_ns, size, per_reading)
        runs += size * per_reading
        spent_ns += float(window.sum()) * per_reading
        run_ns = max(1.0, float(np.median(window)))
        if not shared:
            shared = resolution.runs_per_reading(run_ns / 1e9)
        # Windows are compared by a low quantile: an interruption in one of them is not warm-up.
        level = float(np.quantile(window, 0.1))
        is_same = previous is not None and (
            abs(level - previous) <= settings.steady * min(level, previous)
        )
        if is_same or spent_ns >= settings.warmup_cap_s * 1e9:
            return WarmUp(runs, spent_ns / 1e9, is_same, run_ns / 1e9, shared)
        previous = level


def _read(sample_ns: SampleNs, count: int, runs: int) -> np.ndarray:
    """``count`` readings, each of ``runs`` runs."""
    samples = sample_ns(count) if runs == 1 else sample_ns(count, runs)
    return np.asarray(samples, dtype=np.int64)


def _widened(interval: Interval, error_s: float) -> Interval:
    """The interval in milliseconds, with what the clock may be off by."""
    ms = 1e3 * error_s
    return Interval(interval.value, interval.low - ms, interval.high + ms)


@dataclass
class _Turns:
    """One op's turns so far."""

    sample_ns: SampleNs
    settings: TimingSettings
    warm: WarmUp
    error_s: float
    turns: int = 0
    chunks: list[np.ndarray] = field(default_factory=list)
    count: int = 0
    spent_s: float = 0.0

    def take(self) -> None:
        """One run to fill the caches, then one burst."""
        settings, per_reading = self.settings, self.warm.runs_per_reading
        self.sample_ns(1)
        self.turns += 1
        reading_s = self.warm.run_s * per_reading
        wanted = int(np.clip(settings.burst_s / reading_s, 2, settings.max_samples - self.count))
        if self.spent_s >= settings.time_cap_s:  # slow ops: no more than what is still needed
            wanted = max(1, min(wanted, settings.min_samples - self.count))
        chunk = _read(self.sample_ns, wanted, per_reading)
        self.chunks.append(chunk)
        self.count += wanted
        self.spent_s += float(chunk.sum()) * per_reading / 1e9

    def is_done(self) -> bool:
        settings = self.settings
        if self.count < settings.min_samples:
            return False
        if self.count >= settings.max_samples - 1 or self.spent_s >= settings.time_cap_s:
            return True
        if self.spent_s < settings.min_time_s:
            return False
        found = statistic_interval(np.concatenate(self.chunks), settings.statistic)
        return found.half_width <= settings.ci  # False where the interval is unbounded

    def result(self) -> Sampling:
        samples, warm = np.concatenate(self.chunks), self.warm
        interval_ms = statistic_interval(samples / 1e6, self.settings.statistic)
        return Sampling(
            samples,
            _widened(interval_ms, self.error_s),
            warm.runs + self.turns,
            warm.spent_s + self.turns * warm.run_s,
            self.spent_s,
            warm.is_steady,
        )


#: A median over turns has a 95% interval from this many turns on.
MIN_TURNS = 6
#: At most this share of a pair's samples in one turn.
TURN_SHARE = 0.1


@dataclass
class _PairedTurns:
    """One pair's turns so far: in each, as many samples with the operator as without it."""

    pair: Pair
    settings: TimingSettings
    warm_with: WarmUp
    warm_without: WarmUp
    error_s: float
    chunks: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    count: int = 0
    spent_s: float = 0.0

    def take(self) -> None:
        """A burst of each, half as long as an op's alone; they take turns in being the first."""
        settings = self.settings
        most = max(
            2, min(int(TURN_SHARE * settings.max_samples), settings.max_samples - self.count)
        )
        reading_s = self.warm_with.run_s * self.warm_with.runs_per_reading
        wanted = int(np.clip(settings.burst_s / 2 / reading_s, 2, most))
        if self.spent_s >= settings.time_cap_s:  # slow ops: no more than what is still needed
            wanted = max(1, min(wanted, settings.min_samples - self.count))
        is_with_first = len(self.chunks) % 2 == 0
        both = [
            (self.pair.with_operator, self.warm_with.runs_per_reading),
            (self.pair.without, self.warm_without.runs_per_reading),
        ]
        bursts = []
        for sampler, per_reading in both if is_with_first else both[::-1]:
            sampler(1)
            bursts.append(_read(sampler, wanted, per_reading))
        chunk = (bursts[0], bursts[1]) if is_with_first else (bursts[1], bursts[0])
        self.chunks.append(chunk)
        self.count += wanted
        self.spent_s += float(chunk[0].sum()) * self.warm_with.runs_per_reading / 1e9

    def is_done(self) -> bool:
        settings = self.settings
        if self.count < settings.min_samples or len(self.chunks) < MIN_TURNS:
            return False
        if self.count >= settings.max_samples - 1 or self.spent_s >= settings.time_cap_s:
            return True
        if self.spent_s < settings.min_time_s:
            return False
        found = paired_reading(*self._samples(), settings.statistic)
        return found.difference_ms.margin <= settings.ci * found.with_ms.value

    def result(self) -> PairedSampling:
        with_ns, without_ns, sizes = self._samples()
        found = paired_reading(with_ns, without_ns, sizes, self.settings.statistic)
        extra_runs = len(sizes)
        return PairedSampling(
            with_ns,
            _widened(found.difference_ms, 2 * self.error_s),
            self.warm_with.runs + self.warm_without.runs + 2 * extra_runs,
            self.warm_with.spent_s
            + self.warm_without.spent_s
            + extra_runs * (self.warm_with.run_s + self.warm_without.run_s),
            self.spent_s + float(without_ns.sum()) * self.warm_without.runs_per_reading / 1e9,
            self.warm_with.is_steady and self.warm_without.is_steady,
            without_ns,
            sizes,
            found.with_ms.value,
            found.without_ms,
        )

    def _samples(self) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
        with_ns, without_ns = (np.concatenate(part) for part in zip(*self.chunks, strict=True))
        return with_ns, without_ns, tuple(len(chunk) for chunk, _ in self.chunks)


def measure_side_by_side(
    samplers: Sequence[SampleNs | Pair],
    settings: TimingSettings,
    companions: Sequence[SampleNs] = (),
    companion_burst_s: float = 0.003,
    resolution: Resolution = EXACT,
) -> tuple[list[Sampling], list[np.ndarray]]:
    """Warm up every op, then sample them in turns until each one's statistic is known.

    Few samples mean a wide interval: where ``time_cap_s`` ends sampling early the interval says
    so, a bound that the samples cannot give is NaN.

    Args:
        samplers: one per op, ready to run; a pair where the op is the difference of two graphs.
        settings: when an op is known well enough; of a pair the times are those with the op, and
            ``ci`` is relative to the latency with it.
        companions: warm already; run a short burst in every round as long as any op is sampled.
        companion_burst_s: how long, seconds.
        resolution: of the samplers' clock.

    Returns:
        One sampling per op, a ``PairedSampling`` of a pair; the companions' samples, (n,) int64
        nanoseconds each.
    """
    with garbage_collection_paused():
        ops = [_turns_of(sampler, settings, resolution) for sampler in samplers]
        bursts = [_burst(sampler, companion_burst_s, resolution) for sampler in companions]
        readings: list[list[np.ndarray]] = [[] for _ in companions]
        waiting = list(ops)
        while waiting:
            for turns in waiting:
                turns.take()
            for sampler, burst, reading in zip(companions, bursts, readings, strict=True):
                sampler(1)
                reading.append(_read(sampler, *burst))
            waiting = [turns for turns in waiting if not turns.is_done()]
    companion_samples = [np.concatenate(reading) if reading else np.empty(0, np.int64)
                         for reading in readings]  # fmt: skip
    return [turns.result() for turns in ops], companion_samples


def _burst(sampler: SampleNs, burst_s: float, resolution: Resolution) -> tuple[int, int]:
    """Readings of a companion in a burst, and the runs that share one."""
    run_s = max(1.0, float(np.median(sampler(3)))) / 1e9
    runs = resolution.runs_per_reading(run_s)
    return max(2, int(burst_s / (run_s * runs))), runs


def _turns_of(
    sampler: SampleNs | Pair, settings: TimingSettings, resolution: Resolution
) -> _Turns | _PairedTurns:
    """The op or pair, warmed up."""
    if isinstance(sampler, Pair):
        warm_with = _warm(sampler.with_operator, settings, resolution)
        warm_without = _warm(sampler.without, settings, resolution)
        return _PairedTurns(sampler, settings, warm_with, warm_without, resolution.error_s)
    warm = _warm(sampler, settings, resolution)
    return _Turns(sampler, settings, warm, resolution.error_s)


def _warm(sampler: SampleNs, settings: TimingSettings, resolution: Resolution) -> WarmUp:
    found = warm_up(sampler, settings, resolution)
    return found._replace(run_s=max(found.run_s, 1e-9))


def measure(
    sample_ns: SampleNs, settings: TimingSettings, resolution: Resolution = EXACT
) -> Sampling:
    """Warm up and sample one op by itself; see ``measure_side_by_side``."""
    (sampling,), _ = measure_side_by_side([sample_ns], settings, resolution=resolution)
    return sampling


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """No Python garbage collection inside the block."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
