"""A stream on a GPU and the events that times are read from."""

from __future__ import annotations

from typing import Any, Protocol


class Timeline(Protocol):
    """A stream and its events; ``DeviceMemory`` is one."""

    def event(self) -> Any: ...
    def record(self, event: Any) -> None: ...
    def elapsed_ms(self, start: Any, end: Any) -> float: ...
    def synchronize(self) -> None: ...


class TorchTimeline:
    """A ``torch.cuda.Stream`` of the current device and PyTorch's events."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def event(self) -> Any:
        """A new event that takes time."""
        import torch

        return torch.cuda.Event(enable_timing=True)

    def record(self, event: Any) -> None:
        """Put the event on the stream."""
        event.record(self._stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that have passed."""
        return float(start.elapsed_time(end))

    def synchronize(self) -> None:
        """Wait until the stream is done."""
        self._stream.synchronize()
