"""Whether an engine's outputs are what they should be: the comparison with a reference.

Non-finite values belong to a result like any others: they have to stand in the same places with
the same sign. The finite rest is compared by tolerance, whole numbers and booleans for equality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Largest difference from the reference that passes, relative to the largest output value.
PARITY_TOLERANCE = {"fp64": 2e-3, "fp32": 2e-3, "fp16": 5e-2, "bf16": 2e-1, "int8": 3e-1}

#: One output element in so many may differ by more: where a network takes the larger of two values
#: that are equal up to rounding (ENet's unpooling), engines differ in the winner.
_ELEMENTS_AN_OUTLIER = 10_000


def allowed_difference(*arithmetics: str) -> float:
    """What passes where outputs come from any of these arithmetics: the coarsest's tolerance."""
    return max(PARITY_TOLERANCE[name] for name in arithmetics)


def largest_difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The difference of the output that differs most; 0 where there are none.

    Args:
        found: the engine's outputs.
        expected: the reference's, of the same shapes.

    Returns:
        See ``output_difference``.
    """
    return max(map(output_difference, found, expected), default=0.0)


def output_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The difference of one output.

    Returns:
        Of floating-point outputs what all elements but one in ten thousand stay within, relative
        to the largest finite value; of whole numbers and booleans the share that differs; infinity
        where a NaN or an infinity of one side has another value on the other.
    """
    if not np.issubdtype(expected.dtype, np.floating):
        return float(np.mean(found != expected)) if expected.size else 0.0
    wanted = expected.astype(np.float64).ravel()
    given = found.astype(np.float64).ravel()
    is_finite = np.isfinite(wanted)
    if not np.array_equal(is_finite, np.isfinite(given)):
        return math.inf
    if not np.array_equal(given[~is_finite], wanted[~is_finite], equal_nan=True):
        return math.inf
    difference = np.abs(given[is_finite] - wanted[is_finite])
    if not difference.size:
        return 0.0
    scale = float(np.abs(wanted[is_finite]).max()) or 1.0
    last = difference.size - 1 - difference.size // _ELEMENTS_AN_OUTLIER
    return float(np.partition(difference, last)[last]) / scale
