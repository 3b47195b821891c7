"""A GPU by script: a host clock, a stream that works one after the other, and events on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class ScriptedEvent:
    """When the stream reached it, nanoseconds; None while it was not recorded."""

    at_ns: float | None = None


@dataclass
class ScriptedGpu:
    """``enqueue_ns`` of the host per launch, ``kernel_ns`` of the GPU; events cost neither.

    ``tick_ns`` is the step of the events. Implements ``engines.cuda.clock.Timeline``.
    """

    enqueue_ns: float
    kernel_ns: float
    tick_ns: float = 0.0
    queue: int = 1024
    host_ns: float = 0.0
    done_ns: float = 0.0
    launches: int = 0
    waits: int = 0

    def clock_ns(self) -> int:
        return round(self.host_ns)

    def work(self, duration_ns: float, enqueue_ns: float = 0.0) -> None:
        """Put work on the stream; it begins when the host has enqueued it and the rest is done."""
        self.host_ns += enqueue_ns
        # A full queue: the host waits for the oldest of it.
        self.host_ns = max(self.host_ns, self.done_ns - self.queue * max(duration_ns, 1.0))
        self.done_ns = max(self.done_ns, self.host_ns) + duration_ns

    def launch(self) -> None:
        self.launches += 1
        self.work(self.kernel_ns, self.enqueue_ns)

    def event(self) -> ScriptedEvent:
        return ScriptedEvent()

    def record(self, event: ScriptedEvent) -> None:
        at_ns = max(self.done_ns, self.host_ns)
        event.at_ns = np.floor(at_ns / self.tick_ns) * self.tick_ns if self.tick_ns else at_ns

    def elapsed_ms(self, start: ScriptedEvent, end: ScriptedEvent) -> float:
        assert start.at_ns is not None and end.at_ns is not None
        return (end.at_ns - start.at_ns) / 1e6

    def synchronize(self) -> None:
        self.waits += 1
        self.host_ns = max(self.host_ns, self.done_ns)
