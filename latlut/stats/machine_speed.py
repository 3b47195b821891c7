"""How slow a shared machine was, from sentinels: op specs that are timed throughout.

A sentinel's usual reading is the median of all its readings; what was measured beside some of them
was measured at a speed of the geometric mean of these over the usual ones. 1 is usual, more is
slower. What other processes took of the CPU is its own number: sentinels that are disturbed all the
time look usual.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

import numpy as np

Sentinel = TypeVar("Sentinel", bound=Hashable)

#: Below this share of the CPU latencies may be too high: others took the rest. On two virtual CPUs
#: ONNX Runtime, OpenVINO and PyTorch with 1 and 2 threads had 0.986 to 1 when they were alone, and
#: 0.49 to 0.75 beside one busy process on one of their CPUs.
LEAST_CPU_SHARE = 0.95


def is_disturbed(share: float | None) -> bool:
    """Whether a share of the CPU is known and too small."""
    return share is not None and share < LEAST_CPU_SHARE


#: From this share of a run's time on, what the host takes to launch it may be what is timed on a
#: GPU. Source: trtexec, which remarks on an enqueue time of more than 0.8 of the GPU's.
MOST_HOST_SHARE = 0.8


def is_host_bound(share: float | None) -> bool:
    """Whether the host's share of a run on a GPU is known and too large."""
    return share is not None and share > MOST_HOST_SHARE


def usual_readings(readings: Iterable[tuple[Sentinel, float]]) -> dict[Sentinel, float]:
    """Each sentinel's usual reading, from all its readings; in their unit."""
    by_sentinel: dict[Sentinel, list[float]] = {}
    for sentinel, reading in readings:
        by_sentinel.setdefault(sentinel, []).append(reading)
    return {sentinel: float(np.median(values)) for sentinel, values in by_sentinel.items()}


def relative_speed(readings: Iterable[tuple[float, float]]) -> float:
    """The machine's speed beside sentinels; NaN where there are none.

    Args:
        readings: of each sentinel what it took and what it usually takes.
    """
    ratios = [reading / usual for reading, usual in readings]
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else float("nan")
