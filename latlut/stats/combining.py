"""One value per entry from its readings over passes, builds and devices.

``stats.passes`` has passes alone, ``stats.builds`` several builds, ``stats.devices`` what several
devices add.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from latlut.stats.builds import CombinedBuilds, separate_builds
from latlut.stats.devices import device_term
from latlut.stats.passes import centres, log_readings_at_usual_speed


@dataclass(frozen=True)
class CombinedReadings(CombinedBuilds):
    """Entries from several passes, builds and devices; arrays of length E.

    ``half_width`` holds all three sources.
    """

    device_half_width: np.ndarray
    """What of it comes from devices, NaN where there is one."""
    device_sd: np.ndarray
    """Standard deviation from device to device, NaN where there is one."""
    devices: np.ndarray
    """How many devices an entry was measured on."""


def combine_readings(
    readings: np.ndarray,
    builds: np.ndarray,
    speeds: np.ndarray | None = None,
    devices: np.ndarray | None = None,
) -> CombinedReadings:
    """One value per entry from its readings in several passes.

    ``combine_values`` of log readings at the machine's usual speed; the value is exp of its.

    Args:
        readings: (E, P) positive, NaN where an entry was not measured in a pass.
        builds: (E, P) int, number of the build that was measured; ignored where there is none.
        speeds: (E, P) how slow the machine was beside each reading, 1 is usual; NaN if unknown.
        devices: (E, P) int, number of the device that was measured on; one if not given.

    Raises:
        SpecError: a reading is not positive, or shapes differ.
    """
    logs, elasticity = log_readings_at_usual_speed(readings, speeds)
    found = combine_values(logs, builds, devices)
    return replace(found, value=np.exp(found.value), elasticity=elasticity)


def combine_values(
    values: np.ndarray, builds: np.ndarray, devices: np.ndarray | None = None
) -> CombinedReadings:
    """``builds_or_centres``, and what several devices add to its interval.

    Args:
        values: (E, P), NaN where an entry was not measured in a pass.
        builds: (E, P) int, number of the build that was measured.
        devices: (E, P) int, number of the device that was measured on; one if not given.
    """
    found = builds_or_centres(values, builds)
    unknown = np.full(len(values), math.nan)
    term = None if devices is None else device_term(values, devices)
    if term is None:
        return CombinedReadings(**vars(found), device_half_width=unknown, device_sd=unknown,
                                devices=np.ones(len(values), dtype=int))  # fmt: skip
    wider = np.hypot(found.half_width, np.nan_to_num(term.missing))
    return CombinedReadings(
        **vars(replace(found, half_width=wider)),
        device_half_width=term.half_width,
        device_sd=term.sd,
        devices=term.devices,
    )


def builds_or_centres(values: np.ndarray, builds: np.ndarray) -> CombinedBuilds:
    """``separate_builds`` where any entry has several, else ``stats.passes.centres`` of all.

    Nothing is known of the spreads of builds in the second case.
    """
    if (builds[np.isfinite(values)] > 0).any():
        found = separate_builds(values, builds)
        if np.isfinite(found.half_width).any():
            return found
    plain = centres(values)
    unknown, ones = np.full(len(values), math.nan), np.ones(len(values), dtype=int)
    return CombinedBuilds(plain.value, plain.half_width, unknown, unknown, unknown, ones, 0.0)
