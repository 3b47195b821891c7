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
from latlut.engines.cuda.driver import call, is_integrated
from latlut.errors import EngineError
from latlut.machine.gpus import driver_of, integrated_uuids
from latlut.machine.targets import is_part_of_gpu


@dataclass(frozen=True)
class CudaDevice:
    """A device as CUDA numbers it in this process; ``uuid`` reads ``GPU-...``, or ``MIG-...``
    for an instance of a GPU that is split.
    """

    index: int
    uuid: str
    name: str
    is_integrated: bool = False


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
            call("cuDeviceGetName", name, len(name), handle)
            model = name.value.decode()
            is_instance = is_part_of_gpu(model) and " mig " in f" {model.lower()} "
            # The first version gives an instance the UUID of the GPU that it is a part of.
            call("cuDeviceGetUuid_v2" if is_instance else "cuDeviceGetUuid", byref(raw), handle)
            shares_memory = is_integrated(index)
        except (EngineError, AttributeError):  # a driver before CUDA 11.4 has no _v2
            continue
        uuid = f"{'MIG' if is_instance else 'GPU'}-{UUID(bytes=bytes(raw))}"
        devices.append(CudaDevice(index, uuid, model, shares_memory))
    return devices


def device_names() -> tuple[str, ...]:
    """What engines call those devices, ``("cuda:0", "cuda:1")``."""
    return tuple(f"cuda:{device.index}" for device in cuda_devices())


def find_device(name: str) -> Device | None:
    """The GPU that is called ``name``, ``cuda:0`` or by its UUID; None where there is none."""
    for device in cuda_devices():
        called = f"cuda:{device.index}"
        if is_called(name, called, device.uuid, device.is_integrated):
            driver = driver_of(*driver_uuids(device.uuid, device.is_integrated)) or "unknown"
            return Device(called, device.name, driver, device.uuid)
    return None


def cuda_index(device: Device) -> int:
    """CUDA's number of a GPU, 1 of ``cuda:1``."""
    return int(device.name.removeprefix("cuda:"))


def is_called(name: str, called: str, uuid: str, is_integrated: bool) -> bool:
    """Whether ``name`` is that device, by CUDA's number or by a UUID of CUDA or the driver."""
    return name == called or name in driver_uuids(uuid, is_integrated)


def driver_uuids(uuid: str, is_integrated: bool) -> tuple[str, ...]:
    """The UUIDs under which the driver's tools may know CUDA's device ``uuid``.

    They agree but for an integrated GPU, of which a machine has one: there the driver's tools
    have a UUID of their own, or none and latlut says "integrated".
    """
    return (uuid, *integrated_uuids()) if is_integrated else (uuid,)
