"""Durations on a GPU by its own events, hot or with a flushed cache, and the shortest it can show.

Two events per run on one stream: the time between them is the GPU's. Where the host enqueues more
slowly than the GPU works, the second event waits for the host and the run reads as long as the
enqueuing; the launch floor, the same reading of a kernel that does nothing, shows where that is.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from latlut.engines.cuda.driver import CapturedGraph, EmptyKernel
from latlut.engines.cuda.memory import DeviceBuffer, DeviceMemory

#: Runs that are put on the stream before waiting for them.
_IN_FLIGHT = 64
_FLOOR_RUNS = 200


class GpuClock:
    """Times what is put on a GPU's stream.

    All calls are made inside ``with memory.current():``.

    Args:
        memory: the GPU's memory and stream.
        flushed_bytes: size of a buffer that is overwritten before each run, outside its events:
            twice the cache's size makes every run find a cold cache. 0 leaves it as it is.
    """

    def __init__(self, memory: DeviceMemory, flushed_bytes: int = 0) -> None:
        self.memory = memory
        self._flushed_bytes = flushed_bytes
        self._flushed: DeviceBuffer | None = None
        self._events: list[Any] = []

    def durations_ns(self, launch: Callable[[], None], count: int) -> np.ndarray:
        """Time ``count`` launches: (count,) int64, nanoseconds.

        Args:
            launch: puts one run on the memory's stream, without waiting.
            count: at least 1.
        """
        memory = self.memory
        if self._flushed_bytes and self._flushed is None:
            self._flushed = memory.allocate(self._flushed_bytes)
        while len(self._events) < 2 * min(count, _IN_FLIGHT):
            self._events.append(memory.event())
        starts, ends = self._events[::2], self._events[1::2]
        durations = np.empty(count, dtype=np.int64)
        for first in range(0, count, _IN_FLIGHT):
            size = min(_IN_FLIGHT, count - first)
            for index in range(size):
                if self._flushed is not None:
                    memory.clear(self._flushed)
                memory.record(starts[index])
                launch()
                memory.record(ends[index])
            memory.synchronize()
            for index in range(size):
                span_ms = memory.elapsed_ms(starts[index], ends[index])
                durations[first + index] = round(span_ms * 1e6)
        return durations

    def floor_ms(self, *, is_replayed: bool) -> float:
        """The median duration of an empty kernel, in milliseconds.

        Args:
            is_replayed: whether it is launched from a CUDA graph, as the runs are.
        """
        kernel, stream = EmptyKernel(), self.memory.stream

        def launch() -> None:
            kernel.launch(stream)

        graph = None
        try:
            launch()
            self.memory.synchronize()
            if is_replayed:
                graph = CapturedGraph(stream, launch)
            durations = self.durations_ns(graph.launch if graph else launch, _FLOOR_RUNS)
        finally:
            if graph is not None:
                graph.close()
            kernel.close()
        return float(np.median(durations)) / 1e6


def torch_durations_ns(launch: Callable[[], object], count: int, stream: Any) -> np.ndarray:
    """Time ``count`` launches by PyTorch's events, one between every two: (count,) int64, ns.

    Args:
        launch: puts one run on the stream, without waiting.
        count: at least 1.
        stream: a ``torch.cuda.Stream`` of the current device.
    """
    import torch

    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record(stream)
    for event in events[1:]:
        launch()
        event.record(stream)
    stream.synchronize()
    spans_ms = [before.elapsed_time(after) for before, after in pairwise(events)]
    return np.asarray([round(span_ms * 1e6) for span_ms in spans_ms], dtype=np.int64)
