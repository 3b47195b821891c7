"""One value per entry from its readings in several passes, with the spread between them.

Latency on a shared machine drifts: the error of an entry is not in the samples of one sitting but
between sittings. So the spread between passes decides, moderated over all entries because a few
passes alone say little about a spread.

Symbols: E entries, P passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from latlut.errors import SpecError
from latlut.stats.quantiles import student_95


@dataclass(frozen=True)
class SpreadPrior:
    """What all entries together say about an entry's spread between passes.

    ``variance`` of log latency, worth ``dof`` degrees of freedom; both NaN where no entry was
    measured twice.
    """

    variance: float
    dof: float


def fit_spread_prior(variances: np.ndarray, dof: np.ndarray) -> SpreadPrior:
    """Scaled inverse chi-square prior of the entries' variances, by moments of their logarithm.

    Args:
        variances: (E,) sample variances of log latency between passes.
        dof: (E,) their degrees of freedom, passes minus one; entries with 0 are left out.

    Source: Smyth, Linear Models and Empirical Bayes Methods, 2004, Sec. 6.2.
    """
    from scipy.special import digamma, polygamma

    keep = (dof > 0) & (variances > 0)
    if not keep.any():
        return SpreadPrior(math.nan, math.nan)
    s2, d = variances[keep], dof[keep]
    if len(s2) < 3:
        # Too few to tell how spreads differ: pooled for entries without any, no weight otherwise.
        return SpreadPrior(float(np.average(s2, weights=d)), 0.0)
    e = np.log(s2) - digamma(d / 2) + np.log(d / 2)
    excess = float(e.var(ddof=1) - polygamma(1, d / 2).mean())
    if excess <= 0:
        return SpreadPrior(float(np.exp(e.mean())), math.inf)
    half_dof = _inverse_trigamma(excess)
    log_variance = float(e.mean()) + float(digamma(half_dof)) - math.log(half_dof)
    return SpreadPrior(math.exp(log_variance), 2 * half_dof)


def _inverse_trigamma(y: float) -> float:
    """x > 0 with trigamma(x) = y, by bracketing; trigamma falls from infinity to 0."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    return float(brentq(lambda x: float(polygamma(1, x)) - y, 1e-6, 1e9))


@dataclass(frozen=True)
class Combined:
    """Entries from several passes; arrays of length E."""

    value: np.ndarray
    """In the unit of the input."""
    half_width: np.ndarray
    """Of each entry's own 95% interval from the spread between passes, NaN where nothing is known
    of it; that of log latencies is relative."""
    passes: np.ndarray
    """How many readings an entry has."""
    elasticity: float = 0.0
    """How strongly readings follow the machine's speed, 0 where that cannot be told."""


#: Standard deviation of a median of normal values over that of their mean, at most: sqrt(pi / 2).
MEDIAN_LOSS = 1.2533
#: Fewer degrees of freedom than this cannot tell how readings follow the machine's speed.
MIN_ELASTICITY_DOF = 16


def combine_passes(readings: np.ndarray, speeds: np.ndarray | None = None) -> Combined:
    """One value per entry from its readings in several passes, with the spread between them.

    Each reading is brought to the machine's usual speed, then the entry is the median over its
    passes:

        x_ep = log reading_ep - b log speed_ep,        value_e = exp(median_p x_ep)

    where b, the elasticity, is the least-squares slope of the readings' deviations from their
    entry's mean on those of the speeds, over all entries: 1 where an op suffers as much as the
    sentinels do, 0 where they tell nothing. The interval is that of ``centres``.

    Args:
        readings: (E, P) positive, NaN where an entry was not measured in a pass.
        speeds: (E, P) how slow the machine was beside each reading, 1 is usual; NaN if unknown.

    Raises:
        SpecError: a reading is not positive.
    """
    logs, elasticity = log_readings_at_usual_speed(readings, speeds)
    found = centres(logs)
    return replace(found, value=np.exp(found.value), elasticity=elasticity)


