"""What differs between devices of one model, apart from what differs within one.

Readings of an entry on the same device have an effect in common,

    x_edp = mu_e + D_ed + W_edp,    D_ed ~ (0, device variance of e),    W_edp ~ (0, pass variance)

as those on one build have (``stats.builds``). The spread between an entry's passes knows a part of
it: all where each was on a device of its own, nothing where all were on one. What is missing is
added to the interval, so that it is one of the model and not of the devices that were measured.

Symbols: E entries, P passes, n_e readings of an entry, k_e the sum over devices of (their share of
the readings)^2: 1 over their number where all have as many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latlut.stats.builds import separate_builds
from latlut.stats.quantiles import student_95


@dataclass(frozen=True)
class DeviceTerm:
    """What devices have in the intervals of entries; arrays of length E, NaN where unknown."""

    missing: np.ndarray
    """half-width that the spread between passes does not know."""
    half_width: np.ndarray
    """What of the interval comes from devices."""
    sd: np.ndarray
    """Standard deviation from device to device."""
    devices: np.ndarray
    """How many an entry was measured on."""


def device_term(values: np.ndarray, devices: np.ndarray) -> DeviceTerm | None:
    """The term of devices; None where there is one device.

    With s_e^2 the device variance (``stats.builds.separate_builds``, moderated over all entries)
    the variance that n readings have from devices is s^2 k, and their spread shows
    s^2 (1 - k) / (n - 1) of it:

        missing_e = t s_e sqrt((k_e n_e - 1) / (n_e - 1)),    half_width_e = t s_e sqrt(k_e)

    Args:
        values: (E, P) log readings at the usual speed, or shares; NaN where there is none.
        devices: (E, P) int, number of the device that was measured on.
    """
    known = np.isfinite(values)
    numbers = np.unique(devices[known])
    if len(numbers) < 2:
        return None
    counts = np.array([(known & (devices == number)).sum(axis=1) for number in numbers])
    n = np.maximum(counts.sum(axis=0), 1)
    concentration = ((counts / n) ** 2).sum(axis=0)
    apart = separate_builds(values, devices)
    one = apart.build_half_width * np.sqrt(apart.builds)
    missing = np.where(n > 1, (concentration * n - 1) / np.maximum(n - 1, 1), 1.0)
    return DeviceTerm(
        one * np.sqrt(np.maximum(missing, 0.0)),
        one * np.sqrt(concentration),
        apart.build_sd,
        (counts > 0).sum(axis=0),
    )


def level_half_width(speeds: np.ndarray, devices: np.ndarray) -> float:
    """Relative 95% half-width of the model's level, from how much its devices' speeds differ.

    Args:
        speeds: (P,) mean speed in each pass, 1 is usual.
        devices: (P,) number of the device of each pass.

    Returns:
        t(0.975, D - 1) * std(mean log speed of each device) / sqrt(D); NaN for one device.
    """
    numbers = np.unique(devices)
    if len(numbers) < 2:
        return math.nan
    levels = np.array([np.log(speeds[devices == number]).mean() for number in numbers])
    spread = float(levels.std(ddof=1)) / math.sqrt(len(numbers))
    return float(student_95(len(numbers) - 1)) * spread
