"""What timing gives and a table stores: one op's samples of one pass, or those of a pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latlut.stats.quantiles import Interval


@dataclass(frozen=True)
class Sampling:
    """One op's samples in one pass."""

    samples_ns: np.ndarray
    """(n,) int64 nanoseconds, in order."""
    interval_ms: Interval
    """The statistic with its within-pass 95% interval."""
    warmup_runs: int
    """Runs that were not counted."""
    warmup_s: float
    timing_s: float
    """``warmup_s``, ``timing_s``: seconds of run time."""
    is_steady: bool
    """Whether warm-up settled before its cap."""


@dataclass(frozen=True)
class PairedSampling(Sampling):
    """A pair's samples in one pass: of a graph with an operator and of that without it.

    ``interval_ms`` is the difference's, which may be negative; ``samples_ns`` are those with the
    operator; warm-up and timing are those of both.
    """

    without_ns: np.ndarray
    """(n,) int64 nanoseconds without the operator."""
    turn_sizes: tuple[int, ...]
    """How many samples of each were taken in each turn, n in all."""
    with_ms: float
    without_ms: float
    """``with_ms``, ``without_ms``: the two latencies, whose difference is the reading."""
