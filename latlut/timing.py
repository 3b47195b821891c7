"""Warm up until steady, then sample until the statistic is known well enough or time is up.

Several ops are timed side by side, in short bursts that take turns. On a shared machine the
speed flips between levels for tens to hundreds of milliseconds (a neighbour on the same core,
the clock): samples of one op taken in one go fall into one such level, the same number of samples
spread over a few seconds see them all.

``sample_ns`` is anything that runs n times and gives n durations: an engine's session, or a
script in a test. Time is read only from the durations themselves, so a scripted engine needs no
clock.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from latlut.errors import SpecError
from latlut.stats import Interval, check_statistic, statistic_interval

SampleNs = Callable[[int], np.ndarray]


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
class Sampling:
    """One op's samples in one pass.

    ``samples_ns`` (n,) int64 nanoseconds in order; ``interval_ms`` the statistic with its
    within-pass 95% interval; ``is_steady`` whether warm-up settled before its cap.
    """

    samples_ns: np.ndarray
    interval_ms: Interval
    warmup_runs: int
    warmup_s: float
    timing_s: float
    is_steady: bool


def warm_up(sample_ns: SampleNs, settings: TimingSettings) -> tuple[int, float, bool, float]:
    """Run until two consecutive windows agree or the cap is reached.

    Returns:
        Runs made, seconds they took, whether they settled, seconds of one run at the end.
    """
    first = sample_ns(1)
    runs, spent_ns = 1, float(first.sum())
    run_ns = max(1.0, spent_ns)
    previous = None
    while True:
        # Sized anew each time: the first run allocates and is much slower than the rest.
        size = int(np.clip(settings.window_s * 1e9 / run_ns, 2, settings.max_samples))
        window = sample_ns(size)
        runs += size
        spent_ns += float(window.sum())
        run_ns = max(1.0, float(np.median(window)))
        # Windows are compared by a low quantile: an interruption in one of them is not warm-up.
        level = float(np.quantile(window, 0.1))
        if previous is not None and abs(level - previous) <= settings.steady * min(level, previous):
            return runs, spent_ns / 1e9, True, run_ns / 1e9
        if spent_ns >= settings.warmup_cap_s * 1e9:
            return runs, spent_ns / 1e9, False, run_ns / 1e9
        previous = level


@dataclass
class _Turns:
    """One op's turns so far."""

    sample_ns: SampleNs
    settings: TimingSettings
    warmup_runs: int
    warmup_s: float
    is_steady: bool
    run_s: float
    chunks: list[np.ndarray] = field(default_factory=list)
    count: int = 0
    spent_s: float = 0.0

    def take(self) -> None:
        """One run to fill the caches, then one burst."""
        settings = self.settings
        self.sample_ns(1)
        self.warmup_runs += 1
        self.warmup_s += self.run_s
        wanted = int(np.clip(settings.burst_s / self.run_s, 2, settings.max_samples - self.count))
        if self.spent_s >= settings.time_cap_s:  # slow ops: no more than what is still needed
            wanted = max(1, min(wanted, settings.min_samples - self.count))
        chunk = np.asarray(self.sample_ns(wanted), dtype=np.int64)
        self.chunks.append(chunk)
        self.count += wanted
        self.spent_s += float(chunk.sum()) / 1e9

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
        samples = np.concatenate(self.chunks)
        interval_ms = statistic_interval(samples / 1e6, self.settings.statistic)
        return Sampling(
            samples, interval_ms, self.warmup_runs, self.warmup_s, self.spent_s, self.is_steady
        )


def measure_side_by_side(
    samplers: Sequence[SampleNs],
    settings: TimingSettings,
    companions: Sequence[SampleNs] = (),
    companion_burst_s: float = 0.003,
) -> tuple[list[Sampling], list[np.ndarray]]:
    """Warm up every op, then sample them in turns until each one's statistic is known.

    Few samples mean a wide interval: where ``time_cap_s`` ends sampling early the interval says
    so, a bound that the samples cannot give is NaN.

    Args:
        samplers: one per op, ready to run.
        settings: when an op is known well enough.
        companions: warm already; run a short burst in every round as long as any op is sampled.
        companion_burst_s: how long, seconds.

    Returns:
        One sampling per op; the companions' samples, (n,) int64 nanoseconds each.
    """
    with garbage_collection_paused():
        ops = [_Turns(sampler, settings, *_warm(sampler, settings)) for sampler in samplers]
        bursts = [
            max(2, int(companion_burst_s * 1e9 / max(1.0, float(np.median(sampler(3))))))
            for sampler in companions
        ]
        readings: list[list[np.ndarray]] = [[] for _ in companions]
        waiting = list(ops)
        while waiting:
            for turns in waiting:
                turns.take()
            for sampler, burst, reading in zip(companions, bursts, readings, strict=True):
                sampler(1)
                reading.append(sampler(burst))
            waiting = [turns for turns in waiting if not turns.is_done()]
    companion_samples = [np.concatenate(reading) if reading else np.empty(0, np.int64)
                         for reading in readings]  # fmt: skip
    return [turns.result() for turns in ops], companion_samples


def _warm(sampler: SampleNs, settings: TimingSettings) -> tuple[int, float, bool, float]:
    runs, spent_s, is_steady, run_s = warm_up(sampler, settings)
    return runs, spent_s, is_steady, max(run_s, 1e-9)


def measure(sample_ns: SampleNs, settings: TimingSettings) -> Sampling:
    """Warm up and sample one op by itself; see ``measure_side_by_side``."""
    (sampling,), _ = measure_side_by_side([sample_ns], settings)
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