def centres(values: np.ndarray) -> Combined:
    """The median of each row, with an interval from the spread within it.

    The interval is a t interval whose variance is the row's own, shrunk towards that of all rows
    (``fit_spread_prior``); the median of P normal values has a standard deviation of at most
    1.2533 / sqrt(P) of one value's.

    Args:
        values: (E, P), NaN where a row has none.
    """
    counts = np.isfinite(values).sum(axis=1)
    dof = np.maximum(counts - 1, 0).astype(float)
    value = row_medians(values)
    variances = np.nansum(_centred(values) ** 2, axis=1) / np.maximum(dof, 1)
    posterior, posterior_dof = posterior_variances(variances, dof)
    scale = np.where(counts <= 2, 1.0, MEDIAN_LOSS) / np.sqrt(np.maximum(counts, 1))
    half_width = student_95(posterior_dof) * np.sqrt(posterior) * scale
    return Combined(value, np.where(counts > 0, half_width, np.nan), counts)


def row_medians(values: np.ndarray) -> np.ndarray:
    """(E, P) to (E,): the median of what is finite in each row, NaN where nothing is."""
    return np.array(
        [np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in values]
    )


def log_readings_at_usual_speed(
    readings: np.ndarray, speeds: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """Log readings at the machine's usual speed, and the elasticity b that brought them there.

    Args:
        readings: (E, P) positive, NaN where an entry was not measured in a pass.
        speeds: (E, P) how slow the machine was beside each reading, 1 is usual; NaN if unknown.

    Raises:
        SpecError: a reading is not positive.
    """
    if np.any(readings[np.isfinite(readings)] <= 0):
        raise SpecError("latencies must be positive")
    logs = np.log(readings)
    if speeds is None:
        return logs, 0.0
    dof = np.maximum(np.isfinite(logs).sum(axis=1) - 1, 0).sum()
    log_speeds = np.where(np.isfinite(logs), np.nan_to_num(np.log(speeds)), np.nan)
    elasticity = _elasticity(_centred(logs), _centred(log_speeds), float(dof))
    return logs - elasticity * log_speeds, elasticity


def posterior_variances(variances: np.ndarray, dof: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances shrunk towards all entries', with their degrees of freedom; NaN where unknown.

        (d_0 s_0^2 + d_e s_e^2) / (d_0 + d_e),    d_0 + d_e

    with s_0 and d_0 of ``fit_spread_prior``.

    Args:
        variances: (E,) sample variances.
        dof: (E,) their degrees of freedom, 0 where there is no spread to speak of.
    """
    prior = fit_spread_prior(variances, dof)
    if not math.isfinite(prior.variance):
        return np.full(len(dof), np.nan), np.full(len(dof), np.nan)
    if math.isinf(prior.dof):
        return np.full(len(dof), prior.variance), np.full(len(dof), 1e9)
    posterior_dof = prior.dof + dof
    with np.errstate(invalid="ignore"):  # neither prior nor repeats: unknown
        return (prior.dof * prior.variance + dof * variances) / posterior_dof, posterior_dof


def _centred(values: np.ndarray) -> np.ndarray:
    """Rows minus their means over what is finite; NaN stays NaN."""
    counts = np.maximum(np.isfinite(values).sum(axis=1, keepdims=True), 1)
    return values - np.nansum(values, axis=1, keepdims=True) / counts


def _elasticity(deviations: np.ndarray, speed_deviations: np.ndarray, dof: float) -> float:
    square = float(np.nansum(speed_deviations**2))
    if dof < MIN_ELASTICITY_DOF or square == 0:
        return 0.0
    return float(np.clip(np.nansum(deviations * speed_deviations) / square, 0.0, 1.5))


def shared_half_width(pass_speeds: np.ndarray) -> float:
    """Relative 95% half-width of the usual speed's level, from how much it differs by pass.

    Args:
        pass_speeds: (P,) the machine's mean speed in each pass, 1 is usual.

    Returns:
        t(0.975, P - 1) * std(log) / sqrt(P); NaN for one pass.
    """
    passes = len(pass_speeds)
    if passes < 2:
        return math.nan
    spread = float(np.log(pass_speeds).std(ddof=1)) / math.sqrt(passes)
    return float(student_95(passes - 1)) * spread
