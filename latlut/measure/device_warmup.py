"""A GPU is kept busy until its clock is steady, before anything on it is timed.

An idle GPU runs at low clocks, and raises them over tens to hundreds of milliseconds of work. That
is longer than an operator's own warm-up, and two short windows can agree on the way up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from latlut.engines.base import Engine
from latlut.machine.gpu_state import GpuMonitor
from latlut.measure.timing import SampleNs

#: Busy at least this long, and at most, seconds of run time. As trtexec's warm-up and duration.
BUSY_S, CAP_S = 0.2, 3.0
#: Run time between two readings of the clock.
WINDOW_S = 0.05
#: The clock is steady when this many readings in a row differ by no more than this share.
READINGS, STEADY = 3, 0.02

#: Reads a GPU's clock in MHz; None where the driver does not tell it.
ClockMhz = Callable[[], int | None]


@dataclass(frozen=True)
class DeviceWarmUp:
    """How a GPU was warmed up."""

    busy_s: float
    """Run time that it took, seconds."""
    is_steady: bool
    """Whether the clock settled; True where nothing tells it."""
    clocks_mhz: tuple[int, ...]
    """The readings."""


def warm_device(samplers: Sequence[SampleNs], clock_mhz: ClockMhz) -> DeviceWarmUp:
    """Run in turns until the clock is steady or ``CAP_S`` are spent.

    Args:
        samplers: of what is going to be timed, at least one.
        clock_mhz: the GPU's clock.
    """
    busy_s, clocks = 0.0, list[int]()
    for sampler in cycle(samplers):
        run_s = max(1e-9, float(sampler(1)[0]) / 1e9)
        window = sampler(int(np.clip(WINDOW_S / run_s, 1, 10_000)))
        busy_s += run_s + float(window.sum()) / 1e9
        if (reading := clock_mhz()) is not None:
            clocks.append(reading)
        is_steady = not clocks or _is_steady(clocks[-READINGS:])
        if busy_s >= CAP_S or (busy_s >= BUSY_S and is_steady):
            return DeviceWarmUp(busy_s, is_steady, tuple(clocks))
    raise ValueError("nothing to warm the GPU up with")


def _is_steady(readings: Sequence[int]) -> bool:
    return len(readings) == READINGS and max(readings) - min(readings) <= STEADY * max(readings)


@contextmanager
def clock_of(engine: Engine) -> Iterator[ClockMhz | None]:
    """Gives what reads the clock of the engine's GPU; None for an engine on a CPU."""
    if not engine.device.uuid:
        yield None
        return
    with GpuMonitor(engine.device.uuid) as monitor:
        yield monitor.sm_mhz
