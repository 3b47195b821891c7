"""The few calls of the CUDA driver that neither pycuda nor PyTorch offers alike.

CUDA graphs captured from any library's work on a stream, an empty kernel, a device's attributes.
They go to the driver's library itself and work on the context that is current, whoever made it.
Signatures and numbers are those of cuda.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_int, c_uint, c_ulonglong, c_void_p
from functools import cache

from latlut.engines.device_errors import engine_error
from latlut.errors import EngineError

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_CAPTURE_THREAD_LOCAL = 1
_INTEGRATED, _L2_CACHE_SIZE, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 18, 38, 75, 76

#: A kernel that returns at once. The driver compiles it for whatever GPU is there.
_EMPTY_PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry latlut_empty()
{
    ret;
}
"""


@cache
def _library() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return library
    raise EngineError("the CUDA driver's library is not here: install NVIDIA's driver")


def call(name: str, *arguments: object) -> None:
    """Call a driver function and raise its text where it fails."""
    library = _library()
    code = getattr(library, name)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorString(c_int(code), byref(text))
        said = text.value.decode() if text.value else "unknown error"
        raise engine_error(f"{name} failed with {code}: {said}")


def driver_cuda_version() -> tuple[int, int] | None:
    """(major, minor) of the newest CUDA that the installed driver runs; None without a driver."""
    number = c_int()
    try:
        call("cuDriverGetVersion", byref(number))
    except EngineError:
        return None
    return number.value // 1000, number.value % 1000 // 10


def compute_capability(index: int) -> tuple[int, int]:
    """(major, minor) of the device that CUDA numbers ``index``."""
    return _attribute(index, _CAPABILITY_MAJOR), _attribute(index, _CAPABILITY_MINOR)


def l2_cache_bytes(index: int) -> int:
    """Size of the device's last-level cache; 0 where it has none."""
    return _attribute(index, _L2_CACHE_SIZE)


def is_integrated(index: int) -> bool:
    """Whether the device shares the host's memory, as a Jetson's does."""
    return _attribute(index, _INTEGRATED) != 0


def _attribute(index: int, attribute: int) -> int:
    handle, value = c_int(), c_int()
    call("cuInit", c_uint(0))
    call("cuDeviceGet", byref(handle), c_int(index))
    call("cuDeviceGetAttribute", byref(value), c_int(attribute), handle)
    return value.value


class CapturedGraph:
    """Work that was put on a stream once, to be launched as one.

    Args:
        stream: address of the stream, not the default one.
        enqueue: puts the work on the stream, without waiting for it.

    Raises:
        EngineError: something in the work cannot be captured.

    Source: CUDA driver API, Graph Management and Stream Management.
    """

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        graph, self._stream, self._executable = c_void_p(), c_void_p(stream), c_void_p()
        call("cuStreamBeginCapture_v2", self._stream, c_int(_CAPTURE_THREAD_LOCAL))
        try:
            enqueue()
        except BaseException:
            _library().cuStreamEndCapture(self._stream, byref(graph))
            if graph:
                _library().cuGraphDestroy(graph)
            raise
        call("cuStreamEndCapture", self._stream, byref(graph))
        try:
            call("cuGraphInstantiateWithFlags", byref(self._executable), graph, c_ulonglong(0))
        finally:
            _library().cuGraphDestroy(graph)

    def launch(self) -> None:
        """Put the whole graph on its stream."""
        call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Free it; may be called again."""
        if self._executable:
            _library().cuGraphExecDestroy(self._executable)
            self._executable = c_void_p()


class EmptyKernel:
    """A kernel that does nothing, loaded into the current context."""

    def __init__(self) -> None:
        self._module, self._function = c_void_p(), c_void_p()
        call("cuModuleLoadData", byref(self._module), ctypes.c_char_p(_EMPTY_PTX))
        call("cuModuleGetFunction", byref(self._function), self._module, b"latlut_empty")

    def launch(self, stream: int) -> None:
        """Put one launch of one thread on the stream."""
        one, none = c_uint(1), c_uint(0)
        call(
            "cuLaunchKernel", self._function, one, one, one, one, one, one, none,
            c_void_p(stream), None, None,
        )  # fmt: skip

    def close(self) -> None:
        """Unload it; may be called again."""
        if self._module:
            _library().cuModuleUnload(self._module)
            self._module = c_void_p()
