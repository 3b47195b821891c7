"""A whole network with its estimates and what it was measured to take."""

from __future__ import annotations

from dataclasses import dataclass

from latlut.opspec import OpSpec
from latlut.pricing.estimator import Estimate
from latlut.spaces.space import SpaceNetwork


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network that a validation measured, twice, with its estimates."""

    architecture: SpaceNetwork
    """The network."""
    plain: Estimate
    """The sum of its entries."""
    measured_first_ms: float
    measured_second_ms: float
    """``measured_first_ms``, ``measured_second_ms``: its latency in the validation's two passes."""
    calibrated: Estimate | None = None
    """Its estimate by the table's calibration, None without one."""
    is_fitted: bool = False
    """Whether the calibration was fitted on it; it says nothing about it then."""
    validation_id: int | None = None
    position: int | None = None
    """``validation_id``, ``position``: where a table keeps it, None before it is kept."""

    @property
    def estimate(self) -> Estimate:
        """What the table says of it: by its calibration where it has one."""
        return self.plain if self.calibrated is None else self.calibrated

    @property
    def measured_ms(self) -> float:
        """Mean of the two passes."""
        return (self.measured_first_ms + self.measured_second_ms) / 2

    @property
    def error_percent(self) -> float:
        """Percent by which the estimate is too high."""
        return 100 * (self.estimate.ms / self.measured_ms - 1)

    @property
    def plain_error_percent(self) -> float:
        """Percent by which the sum of the entries is too high."""
        return 100 * (self.plain.ms / self.measured_ms - 1)

    @property
    def terms(self) -> list[tuple[OpSpec, float, float]]:
        """(op spec, plain milliseconds of all its executions, how many these are)."""
        return [(t.spec, t.count * t.latency_ms, t.count) for t in self.plain.terms]
