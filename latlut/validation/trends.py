"""What the errors of a validation go along with: size, depth, or an operator's share of a network.

An estimate that is right on average may be too low for large networks, or for those with much of
one kind of operator. Each property of the networks is set against the relative residuals, by rank
(is there a trend at all?) and by a line (how much is it worth?). Properties of random networks go
along with each other (a deeper network is a larger one), so a trend names a suspect, not a cause.

Symbols: N networks, T trends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from latlut.errors import SpecError
from latlut.stats.agreement import checked_latencies_ms
from latlut.validation.measured import MeasuredNetwork

Floats: TypeAlias = npt.NDArray[np.float64]

SIZE = "size"
DEPTH = "depth"
CONFIDENCE = 0.95
#: Below this many networks a trend is not asked for: a line through a few points says anything.
MIN_NETWORKS = 10
#: The part of the networks between which a change is given: from the 10th to the 90th percentile.
RANGE = (0.1, 0.9)


@dataclass(frozen=True)
class Slope:
    """How the relative error of one estimate goes along with a property."""

    spearman: float
    """Rank correlation of property and error, 0 where all errors are equal."""
    p_value: float
    """Of ``spearman`` against 0, two-sided, multiplied by Holm's method over all trends of the same
    estimate: the chance that any of them looks like this without a trend."""
    change_percent: float
    """Percentage points by which the error (estimate / measured - 1) changes from the property's
    10th to its 90th percentile, by least squares."""
    low_percent: float
    high_percent: float
    """``low_percent``, ``high_percent``: its 95% interval, Student's t."""

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p-value is below 5%."""
        return self.p_value < 1 - CONFIDENCE


@dataclass(frozen=True, eq=False)
class Trend:
    """One property of networks, and how the errors go along with it."""

    name: str
    """``size``, ``depth``, or ``share of KIND``."""
    unit: str
    """Of ``values``."""
    values: Floats
    """(N,) float, the property of each network."""
    plain: Slope
    """Of the sum of the entries."""
    calibrated: Slope | None
    """Of the calibrated estimates, None without them."""


def trends(
    networks: Sequence[MeasuredNetwork], calibrated_ms: Sequence[float] | None = None
) -> tuple[Trend, ...]:
    """Trends of the relative errors with what the networks are.

    Args:
        networks: N of them; their plain estimates are complete.
        calibrated_ms: (N,) the calibrated estimates, milliseconds; of networks that the
            calibration was fitted on they flatter it.

    Returns:
        First ``size`` (sum of the entries, ms) and ``depth`` (operators executed), then the share
        of each kind in the sum (%), by how much the plain error changes with it. Left out are
        properties that do not differ between their 10th and 90th percentile, and kinds that take
        the same milliseconds in all these networks. Nothing for fewer than 10 networks.

    Raises:
        SpecError: another number of calibrated estimates, or a latency that is not positive.

    The p-values of each estimate are corrected together by Holm's method over the trends returned
    (Holm 1979, A simple sequentially rejective multiple test procedure).
    """
    if calibrated_ms is not None and len(calibrated_ms) != len(networks):
        raise SpecError(
            f"calibrated_ms: expected one per network, {len(networks)}, "
            f"received {len(calibrated_ms)}"
        )
    if len(networks) < MIN_NETWORKS:
        return ()
    measured = checked_latencies_ms("measured_ms", [item.measured_ms for item in networks])
    plain = checked_latencies_ms("plain_ms", [item.plain.plain_ms for item in networks])
    properties = _properties(networks)
    slopes = _slopes(list(properties.values()), 100 * (plain / measured - 1))
    of_calibrated: list[Slope] | None = None
    if calibrated_ms is not None:
        calibrated = checked_latencies_ms("calibrated_ms", calibrated_ms)
        of_calibrated = _slopes(list(properties.values()), 100 * (calibrated / measured - 1))
    found = [
        Trend(name, unit, values, slopes[i], None if of_calibrated is None else of_calibrated[i])
        for i, ((name, unit), values) in enumerate(properties.items())
    ]
    first = [trend for trend in found if trend.name in (SIZE, DEPTH)]
    kinds = [trend for trend in found if trend.name not in (SIZE, DEPTH)]
    return (*first, *sorted(kinds, key=lambda trend: -abs(trend.plain.change_percent)))


def _properties(networks: Sequence[MeasuredNetwork]) -> dict[tuple[str, str], Floats]:
    """(name, unit) -> (N,) values, of those properties that vary."""
    kinds: defaultdict[str, Floats] = defaultdict(lambda: np.zeros(len(networks)))
    for index, network in enumerate(networks):
        for term in network.plain.terms:
            kinds[term.spec.kind][index] += term.count * term.latency_ms
    plain = np.array([item.plain.plain_ms for item in networks])
    depths = [sum(term.count for term in item.plain.terms) for item in networks]
    every = {
        (SIZE, "ms"): plain,
        (DEPTH, "operators"): np.array(depths, dtype=np.float64),
        # The share of what every network has as much of is its size, the other way round.
        **{
            (f"share of {kind}", "%"): 100 * kinds[kind] / plain
            for kind in sorted(kinds)
            if _reach(kinds[kind]) > 0
        },
    }
    return {key: values for key, values in every.items() if _reach(values) > 0}


def _reach(values: Floats) -> float:
    """Distance between the 10th and the 90th percentile, 0 where it is rounding only."""
    low, high = np.quantile(values, RANGE)
    return float(high - low) if high - low > 1e-9 * np.abs(values).max() else 0.0


def _slopes(properties: Sequence[Floats], error_percent: Floats) -> list[Slope]:
    """One slope per property, p-values corrected together."""
    from scipy import stats

    found: list[Slope] = []
    # Equal up to rounding, ranks would be those of the rounding.
    is_level = float(np.ptp(error_percent)) <= 1e-9
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(error_percent) - 2))
    for values in properties:
        if is_level:
            found.append(Slope(0.0, 1.0, 0.0, 0.0, 0.0))
            continue
        ranks = stats.spearmanr(values, error_percent)
        line = stats.linregress(values, error_percent)
        reach = _reach(values)
        change, half = line.slope * reach, quantile * line.stderr * reach
        found.append(
            Slope(
                float(ranks.statistic),
                float(ranks.pvalue),
                float(change),
                float(change - half),
                float(change + half),
            )
        )
    corrected = holm([slope.p_value for slope in found])
    return [
        Slope(s.spearman, p, s.change_percent, s.low_percent, s.high_percent)
        for s, p in zip(found, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected so that 5% is the chance of any false alarm at all.

    The i-th smallest of T is multiplied by T + 1 - i, never below a smaller one's, at most 1.

    Args:
        p_values: (T,) each between 0 and 1.

    Source: Holm 1979.
    """
    order = np.argsort(p_values, kind="stable")
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
