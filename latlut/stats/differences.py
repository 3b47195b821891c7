"""Differences of two latencies, WITH an operator and WITHOUT it: one per pass, and over passes.

A difference has no logarithm: it may be zero or negative. What it does have is a scale, the two
latencies that it was taken of, and errors are relative to that.

Within a pass the two graphs take turns, so that a slow spell falls on both. What a slow spell does
to both alike cancels in their ratio, not in their difference: the ratio is taken turn by turn, its
median over the turns stays where most turns are, and the difference is the rest of WITH:

    difference = W (1 - r),    W statistic of WITH's samples,    r median over turns of
                               (statistic of WITHOUT's samples / statistic of WITH's)

Symbols: E entries, P passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from latlut.stats.combining import CombinedReadings, combine_values
from latlut.stats.passes import log_readings_at_usual_speed, row_medians
from latlut.stats.quantiles import (
    Interval,
    quantile_interval,
    statistic_interval,
    statistic_value,
)


@dataclass(frozen=True)
class PairedReading:
    """One pass's difference in milliseconds with its 95% interval, and the two latencies.

    ``difference_ms`` is ``with_ms.value - without_ms``; its bounds are NaN where there are too
    few samples or turns for them.
    """

    difference_ms: Interval
    with_ms: Interval
    without_ms: float


def paired_reading(
    with_ns: np.ndarray, without_ns: np.ndarray, turn_sizes: Sequence[int], statistic: str
) -> PairedReading:
    """The difference of two graphs that took turns.

    Args:
        with_ns: (n,) nanoseconds of the graph with the operator, in order.
        without_ns: (n,) nanoseconds of the graph without it, in order; in each turn as many.
        turn_sizes: samples per turn, n in all.
        statistic: what a reading is of its samples.

    Interval: W's order-statistic interval and that of the median of the turns' ratios, as
    independent errors of the product W (1 - r):
        half-width^2 = ((1 - r) margin of W)^2 + (W margin of r)^2.
    """
    ends = np.cumsum(turn_sizes)[:-1]
    ratios = [
        statistic_value(beside, statistic) / statistic_value(turn, statistic)
        for turn, beside in zip(np.split(with_ns, ends), np.split(without_ns, ends), strict=True)
    ]
    with_ms = statistic_interval(with_ns / 1e6, statistic)
    ratio = quantile_interval(np.array(ratios), 0.5)
    value = with_ms.value * (1 - ratio.value)
    half = math.hypot((1 - ratio.value) * with_ms.margin, with_ms.value * ratio.margin)
    return PairedReading(
        Interval(value, value - half, value + half), with_ms, with_ms.value * ratio.value
    )


def combine_differences(
    differences_ms: np.ndarray,
    with_ms: np.ndarray,
    without_ms: np.ndarray,
    builds: np.ndarray,
    speeds: np.ndarray | None = None,
    devices: np.ndarray | None = None,
) -> CombinedReadings:
    """One difference per entry from its differences in several passes, with their spread.

    Both latencies of a pass were taken at the same speed of the machine; they are brought to the
    usual one by what that does to WITH (``log_readings_at_usual_speed``), and the difference with
    them. Errors come from the two graphs and are relative to them, so what is combined over passes
    and builds is the difference as a share of its entry's scale:

        f_ep = speed_ep ^ -b
        scale_e = sqrt((median_p f with)^2 + (median_p f without)^2)
        x_ep = f_ep difference_ep / scale_e

    by ``stats.combining.combine_values``: variances of x are shrunk towards what all entries have,
    which makes sense for shares as it does for logarithms.

    Args:
        differences_ms: (E, P) NaN where an entry was not measured in a pass.
        with_ms: (E, P) latency with the operator, positive.
        without_ms: (E, P) latency without it; 0 where there is no such graph.
        builds: (E, P) int, number of the build that was measured.
        speeds: (E, P) how slow the machine was beside each reading, 1 is usual; NaN if unknown.
        devices: (E, P) int, number of the device that was measured on; one if not given.

    Returns:
        ``value`` and the half-widths in milliseconds; standard deviations relative to the scale.

    Raises:
        SpecError: a latency with the operator is not positive.
    """
    logs, elasticity = log_readings_at_usual_speed(with_ms, speeds)
    to_usual = np.exp(logs) / with_ms
    scale_ms = np.hypot(row_medians(with_ms * to_usual), row_medians(without_ms * to_usual))
    shares = differences_ms * to_usual / scale_ms[:, None]
    found = combine_values(shares, builds, devices)
    return replace(
        found,
        value=found.value * scale_ms,
        half_width=found.half_width * scale_ms,
        build_half_width=found.build_half_width * scale_ms,
        device_half_width=found.device_half_width * scale_ms,
        elasticity=elasticity,
    )
