"""The CUDA driver's own list of devices: which number has the GPU of a UUID?

Engines outside PyTorch take a device by CUDA's number, which follows CUDA_VISIBLE_DEVICES and
CUDA_DEVICE_ORDER and need not be the number that the driver's tools show. The UUID is the same
everywhere, so the number is looked up by it, through the driver's library alone.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from uuid import UUID

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")


@dataclass(frozen=True)
class CudaDevice:
    """A device as CUDA numbers it in this process; ``uuid`` reads ``GPU-...``."""

    index: int
    uuid: str
    name: str


def cuda_devices() -> list[CudaDevice]:
    """The devices that CUDA shows to this process; empty, never an error, where there is none.

    Source: CUDA driver API, sections Initialization and Device Management.
    """
    library = _library()
    if library is None or library.cuInit(0) != 0:
        return []
    count = ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    devices = []
    for index in range(count.value):
        handle, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        name = ctypes.create_string_buffer(256)
        answers = (
            library.cuDeviceGet(ctypes.byref(handle), index),
            library.cuDeviceGetUuid(ctypes.byref(raw), handle),
            library.cuDeviceGetName(name, len(name), handle),
        )
        if any(answers):
            continue
        devices.append(CudaDevice(index, f"GPU-{UUID(bytes=bytes(raw))}", name.value.decode()))
    return devices


def _library() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
