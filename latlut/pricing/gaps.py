"""How well a difference of two expected latencies is known."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from latlut.opspec import OpSpec
from latlut.pricing.calibration import Calibration, features_ms
from latlut.table.entry import Entry

#: A smaller coefficient is a difference that has cancelled.
_NOTHING = 1e-12

#: Op spec -> how often it is executed, on average.
Executions = Mapping[OpSpec, float]


def gap_half_width_ms(
    low: Executions,
    high: Executions,
    entries: Mapping[str, Entry],
    shared_error: float,
    calibration: Calibration | None,
    priced_as: Mapping[OpSpec, Sequence[str]] | None = None,
) -> float | None:
    """Half-width of the 95% interval of what ``high`` takes more than ``low``, milliseconds.

    Each entry's own error is independent of the others; the error that all entries share, and that
    of a calibration's effects, belong to the difference as a whole:

        half^2 = sum over entries of (coefficient * factor * own error)^2
                 + (shared error * gap)^2 + (half-width from the calibration)^2

    Args:
        low: what the one executes.
        high: what the other executes.
        entries: by key, all that price either.
        shared_error: of the table, relative.
        calibration: that they are priced by; None of plain sums.
        priced_as: op spec -> keys of the entries that price it; its own where not given.

    Returns:
        None where an entry has no interval.
    """
    keys = priced_as or {}
    coefficients: defaultdict[str, float] = defaultdict(float)
    alone_ms: dict[OpSpec, float] = {}
    for spec in dict.fromkeys([*low, *high]):
        own = keys.get(spec, (spec.key,))
        alone_ms[spec] = sum(entries[key].latency_ms for key in own)
        factor = 1.0 if calibration is None else calibration.factor(spec)
        for key in own:
            coefficients[key] += factor * (high.get(spec, 0.0) - low.get(spec, 0.0))
    errors: list[float] = []
    gap_ms = 0.0
    for key, coefficient in coefficients.items():
        if abs(coefficient) < _NOTHING:
            continue
        error_ms = entries[key].own_error_ms
        if error_ms is None:
            return None
        errors.append(coefficient * error_ms)
        gap_ms += coefficient * entries[key].latency_ms
    of_effects = 0.0
    if calibration is not None:
        ends = (_features(calibration, end, alone_ms) for end in (low, high))
        of_effects = calibration.gap_half_width_ms(*ends)
    return math.hypot(*errors, shared_error * gap_ms, of_effects)


def _features(
    calibration: Calibration, executed: Executions, alone_ms: Mapping[OpSpec, float]
) -> np.ndarray:
    sums = ((spec, count * alone_ms[spec], count) for spec, count in executed.items())
    return features_ms(calibration.effects, sums)
