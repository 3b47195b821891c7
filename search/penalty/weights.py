"""w1, w2, w3: the weights of operators, downsampling and widths in the penalty."""

from __future__ import annotations

import math
from collections.abc import Sequence

from latlut.errors import SpecError

#: Of the paper, Sec. 3.2.
PAPER_WEIGHTS = (0.001, 0.997, 0.002)


def checked_weights(weights: Sequence[float]) -> tuple[float, float, float]:
    """w1, w2, w3 as given, if they are weights.

    Raises:
        SpecError: not three finite numbers, one negative, or a sum other than 1.
    """
    values = tuple(float(weight) for weight in weights)
    if len(values) != 3 or not all(math.isfinite(value) and value >= 0 for value in values):
        raise SpecError(
            "weights are three finite numbers that are not negative, for operators, downsampling "
            f"and widths; received {tuple(weights)}"
        )
    total = sum(values)
    if abs(total - 1) > 1e-6:
        hint = ""
        if total > 0:
            hint = "; in this proportion: " + ", ".join(f"{v / total:.6g}" for v in values)
        raise SpecError(f"the three weights must add up to 1, received the sum {total:.6g}{hint}")
    return values[0], values[1], values[2]
