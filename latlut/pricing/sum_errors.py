"""What plain sums are known to miss: how far measured networks lay from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from latlut.stats.quantiles import student_95
from latlut.table.table import LatencyTable
from latlut.table.validations import errors_of_sums

#: Relative error of plain sums, root mean square, on the eight devices of docs/results/README.md
#: ("The FasterSeg space at 256x512" and "Whole networks, plain and calibrated", standalone): three
#: engines, 1.7% to 16%. 94% of the 480 networks lay within the half-width that it gives.
USUAL_ERROR = 0.084
#: Fewer measured networks say less than that.
MIN_NETWORKS = 3


@dataclass(frozen=True)
class SumError:
    """How far a network may lie from the sum of its entries (95%), as a share of the sum.

    ``networks`` is on how many measured ones it rests; 0 where it is the error of other devices.
    """

    half_width: float
    networks: int

    def describe(self) -> str:
        """One phrase for people."""
        percent = f"±{100 * self.half_width:.1f}%"
        if self.networks:
            return f"{percent} for how far {self.networks} measured networks lay from their sums"
        return (
            f"{percent} because no network was measured against this table (the error seen on "
            "other devices)"
        )


def sum_error(table: LatencyTable) -> SumError:
    """What a table's own undisturbed validations say, else the error of sums on other devices.

    The half-width is Student's quantile times the root mean square of measured / sum - 1: bias and
    scatter together, and the errors of the entries too.
    """
    errors = errors_of_sums(table)
    if len(errors) < MIN_NETWORKS:
        return SumError(1.96 * USUAL_ERROR, 0)
    spread = math.sqrt(sum(error**2 for error in errors) / len(errors))
    return SumError(float(student_95(len(errors))) * spread, len(errors))
