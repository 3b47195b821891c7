"""Steps of a latency along one parameter: where it jumps, and by how much, with intervals.

The latency is taken for piecewise smooth: a polynomial of degree 0, 1 or 2 between change points,
which may jump at them. Degrees and change points together minimise the sum of squared errors over
their variances plus a penalty as in the Bayesian information criterion,

    sum_i ((y_i - f(x_i)) / (s_i y_i))^2 + log N (sum of coefficients + 2 (change points)),

exactly, by dynamic programming over the last change point. s_i, the relative standard error of a
point, is that of its interval or, where that is larger, what the scatter of neighbouring points
says; where points lie farther from the fit than that, all s_i grow and the fit is made anew.

A change point may be a mere bend. It is a step if the two fits differ in the middle between its
points by 1% at least, and by so many standard errors that they pay for a change point with one
coefficient: their square is above 3 log N. Between two long segments it must also pay so much
against one continuous curve with a bend wherever that fits best.

Symbols: N points, K = 3 coefficients at most.

Sources: B. Jackson et al., An algorithm for optimal partitioning of data on an interval, 2005;
Y.-C. Yao, Estimating the number of change-points via Schwarz' criterion, 1988. Theirs have segments
of one form; ours choose a degree each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, log

import numpy as np
import numpy.typing as npt

from latlut.errors import SpecError

Floats = npt.NDArray[np.float64]

#: Change points below this, as a fraction of the latency, cannot be told from a bent trend.
LEAST_STEP = 0.01
#: Fewer points have no steps that could be told from noise.
LEAST_POINTS = 4
#: Points that a polynomial of each degree needs: more than coefficients, or it would fit noise.
_LEAST_LENGTH = (1, 3, 5)
#: Coefficients that a change point counts as.
_PER_CHANGE = 2
#: Distances at which the scatter of neighbours is looked at: one that is a multiple of a
#: staircase's width sees no stairs.
_LAGS = (1, 2, 4, 8, 16)
_LEAST_RESIDUALS = 10
#: How often the fit is made anew because points lie farther from it than their errors say, and how
#: much farther that is.
_MOST_ROUNDS, _MOST_EXCESS = 4, 1.05
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Step:
    """A jump between two neighbouring points, in percent of the latency before it."""

    before: int
    """Index of the last point before it."""
    percent: float
    low_percent: float
    high_percent: float
    """``percent``, ``low_percent``, ``high_percent``: what the next point takes more by the fits,
    with the 95% interval; below zero if less."""
    beyond_trend_percent: float
    """The same without what the trends on both sides change from one point to the next."""


@dataclass(frozen=True)
class Staircase:
    """A latency along one parameter as steps and what lies between them."""

    steps: tuple[Step, ...]
    segments: tuple[tuple[int, int], ...]
    """(first, last) index of each smooth part, both inclusive; all points, in order."""
    fitted_ms: tuple[float, ...]
    """The piecewise fit at each point."""
    noise_percent: float
    """Median relative standard error of a point that was reckoned with."""
    unclear: tuple[int, ...]
    """Indices of the last points before change points of 1% at least that may be bends: the noise
    does not let them be told from steps."""


def find_steps(
    values: Sequence[float], latency_ms: Sequence[float], own_error: Sequence[float | None]
) -> Staircase:
    """The steps of a latency over increasing values of a parameter.

    Args:
        values: (N,) of the parameter, increasing.
        latency_ms: (N,) milliseconds, positive.
        own_error: (N,) relative 95% half-widths that points do not share, None where unknown.

    Raises:
        SpecError: fewer than ``LEAST_POINTS`` points, values that do not increase, latencies that
            are not positive, or no way to tell the noise: no intervals and too few points.
    """
    x, y = np.asarray(values, dtype=np.float64), np.asarray(latency_ms, dtype=np.float64)
    if len(x) < LEAST_POINTS or not len(x) == len(y) == len(own_error):
        raise SpecError(f"steps need {LEAST_POINTS} points at least, received {len(x)}")
    if not (np.diff(x) > 0).all() or not (y > 0).all():
        raise SpecError("steps need increasing values and latencies above zero")
    errors = _relative_errors(x, y, own_error)
    for _ in range(_MOST_ROUNDS):
        segments = _segments(x, y, errors * y)
        fits = [
            _Fit(x[a : b + 1], y[a : b + 1], (errors * y)[a : b + 1], degree)
            for a, b, degree in segments
        ]
        excess = _excess(fits, segments, len(x))
        if excess < _MOST_EXCESS:
            break
        errors = errors * excess
    fitted = np.concatenate(
        [fit.at(x[a : b + 1])[0] for fit, (a, b, _) in zip(fits, segments, strict=True)]
    )
    steps, unclear = [], []
    for left, right, (_, end, _) in zip(fits, fits[1:], segments, strict=False):
        if (step := _step(x, end, left, right)) is None:
            continue
        if _is_bend(left, right, log(len(x))):
            unclear.append(end)
        else:
            steps.append(step)
    return Staircase(
        steps=tuple(steps),
        segments=tuple((first, last) for first, last, _ in segments),
        fitted_ms=tuple(fitted.tolist()),
        noise_percent=float(100 * np.median(errors)),
        unclear=tuple(unclear),
    )


def common_multiple(values: Sequence[float], among: Sequence[float]) -> int | None:
    """The largest whole number that all ``values`` are multiples of; None if that says nothing.

    It says nothing of fewer than three values, or where all that they were chosen ``among`` are
    multiples of it.
    """
    if len(values) < 3 or not all(float(value).is_integer() for value in (*values, *among)):
        return None
    common = gcd(*map(int, values))
    return None if common <= 1 or all(int(value) % common == 0 for value in among) else common


def _relative_errors(x: Floats, y: Floats, own_error: Sequence[float | None]) -> Floats:
    """(N,) relative standard error of each point."""
    own = np.array([np.nan if error is None else error / _NORMAL_95 for error in own_error])
    scatter = _scatter(x, np.log(y))
    if np.isnan(own).all() and scatter is None:
        raise SpecError(
            f"{len(x)} points without intervals do not say what is noise: measure more passes"
        )
    floor = scatter or 0.0
    own = np.where(np.isnan(own), max(floor, float(np.nanmedian([*own, floor]))), own)
    # An interval that happens to be tiny must not make its point certain.
    return np.maximum(own, max(floor, float(np.median(own)) / 2, 1e-6))


def _scatter(x: Floats, logs: Floats) -> float | None:
    """Standard deviation of points about what their neighbours say, None for too few of them.

    The median absolute deviation from the line through two neighbours; the least over several
    distances to them.
    """
    found = []
    for lag in _LAGS:
        if len(x) - 2 * lag < _LEAST_RESIDUALS:
            break
        before, after = slice(None, -2 * lag), slice(2 * lag, None)
        middle = slice(lag, -lag)
        share = (x[middle] - x[before]) / (x[after] - x[before])
        residuals = logs[middle] - (1 - share) * logs[before] - share * logs[after]
        residuals /= np.sqrt(1 + (1 - share) ** 2 + share**2)
        found.append(1.4826 * float(np.median(np.abs(residuals - np.median(residuals)))))
    return min(found, default=None)


def _segments(x: Floats, y: Floats, sd: Floats) -> list[tuple[int, int, int]]:
    """(first, last, degree) of each segment of the best partition."""
    count = len(x)
    penalty = log(count)
    best = np.full(count + 1, np.inf)  # of the first n points
    best[0] = -_PER_CHANGE * penalty
    start, degree_at = np.zeros(count + 1, dtype=int), np.zeros(count + 1, dtype=int)
    for first in range(count):
        costs = _costs(x[first:], y[first:], sd[first:], penalty)  # (3, points from here)
        degrees = costs.argmin(axis=0)
        total = best[first] + _PER_CHANGE * penalty + costs.min(axis=0)
        ends = np.arange(first + 1, count + 1)
        is_better = total < best[ends]
        best[ends[is_better]] = total[is_better]
        start[ends[is_better]], degree_at[ends[is_better]] = first, degrees[is_better]
    found, end = [], count
    while end:
        found.append((int(start[end]), end - 1, int(degree_at[end])))
        end = int(start[end])
    return found[::-1]


def _costs(x: Floats, y: Floats, sd: Floats, penalty: float) -> Floats:
    """(K, N): penalised cost of the first n points as one segment, by degree.

    Normal equations from cumulative sums, x brought to [0, 1] over each segment.
    """
    count = len(x)
    weights = 1 / sd**2
    away = x - x[0]
    length = np.where(away > 0, away, 1.0)
    powers = away ** np.arange(5)[:, None]  # (5, N)
    moments = np.cumsum(weights * powers, axis=1) / length ** np.arange(5)[:, None]
    products = np.cumsum(weights * y * powers[:3], axis=1) / length ** np.arange(3)[:, None]
    squares = np.cumsum(weights * y * y)
    costs = np.full((3, count), np.inf)
    for degree, least in enumerate(_LEAST_LENGTH):
        if count < least:
            break
        size = degree + 1
        indices = np.add.outer(np.arange(size), np.arange(size))
        normal = np.moveaxis(moments[indices][..., least - 1 :], -1, 0)
        right = products[:size, least - 1 :].T
        solved = np.linalg.solve(normal, right[..., None])[..., 0]
        rest = np.maximum(squares[least - 1 :] - (solved * right).sum(axis=1), 0.0)
        costs[degree, least - 1 :] = rest + penalty * size
    return costs


class _Fit:
    """A weighted least-squares polynomial about the middle of its points.

    ``squares``: of the residuals over their standard errors, summed. ``points``: x, y, sd.
    """

    def __init__(self, x: Floats, y: Floats, sd: Floats, degree: int) -> None:
        self._middle, self._scale = float(x.mean()), float(np.ptp(x)) or 1.0
        self._degree = degree
        design = self._design(x) / sd[:, None]
        self._covariance = np.linalg.inv(design.T @ design)
        self._coefficients = self._covariance @ design.T @ (y / sd)
        self.squares = float(((y / sd - design @ self._coefficients) ** 2).sum())
        self.points = x, y, sd

    def _design(self, x: Floats) -> Floats:
        return np.vander((x - self._middle) / self._scale, self._degree + 1, increasing=True)

    def at(self, x: Floats) -> tuple[Floats, Floats]:
        """Values and their variances at (N,) places."""
        design = self._design(x)
        return design @ self._coefficients, np.einsum(
            "ni,ij,nj->n", design, self._covariance, design
        )


def _is_bend(left: _Fit, right: _Fit, penalty: float) -> bool:
    """Whether a continuous curve with one bend does about as well as both fits.

    The curve is 1, x, x^2 and max(0, x - h), with the best h. Not of segments so short that it
    would fit any values.
    """
    if min(len(left.points[0]), len(right.points[0])) < _LEAST_LENGTH[-1]:
        return False
    x, y, sd = (np.concatenate(pair) for pair in zip(left.points, right.points, strict=True))
    x = (x - x[0]) / np.ptp(x)
    smooth = np.vander(x, 3, increasing=True)
    limit = left.squares + right.squares + (_PER_CHANGE + 1) * penalty
    for place in x[1:-1]:
        design = np.column_stack([smooth, np.maximum(0, x - place)]) / sd[:, None]
        coefficients = np.linalg.lstsq(design, y / sd)[0]
        if float(((y / sd - design @ coefficients) ** 2).sum()) < limit:
            return True
    return False


def _excess(fits: Sequence[_Fit], segments: Sequence[tuple[int, int, int]], count: int) -> float:
    """How much farther points lie from the fits than their errors say; 0 where they are too few."""
    free = count - sum(degree + 1 for _, _, degree in segments) - (len(segments) - 1)
    return float(np.sqrt(sum(fit.squares for fit in fits) / free)) if free >= 10 else 0.0


def _step(x: Floats, before: int, left: _Fit, right: _Fit) -> Step | None:
    """The step after a point, None if the change there is none."""
    middle = np.array([(x[before] + x[before + 1]) / 2])
    jump, jump_sd = _log_ratio(left.at(middle), right.at(middle))
    if not abs(jump) > max(jump_sd * ((_PER_CHANGE + 1) * log(len(x))) ** 0.5, LEAST_STEP):
        return None
    ratio, sd = _log_ratio(left.at(x[before : before + 1]), right.at(x[before + 1 : before + 2]))
    percents = 100 * np.expm1([ratio, ratio - _NORMAL_95 * sd, ratio + _NORMAL_95 * sd, jump])
    return Step(before, *percents.tolist())


def _log_ratio(below: tuple[Floats, Floats], above: tuple[Floats, Floats]) -> tuple[float, float]:
    """The logarithm of ``above / below`` and its standard error; NaN where one is not positive."""
    (low,), (low_variance,) = below
    (high,), (high_variance,) = above
    if low <= 0 or high <= 0:
        return float("nan"), float("nan")
    return log(high / low), float(np.sqrt(low_variance / low**2 + high_variance / high**2))
