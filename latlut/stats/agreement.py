"""How well estimated latencies predict measured ones, judged against the measurements' own noise.

Every network is measured in two passes far apart in time; the measured latency is their mean.
Correlation alone flatters an estimate (a wide range of latencies inflates it), so relative
errors stand beside it, and both stand beside what a perfect estimate could have reached:

    ceiling_r   = sqrt(2 r12 / (1 + r12))              r12: Pearson r between the two passes
    noise floor = mean(|first - second| / measured) / 2

The first is the Spearman-Brown formula: the square root of the reliability of the mean of two
passes is its correlation with the truth. The second holds because half the difference of two
passes has the same distribution as the error of their mean, if the passes are independent.

Symbols: N networks, B bootstrap resamples. A percent error is relative to the measured latency.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from latlut.errors import SpecError
from latlut.stats.quantiles import CONFIDENCE, student_95

Floats: TypeAlias = npt.NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]

MIN_NETWORKS = 3
#: Below this the bootstrap has too few networks to draw from, and a note says so.
FEW_NETWORKS = 20
_CHUNK_ELEMENTS = 1 << 20
_NAN_INTERVAL: Interval = (math.nan, math.nan)


@dataclass(frozen=True)
class Agreement:
    """Estimated against measured latency of N networks; undefined numbers are NaN, with a note."""

    n: int
    """Number of networks."""
    r: float
    """Pearson correlation of estimate and measurement."""
    r2: float
    """1 - SS_res / SS_tot of the estimate itself, that is of the line y = x. It falls with bias and
    may be negative, unlike ``r2_of_line``."""
    r2_of_line: float
    """R squared, the share of variance that the best line through the points explains."""
    spearman: float
    kendall: float
    """``spearman``, ``kendall``: rank correlations, Kendall's is tau-b."""
    mape_percent: float
    rmspe_percent: float
    """``mape_percent``, ``rmspe_percent``: mean absolute and root mean square percent error."""
    bias_percent: float
    """Mean signed percent error, positive where the estimate is too high."""
    within_5: float
    within_10: float
    """``within_5``, ``within_10``: share of networks, 0 to 1, whose percent error is at most 5, 10.
    """
    slope: float
    intercept_ms: float
    """``slope``, ``intercept_ms``: least squares line measured = slope * estimated + intercept."""
    r12: float
    """Pearson correlation between the two measuring passes."""
    ceiling_r: float
    """The ``r`` that a perfect estimate would reach on these measurements."""
    noise_floor_mape_percent: float
    """The ``mape_percent`` that a perfect estimate would reach."""
    median_ratio: float
    """Median of estimated / measured."""
    measured_p10_ms: float
    measured_p90_ms: float
    """``measured_p10_ms``, ``measured_p90_ms``: 10th and 90th percentile of the measured latencies.
    """
    intervals: Mapping[str, Interval] = field(hash=False)
    """95% interval (low, high) by field name. Percentile bootstrap over networks for r, r2,
    spearman, mape_percent, rmspe_percent and bias_percent; Wilson's for within_5 and within_10;
    Student's t for slope and intercept_ms."""
    resamples: int
    seed: int
    """``resamples``, ``seed``: of the bootstrap."""
    notes: tuple[str, ...]
    """Why a number is NaN or should be read with care."""

    def to_dict(self) -> dict[str, object]:
        """All fields as plain values that JSON can hold: NaN becomes None, tuples lists."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}


def agreement(
    estimated_ms: npt.ArrayLike,
    measured_first_ms: npt.ArrayLike,
    measured_second_ms: npt.ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> Agreement:
    """How well the estimates predict the mean of the two measuring passes.

    Args:
        estimated_ms: (N,) float, estimated latency of each network, milliseconds.
        measured_first_ms: (N,) float, its latency in the first pass, milliseconds.
        measured_second_ms: (N,) float, its latency in the second pass, milliseconds.
        seed: of the bootstrap; the same seed gives the same intervals.
        resamples: B, bootstrap resamples of the N networks.

    Returns:
        The numbers with their intervals. Where all estimates or all measurements are equal,
        what needs a spread is NaN and ``notes`` says why.

    Raises:
        SpecError: the lengths differ, N is below 3, a latency is not finite or not positive,
            or ``resamples`` is not positive.

    Source: FasterSeg, Fig. 3, which reports r alone. Ceiling: Spearman (1910), Brown (1910).
    """
    from scipy import stats

    estimated = checked_latencies_ms("estimated_ms", estimated_ms)
    first = checked_latencies_ms("measured_first_ms", measured_first_ms)
    second = checked_latencies_ms("measured_second_ms", measured_second_ms)
    n = len(estimated)
    if not n == len(first) == len(second):
        raise SpecError(
            "one estimate and two measurements per network are needed, received "
            f"{n} estimates, {len(first)} first and {len(second)} second measurements"
        )
    if n < MIN_NETWORKS:
        raise SpecError(f"agreement needs {MIN_NETWORKS} networks or more, received {n}")
    if resamples < 1:
        raise SpecError(f"resamples must be 1 or more, received {resamples}")

    measured = (first + second) / 2
    error = estimated / measured - 1
    point = {name: float(v[0]) for name, v in _statistics(estimated[None], measured[None]).items()}
    r12 = float(_pearson(first[None], second[None])[0])
    ceiling_r = math.sqrt(2 * r12 / (1 + r12)) if r12 > 0 else math.nan
    within = {name: np.abs(error) <= limit for name, limit in _WITHIN.items()}
    slope, intercept_ms, line_intervals = _line(estimated, measured)
    has_ranks = not (_is_constant(estimated[None])[0] or _is_constant(measured[None])[0])
    kendall = float(stats.kendalltau(estimated, measured).statistic) if has_ranks else math.nan
    intervals = _bootstrap(estimated, measured, seed=seed, resamples=resamples)
    intervals |= {name: _share_interval(hits) for name, hits in within.items()} | line_intervals
    p10, p90 = np.percentile(measured, (10, 90))
    return Agreement(
        n=n,
        **point,
        r2_of_line=point["r"] ** 2,
        kendall=kendall,
        **{name: float(hits.mean()) for name, hits in within.items()},
        slope=slope,
        intercept_ms=intercept_ms,
        r12=r12,
        ceiling_r=ceiling_r,
        noise_floor_mape_percent=float(np.mean(np.abs(first - second) / measured)) * 50,
        median_ratio=float(np.median(estimated / measured)),
        measured_p10_ms=float(p10),
        measured_p90_ms=float(p90),
        intervals=intervals,
        resamples=resamples,
        seed=seed,
        notes=_notes(estimated, measured, r12),
    )


def checked_latencies_ms(name: str, values: npt.ArrayLike) -> Floats:
    """Latencies as an array, milliseconds.

    Args:
        name: of the values, for messages.
        values: (N,) numbers, milliseconds.

    Returns:
        (N,) float64, finite and positive.

    Raises:
        SpecError: what is no number, another shape, or a latency that is not finite and positive.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{name}: expected numbers (milliseconds), received {error}") from error
    if array.ndim != 1:
        raise SpecError(f"{name}: expected shape (N,), received {array.shape}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
    if bad.size:
        raise SpecError(
            f"{name}: a latency is finite and positive, received {array[bad[0]]} "
            f"at position {bad[0]} ({bad.size} of {array.size} are not)"
        )
    return array


#: A rounding error in a ratio that is exactly 5% or 10% must not decide.
_WITHIN = {"within_5": 0.05 + 1e-12, "within_10": 0.10 + 1e-12}


def finite_or_none(value: float) -> float | None:
    """A number as JSON can hold it: None where it is NaN or infinite."""
    return float(value) if math.isfinite(value) else None


def _plain(value: object) -> object:
    if isinstance(value, float):
        return finite_or_none(value)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def _is_constant(values: Floats) -> npt.NDArray[np.bool_]:
    """(*,) bool: whether the last axis holds one value, up to rounding."""
    low, high = values.min(axis=-1), values.max(axis=-1)
    constant: npt.NDArray[np.bool_] = high - low <= 1e-12 * np.abs(high)
    return constant


def _pearson(x: Floats, y: Floats) -> Floats:
    """(B,) correlation of (B, N) and (B, N) along the last axis, NaN where one is constant."""
    dx = x - x.mean(axis=-1, keepdims=True)
    dy = y - y.mean(axis=-1, keepdims=True)
    scale = np.sqrt((dx * dx).sum(axis=-1)) * np.sqrt((dy * dy).sum(axis=-1))
    defined = ~(_is_constant(x) | _is_constant(y)) & (scale > 0)
    r = (dx * dy).sum(axis=-1) / np.where(defined, scale, 1.0)
    return np.where(defined, np.clip(r, -1.0, 1.0), np.nan)


def _statistics(estimated: Floats, measured: Floats) -> dict[str, Floats]:
    """Every bootstrapped statistic of (B, N) estimates and measurements, each (B,)."""
    from scipy.stats import rankdata

    error = estimated / measured - 1  # (B, N)
    deviation = measured - measured.mean(axis=-1, keepdims=True)
    residual = measured - estimated
    defined = ~_is_constant(measured)
    total = np.where(defined, (deviation * deviation).sum(axis=-1), 1.0)
    ranks = rankdata(estimated, axis=-1), rankdata(measured, axis=-1)
    return {
        "r": _pearson(estimated, measured),
        "r2": np.where(defined, 1 - (residual * residual).sum(axis=-1) / total, np.nan),
        "spearman": _pearson(*ranks),
        "mape_percent": 100 * np.abs(error).mean(axis=-1),
        "rmspe_percent": 100 * np.sqrt((error * error).mean(axis=-1)),
        "bias_percent": 100 * error.mean(axis=-1),
    }


def _bootstrap(
    estimated: Floats, measured: Floats, *, seed: int, resamples: int
) -> dict[str, Interval]:
    """Percentile intervals over networks drawn with replacement, in chunks that fit in memory."""
    rng = np.random.default_rng(seed)
    n = len(estimated)
    chunk = max(1, _CHUNK_ELEMENTS // n)
    parts = []
    for start in range(0, resamples, chunk):
        drawn = rng.integers(0, n, size=(min(chunk, resamples - start), n))
        parts.append(_statistics(estimated[drawn], measured[drawn]))
    tail = (1 - CONFIDENCE) / 2
    intervals = {}
    for name in parts[0]:
        values = np.concatenate([part[name] for part in parts])
        values = values[np.isfinite(values)]
        if values.size == 0:
            intervals[name] = _NAN_INTERVAL
            continue
        low, high = np.quantile(values, (tail, 1 - tail))
        intervals[name] = (float(low), float(high))
    return intervals


def _share_interval(hits: npt.NDArray[np.bool_]) -> Interval:
    """Wilson's interval of a share. A bootstrap would claim certainty where all networks hit."""
    from scipy.stats import binomtest

    result = binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE, method="wilson")
    return float(result.low), float(result.high)


def _line(estimated: Floats, measured: Floats) -> tuple[float, float, dict[str, Interval]]:
    """Slope, intercept in ms, and their intervals, of measured on estimated."""
    from scipy import stats

    if _is_constant(estimated[None])[0]:
        return math.nan, math.nan, {"slope": _NAN_INTERVAL, "intercept_ms": _NAN_INTERVAL}
    fit = stats.linregress(estimated, measured)
    quantile = float(student_95(len(estimated) - 2))

    def around(value: float, error: float) -> Interval:
        return float(value - quantile * error), float(value + quantile * error)

    intervals = {
        "slope": around(fit.slope, fit.stderr),
        "intercept_ms": around(fit.intercept, fit.intercept_stderr),
    }
    return float(fit.slope), float(fit.intercept), intervals


def _notes(estimated: Floats, measured: Floats, r12: float) -> tuple[str, ...]:
    notes = []
    if _is_constant(estimated[None])[0]:
        notes.append("all estimates are equal: correlations and the regression are undefined")
    if _is_constant(measured[None])[0]:
        notes.append("all measurements are equal: correlations and r2 are undefined")
    if math.isnan(r12):
        notes.append("one measuring pass gave equal latencies only: no r12, no noise limit")
    elif r12 <= 0:
        notes.append(f"the two passes do not agree at all (r12 = {r12:.3f}): no noise limit")
    if len(estimated) < FEW_NETWORKS:
        notes.append(
            f"{len(estimated)} networks are few: bootstrap intervals are too narrow "
            f"below about {FEW_NETWORKS}"
        )
    return tuple(notes)
