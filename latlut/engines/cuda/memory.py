"""Device memory, one stream and events of a GPU: through pycuda, else through PyTorch.

TensorRT brings none of its own. pycuda is taken where it can be imported; which of both a run used
is among its facts. Both work in the device's primary context, the one that TensorRT uses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from latlut.engines.cuda.timeline import TorchTimeline
from latlut.errors import EngineError


class DeviceBuffer(NamedTuple):
    """Memory on the device: where it is, how large, and what keeps it alive."""

    address: int
    nbytes: int
    owner: Any


class DeviceMemory(ABC):
    """One GPU's memory and one stream on it.

    All calls but ``current`` are made inside ``with memory.current():``. Copies and clearing are
    put on the stream; ``synchronize`` waits for them.
    """

    title: str
    """What provides it, with version: ``pycuda 2025.1``."""
    stream: int
    """The stream's address, as TensorRT takes it."""

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Make the GPU the current one of this thread for a block."""

    @abstractmethod
    def allocate(self, nbytes: int) -> DeviceBuffer:
        """A buffer of at least one byte, freed when nothing refers to it."""

    @abstractmethod
    def upload(self, buffer: DeviceBuffer, array: np.ndarray) -> None:
        """Copy a contiguous array to the device."""

    @abstractmethod
    def download(self, buffer: DeviceBuffer, array: np.ndarray) -> None:
        """Copy from the device into a contiguous array; returns when it is there."""

    @abstractmethod
    def clear(self, buffer: DeviceBuffer) -> None:
        """Write zeros all over a buffer."""

    @abstractmethod
    def event(self) -> Any:
        """A new event that takes time."""

    @abstractmethod
    def record(self, event: Any) -> None:
        """Put the event on the stream."""

    @abstractmethod
    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that have passed."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the stream is done."""


class PycudaMemory(DeviceMemory):
    """Through pycuda; ``index`` is CUDA's number of the device.

    Source: PyCUDA documentation, "Device Interface Reference".
    """

    def __init__(self, index: int) -> None:
        import pycuda
        import pycuda.driver as driver

        driver.init()
        self.title = f"pycuda {pycuda.VERSION_TEXT}"
        self._driver: Any = driver
        self._context: Any = driver.Device(index).retain_primary_context()
        with self.current():
            self._stream: Any = driver.Stream()
        self.stream = int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, nbytes: int) -> DeviceBuffer:
        owner = self._driver.mem_alloc(max(1, nbytes))
        return DeviceBuffer(int(owner), nbytes, owner)

    def upload(self, buffer: DeviceBuffer, array: np.ndarray) -> None:
        self._driver.memcpy_htod_async(buffer.owner, array, self._stream)

    def download(self, buffer: DeviceBuffer, array: np.ndarray) -> None:
        self._driver.memcpy_dtoh_async(array, buffer.owner, self._stream)
        self.synchronize()

    def clear(self, buffer: DeviceBuffer) -> None:
        self._driver.memset_d8_async(buffer.address, 0, buffer.nbytes, self._stream)

    def event(self) -> Any:
        return self._driver.Event()

    def record(self, event: Any) -> None:
        event.record(self._stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(start.time_till(end))

    def synchronize(self) -> None:
        self._stream.synchronize()


class TorchMemory(TorchTimeline, DeviceMemory):
    """Through PyTorch's CUDA build; ``index`` is CUDA's number of the device."""

    def __init__(self, index: int) -> None:
        import torch

        self.title = f"torch {torch.__version__}"
        self._torch: Any = torch
        self._device = torch.device("cuda", index)
        super().__init__(torch.cuda.Stream(self._device))
        self.stream = int(self._stream.cuda_stream)

    @contextmanager
    def current(self) -> Iterator[None]:
        with self._torch.cuda.device(self._device), self._torch.cuda.stream(self._stream):
            yield

    def allocate(self, nbytes: int) -> DeviceBuffer:
        owner = self._torch.empty(max(1, nbytes), dtype=self._torch.uint8, device=self._device)
        return DeviceBuffer(int(owner.data_ptr()), nbytes, owner)

    def upload(self, buffer: DeviceBuffer, array: np.ndarray) -> None:
        content = self._torch.from_numpy(array.reshape(-1).view(np.uint8))
        buffer.owner[: content.numel()].copy_(content)

    def download(self, buffer: DeviceBuffer, array: np.ndarray) -> None:
        content = self._torch.from_numpy(array.reshape(-1).view(np.uint8))
        content.copy_(buffer.owner[: content.numel()])
        self.synchronize()

    def clear(self, buffer: DeviceBuffer) -> None:
        buffer.owner.zero_()


def memory_type() -> type[DeviceMemory] | None:
    """What can provide device memory here: pycuda, else PyTorch, else None."""
    try:
        import_module("pycuda.driver")
        return PycudaMemory
    except (ImportError, OSError):
        pass
    import torch

    return TorchMemory if torch.cuda.is_available() else None


def open_memory(index: int) -> DeviceMemory:
    """The memory of the device that CUDA numbers ``index``.

    Raises:
        EngineError: neither pycuda nor a PyTorch for CUDA is here.
    """
    found = memory_type()
    if found is None:
        raise EngineError(NO_MEMORY)
    return found(index)  # type: ignore[call-arg]  # the base has no device


NO_MEMORY = (
    "neither pycuda nor a PyTorch with CUDA is here to hold device memory: install PyTorch's build "
    "for CUDA, or pip install 'latlut[pycuda]' (compiled on this machine with a CUDA toolkit)"
)
