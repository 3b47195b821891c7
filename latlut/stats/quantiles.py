"""Statistics of latency samples: quantiles with distribution-free intervals.

Latency on a shared machine has a sharp floor and a long upper tail. The intervals assume nothing
of its distribution.

Symbols: n samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from latlut.errors import SpecError

#: Statistic name -> quantile. ``min`` is the sample minimum.
STATISTICS = {"min": 0.0, "p10": 0.10, "p25": 0.25, "median": 0.5}
CONFIDENCE = 0.95


def check_statistic(name: str) -> str:
    """``name`` if it is a statistic, SpecError otherwise."""
    if name not in STATISTICS:
        raise SpecError(f"unknown statistic {name!r}; known: {', '.join(STATISTICS)}")
    return name


@dataclass(frozen=True)
class Interval:
    """A point estimate with a two-sided 95% interval, in the unit of the samples.

    ``low`` or ``high`` is NaN where there are too few samples to bound that side.
    """

    value: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """Larger distance from the value to a bound, in the samples' unit; NaN if unbounded."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return math.nan
        return max(self.high - self.value, self.value - self.low)

    @property
    def half_width(self) -> float:
        """``margin`` relative to the value, which must not be 0."""
        return self.margin / self.value


def student_95(dof: float | np.ndarray) -> np.ndarray:
    """Half-width of Student's 95% interval in standard deviations, for each of the degrees."""
    from scipy.stats import t as student

    found: np.ndarray = student.ppf((1 + CONFIDENCE) / 2, dof)
    return found


@lru_cache(maxsize=4096)
def _quantile_ranks(n: int, q: float) -> tuple[int, int]:
    """1-based ranks (r, s) with P(X_(r) <= Q_q <= X_(s)) >= 95%; 0 or n+1 if impossible.

    Equal tails: the number of samples below Q_q is Binomial(n, q), so
    r = max{r : P(B < r) <= tail} and s = min{s : P(B >= s) <= tail}.
    """
    tail = (1 - CONFIDENCE) / 2
    if q == 0:
        return 0, 1
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    log_p = log_factorials[n] - log_factorials - log_factorials[::-1]
    p = np.exp(log_p + k * math.log(q) + (n - k) * math.log1p(-q))
    at_most = np.cumsum(p)  # P(B <= k)
    at_least = np.cumsum(p[::-1])[::-1]  # P(B >= k)
    r = int(np.searchsorted(at_most, tail, side="right"))
    s = n + 1 - int(np.searchsorted(at_least[::-1], tail, side="right"))
    return r, s


def quantile_interval(samples: np.ndarray, q: float) -> Interval:
    """A quantile with its distribution-free 95% interval from order statistics.

    For 0 < q < 1 the bounds are order statistics whose ranks come from the binomial distribution
    of the number of samples below the true quantile (David & Nagaraja, Order Statistics, 7.1).
    For q = 0, the floor of the distribution, the upper bound is the minimum and the lower one
    x1 - (x2 - x1) * c / (1 - c) (Robson & Whitlock, Biometrika 1964).

    Args:
        samples: (n,) any unit.
        q: 0 <= q < 1.

    Returns:
        The interval, in the unit of ``samples``; a bound is NaN where n is too small for it.

    Raises:
        SpecError: no samples, or q out of range.
    """
    if not 0 <= q < 1:
        raise SpecError(f"a quantile is at least 0 and below 1, received {q}")
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        raise SpecError("no samples")
    if q == 0:
        floor = float(ordered[0])
        if n < 2:
            return Interval(floor, math.nan, floor)
        gap = float(ordered[1]) - floor
        return Interval(floor, max(0.0, floor - gap * CONFIDENCE / (1 - CONFIDENCE)), floor)
    value = float(np.quantile(ordered, q, method="median_unbiased"))
    r, s = _quantile_ranks(n, q)
    low = float(ordered[r - 1]) if r >= 1 else math.nan
    high = float(ordered[s - 1]) if s <= n else math.nan
    return Interval(value, low, high)


def statistic_value(samples: np.ndarray, statistic: str) -> float:
    """The named statistic of the samples without an interval, in their unit."""
    return float(
        np.quantile(samples, STATISTICS[check_statistic(statistic)], method="median_unbiased")
    )


def statistic_interval(samples: np.ndarray, statistic: str) -> Interval:
    """The named statistic of the samples with its 95% interval; see ``quantile_interval``."""
    return quantile_interval(samples, STATISTICS[check_statistic(statistic)])
