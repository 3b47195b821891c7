"""How a calibration does on networks of families that it was not fitted on, and of those it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from latlut.errors import CalibrationError
from latlut.pricing.estimator import Estimate, calibrated
from latlut.spaces.onnx_files import OnnxNetwork
from latlut.validation.fitting import MIN_NETWORKS, fit
from latlut.validation.measured import MeasuredNetwork


@dataclass(frozen=True)
class Tried:
    """Estimates of networks by calibrations that had not seen them, beside what was measured."""

    networks: tuple[MeasuredNetwork, ...]
    estimates: tuple[Estimate, ...]

    @property
    def errors_percent(self) -> np.ndarray:
        """(N,) by how much each estimate is too high."""
        pairs = zip(self.networks, self.estimates, strict=True)
        return np.array([100 * (found.ms / item.measured_ms - 1) for item, found in pairs])

    @property
    def mape_percent(self) -> float:
        """Mean absolute error."""
        return float(np.abs(self.errors_percent).mean())

    @property
    def coverage(self) -> float:
        """Share of networks whose measured latency lies inside the 95% interval."""
        inside = [
            found.ci_low_ms is not None
            and found.ci_high_ms is not None
            and found.ci_low_ms <= item.measured_ms <= found.ci_high_ms
            for item, found in zip(self.networks, self.estimates, strict=True)
        ]
        return float(np.mean(inside))


def families(networks: Iterable[MeasuredNetwork]) -> list[str]:
    """The family of each network; of one that is no file, its space."""
    return [
        item.architecture.family if isinstance(item.architecture, OnnxNetwork) else "other"
        for item in networks
    ]


def by_family(networks: Sequence[MeasuredNetwork]) -> Tried:
    """Each family by a calibration that was fitted on all others.

    Raises:
        CalibrationError: too few networks in the others, or one family alone.
    """
    own = families(networks)
    if len(set(own)) < 2:
        raise CalibrationError(f"all networks are of one family, {own[0]!r}")
    return _tried(networks, own)


def by_folds(networks: Sequence[MeasuredNetwork], folds: int = 10, seed: int = 0) -> Tried:
    """Each network by a calibration that was fitted on random others, its own family included."""
    order = np.random.default_rng(seed).permutation(len(networks))
    place = {int(index): str(number % folds) for number, index in enumerate(order)}
    return _tried(networks, [place[index] for index in range(len(networks))])


def _tried(networks: Sequence[MeasuredNetwork], parts: Sequence[str]) -> Tried:
    """Each part by a calibration that was fitted on the other parts."""
    found: dict[int, Estimate] = {}
    for part in dict.fromkeys(parts):
        others = [item for item, own in zip(networks, parts, strict=True) if own != part]
        if len(others) < MIN_NETWORKS:
            raise CalibrationError(
                f"without {part} {len(others)} networks are left to fit on, {MIN_NETWORKS} are "
                "needed"
            )
        model = fit(others)
        for index, own in enumerate(parts):
            if own == part:
                found[index] = calibrated(networks[index].plain, model)
    return Tried(tuple(networks), tuple(found[index] for index in range(len(networks))))
