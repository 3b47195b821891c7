"""How much of the CPU the measuring process got while it timed something.

A statistic that is low, such as the 10th percentile, hides interruptions that are rare, not a
process that takes turns with ours all the time. Sentinels do not show it either where it runs as
long as the whole measurement. So the time on a CPU is compared with the time that went by.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from latlut.engines.base import Engine
from latlut.machine.cpu import cpu_times
from latlut.stats.machine_speed import is_disturbed


@dataclass
class CpuShare:
    """What a block got of the CPUs that it could have had."""

    value: float | None = None
    """0 to 1; None where it is not known: on a GPU, inside the block, or where nothing tells it."""

    @property
    def is_disturbed(self) -> bool:
        """Whether others took more than they may."""
        return is_disturbed(self.value)


def disturbed_text(share: float) -> str:
    """What a person is told."""
    return (
        f"disturbed: other processes took {100 * (1 - share):.0f}% of the CPU meanwhile, latencies "
        "may be too high; measure again when the machine is quiet (--wait waits for that)"
    )


@contextmanager
def watching_cpu(engine: Engine) -> Iterator[CpuShare]:
    """Gives the share that the block got of the CPU, once it has ended.

    Of one thread it is the process's CPU time over the wall time. Of several, which may rightly
    idle, it is what other processes left of the CPUs that the process is pinned to. Time that a
    hypervisor took counts as taken by others.

    Args:
        engine: that is timed in the block.
    """
    share = CpuShare()
    if engine.device.name != "cpu":
        yield share
        return
    cpus = _own_cpus()
    before = _Moment.now(cpus)
    yield share
    share.value = _share(before, _Moment.now(cpus), engine.threads, len(cpus))


@dataclass(frozen=True)
class _Moment:
    """Clocks at one moment, seconds.

    ``busy_s`` and ``stolen_s`` are of the process's CPUs together, None where the kernel does not
    count them.
    """

    wall_s: float
    own_s: float
    busy_s: float | None = None
    stolen_s: float | None = None

    @classmethod
    def now(cls, cpus: Sequence[int]) -> _Moment:
        busy_s = stolen_s = None
        with suppress(OSError, ValueError, IndexError, KeyError):
            busy_s, stolen_s = cpu_times(cpus)
        return cls(time.perf_counter(), time.process_time(), busy_s, stolen_s)


def _own_cpus() -> tuple[int, ...]:
    """The CPUs that any thread of the process may run on: engines pin threads on their own."""
    found: set[int] = set()
    with suppress(AttributeError, OSError):  # not on every system
        for task in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):
                found |= os.sched_getaffinity(int(task.name))
    return tuple(sorted(found))


def _share(before: _Moment, after: _Moment, threads: int, cpus: int) -> float | None:
    wall_s, own_s = after.wall_s - before.wall_s, after.own_s - before.own_s
    if wall_s <= 0:
        return None
    lost = 0.0
    if before.busy_s is not None and after.busy_s is not None and cpus:
        stolen_s = (after.stolen_s or 0.0) - (before.stolen_s or 0.0)
        lost = stolen_s / (wall_s * cpus)
        if threads > 1 and cpus == threads:
            others_s = after.busy_s - before.busy_s - own_s
            lost += max(0.0, others_s) / (wall_s * cpus)
    if threads == 1:
        return max(0.0, min(own_s / wall_s, 1.0 - lost))
    # Of threads that are not pinned one by one what a hypervisor took is all that is known.
    return max(0.0, min(1.0, 1.0 - lost)) if cpus == threads or lost > 0 else None
