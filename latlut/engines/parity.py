"""Whether an engine's outputs are what they should be: the comparison with a reference.

Non-finite values belong to a result like any others: they have to stand in the same places with
the same sign. The finite rest is compared by tolerance. Whole numbers and booleans are compared for
equality, of which a small share may fail.
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


#: Largest share of whole numbers that may differ: the best of classes whose scores are equal up to
#: rounding is another one, for coarser arithmetic in more places.
SHARE_TOLERANCE = {"fp64": 2e-3, "fp32": 2e-3, "fp16": 1e-2, "bf16": 3e-2, "int8": 5e-2}


def allowed_difference(expected: np.ndarray, *arithmetics: str) -> float:
    """What passes for an output that comes from any of these arithmetics, the coarsest's."""
    is_float = np.issubdtype(expected.dtype, np.floating)
    tolerances = PARITY_TOLERANCE if is_float else SHARE_TOLERANCE
    return max(tolerances[name] for name in arithmetics)


def worst_difference(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray], *arithmetics: str
) -> tuple[float, float]:
    """The difference that is largest beside what is allowed for it, and that.

    Args:
        found: the engine's outputs.
        expected: the reference's, of the same shapes.
        arithmetics: of the engine and of the graph.

    Returns:
        See ``output_difference`` and ``allowed_difference``; both 0 where there are no outputs.
    """
    pairs = [
        (output_difference(one, other), allowed_difference(other, *arithmetics))
        for one, other in zip(found, expected, strict=True)
    ]
    return max(pairs, key=lambda pair: pair[0] / pair[1], default=(0.0, 0.0))


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
