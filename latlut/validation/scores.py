"""Plain sums and calibrated estimates of the same networks, side by side, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latlut.pricing.estimator import Estimate
from latlut.stats.agreement import Agreement, agreement
from latlut.validation.measured import MeasuredNetwork


@dataclass(frozen=True)
class Scores:
    """How well plain sums and calibrated estimates predict networks that were not fitted.

    ``coverage`` is the share of measured latencies inside the calibrated 95% intervals.
    """

    plain: Agreement
    calibrated: Agreement
    covered: int

    @property
    def coverage(self) -> float:
        """Share of networks whose measured latency lies inside its 95% interval."""
        return self.covered / self.calibrated.n

    def coverage_interval(self) -> tuple[float, float]:
        """Exact 95% interval of the coverage (Clopper and Pearson, 1934)."""
        from scipy.stats import binomtest

        found = binomtest(self.covered, self.calibrated.n).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {
            "plain": self.plain.to_dict(),
            "calibrated": self.calibrated.to_dict(),
            "covered": self.covered,
            "coverage": self.coverage,
            "coverage_interval": list(self.coverage_interval()),
        }


def score(
    networks: Sequence[MeasuredNetwork], estimates: Sequence[Estimate], seed: int = 0
) -> Scores:
    """Both estimates of networks that were not fitted, against their measurements.

    Args:
        networks: with their plain estimates, three or more.
        estimates: the calibrated ones, in the same order.
        seed: of the bootstrap.
    """
    first = [item.measured_first_ms for item in networks]
    second = [item.measured_second_ms for item in networks]
    covered = sum(
        found.ci_low_ms is not None
        and found.ci_high_ms is not None
        and found.ci_low_ms <= item.measured_ms <= found.ci_high_ms
        for item, found in zip(networks, estimates, strict=True)
    )
    return Scores(
        agreement([item.plain.ms for item in networks], first, second, seed=seed),
        agreement([found.ms for found in estimates], first, second, seed=seed),
        covered,
    )
