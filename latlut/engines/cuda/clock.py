"""Durations on a GPU by its own events, hot or with a flushed cache, and the shortest it can show.

Two events around each reading, on one stream: the time between them is the GPU's. Where the host
enqueues more slowly than the GPU works, the second event waits for the host and the run reads as
long as the enqueuing. How long the host took is therefore measured beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from latlut.engines.cuda.driver import CapturedGraph, EmptyKernel
from latlut.engines.cuda.memory import DeviceBuffer, DeviceMemory
from latlut.engines.cuda.timeline import Timeline
from latlut.engines.resolution import EVENT_TICK_S, Resolution

#: Readings that are put on the stream before waiting for them.
_IN_FLIGHT = 64
#: Readings after such a wait whose enqueuing is timed: later ones may wait for a full queue.
_UNBLOCKED = 3
_FLOOR_READINGS = 200
#: What a GPU is kept busy with before its launch floor is read: clearing this much, this long.
_BUSY_BYTES = 32 << 20
_BUSY_S = 0.2


class CacheFlush:
    """Overwrites a buffer on the memory's stream, so that nothing else is in the cache."""

    def __init__(self, memory: DeviceMemory, nbytes: int) -> None:
        self._memory, self._nbytes = memory, nbytes
        self._buffer: DeviceBuffer | None = None

    def __call__(self) -> None:
        if self._buffer is None:
            self._buffer = self._memory.allocate(self._nbytes)
        self._memory.clear(self._buffer)


class Timed(NamedTuple):
    """What readings took per run."""

    durations_ns: np.ndarray
    """(n,) int64, nanoseconds."""
    host_ns: float
    """What the host took to enqueue a run, median, nanoseconds."""

    @property
    def host_share(self) -> float:
        """The host's time over the run's own."""
        return self.host_ns / max(1.0, float(np.median(self.durations_ns)))


class GpuClock:
    """Times what is put on a GPU's stream; the GPU is current during every call.

    Args:
        timeline: the stream.
        flush: put on the stream before each reading, outside its events; None leaves caches hot.
        host_clock_ns: the host's.
    """

    def __init__(
        self,
        timeline: Timeline,
        flush: Callable[[], None] | None = None,
        host_clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._timeline, self._flush, self._host_clock_ns = timeline, flush, host_clock_ns
        self._events: list[Any] = []

    @property
    def resolution(self) -> Resolution:
        """The events' tick; after a flush only the first run finds a cold cache."""
        return Resolution(EVENT_TICK_S, can_average=self._flush is None)

    def time(self, launch: Callable[[], object], count: int, runs: int = 1) -> Timed:
        """``count`` readings, each the mean of ``runs`` launches in a row.

        A flush keeps the GPU busy while the host enqueues what follows. A reading is therefore at
        least what the host took: without a flush the next run could not have begun earlier either.

        Args:
            launch: puts one run on the stream, without waiting.
            count: at least 1.
            runs: launches between two events, at least 1.
        """
        timeline, clock = self._timeline, self._host_clock_ns
        while len(self._events) < 2 * min(count, _IN_FLIGHT):
            self._events.append(timeline.event())
        starts, ends = self._events[::2], self._events[1::2]
        durations = np.empty(count, dtype=np.int64)
        hosts: list[float] = []
        for first in range(0, count, _IN_FLIGHT):
            size = min(_IN_FLIGHT, count - first)
            for index in range(size):
                if self._flush is not None:
                    self._flush()
                timeline.record(starts[index])
                started = clock()
                for _ in range(runs):
                    launch()
                timeline.record(ends[index])
                if index < _UNBLOCKED:
                    hosts.append((clock() - started) / runs)
            timeline.synchronize()
            for index in range(size):
                span_ms = timeline.elapsed_ms(starts[index], ends[index])
                durations[first + index] = round(span_ms * 1e6 / runs)
        host_ns = float(np.median(hosts))
        if self._flush is not None:
            durations = np.maximum(durations, round(host_ns))
        return Timed(durations, host_ns)


def launch_floor_ms(memory: DeviceMemory, *, is_replayed: bool) -> float:
    """The median duration of an empty kernel on a warm GPU with hot caches, in milliseconds.

    Args:
        memory: of the GPU, which is current.
        is_replayed: whether it is launched from a CUDA graph, as the runs are.
    """
    kernel, stream, clock = EmptyKernel(), memory.stream, GpuClock(memory)

    def launch() -> None:
        kernel.launch(stream)

    graph = None
    try:
        launch()
        memory.synchronize()
        if is_replayed:
            graph = CapturedGraph(stream, launch)
        run = graph.launch if graph else launch
        _keep_busy(memory)
        first_ns = float(np.median(clock.time(run, _FLOOR_READINGS).durations_ns))
        runs = clock.resolution.runs_per_reading(first_ns / 1e9)
        durations = clock.time(run, _FLOOR_READINGS, runs).durations_ns
    finally:
        if graph is not None:
            graph.close()
        kernel.close()
    return float(np.median(durations)) / 1e6


def _keep_busy(memory: DeviceMemory) -> None:
    """Let the clocks rise: an idle GPU has low ones."""
    buffer = memory.allocate(_BUSY_BYTES)
    end = time.perf_counter() + _BUSY_S
    while time.perf_counter() < end:
        for _ in range(_IN_FLIGHT):
            memory.clear(buffer)
        memory.synchronize()
