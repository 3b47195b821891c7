"""The CUDA driver's own list of devices: which number has the GPU of a UUID?

Engines outside PyTorch take a device by CUDA's number, which follows CUDA_VISIBLE_DEVICES and
CUDA_DEVICE_ORDER and need not be the number that the driver's tools show. The UUID is the same
everywhere, so the number is looked up by it, through the driver's library alone.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_int
from dataclasses import dataclass
from uuid import UUID

from latlut.engines.base import Device
from latlut.engines.cuda.driver import call
from latlut.errors import EngineError
from latlut.machine.gpus import driver_of


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
    count = c_int()
    try:
        call("cuInit", 0)
        call("cuDeviceGetCount", byref(count))
    except EngineError:
        return []
    devices = []
    for index in range(count.value):
        handle, raw, name = c_int(), (ctypes.c_ubyte * 16)(), ctypes.create_string_buffer(256)
        try:
            call("cuDeviceGet", byref(handle), index)
            call("cuDeviceGetUuid", byref(raw), handle)
            call("cuDeviceGetName", name, len(name), handle)
        except EngineError:
            continue
        devices.append(CudaDevice(index, f"GPU-{UUID(bytes=bytes(raw))}", name.value.decode()))
    return devices


def device_names() -> tuple[str, ...]:
    """What engines call those devices, ``("cuda:0", "cuda:1")``."""
    return tuple(f"cuda:{device.index}" for device in cuda_devices())


def find_device(name: str) -> Device | None:
    """The GPU that is called ``name``, ``cuda:0`` or by its UUID; None where there is none."""
    for device in cuda_devices():
        called = f"cuda:{device.index}"
        if is_called(name, called, device.uuid):
            driver = driver_of(device.uuid, name) or "unknown"
            return Device(called, device.name, driver, device.uuid)
    return None


def cuda_index(device: Device) -> int:
    """CUDA's number of a GPU, 1 of ``cuda:1``."""
    return int(device.name.removeprefix("cuda:"))


def is_called(name: str, called: str, uuid: str) -> bool:
    """Whether ``name`` is that device. A Jetson's GPU has no UUID in the driver's tools."""
    return name in (called, uuid, "integrated")
