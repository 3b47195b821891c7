"""TensorRT and TensorRT for RTX on an NVIDIA GPU: what is there, and what can be set."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar

from latlut.engines.base import Availability, Device, EngineOption, Session
from latlut.engines.cuda.devices import cuda_devices, cuda_index, device_names, find_device
from latlut.engines.cuda.driver import compute_capability, driver_cuda_version
from latlut.engines.cuda.graphs import CUDA_GRAPH
from latlut.engines.cuda.memory import NO_MEMORY, memory_type
from latlut.engines.tensorrt.build import check_capability, release_of
from latlut.engines.tensorrt.library import TensorRtLibrary
from latlut.engines.tensorrt.session import PlanSession, TensorRtSession
from latlut.engines.tensorrt.versions import INSTALL_8_6, OLDEST, Release
from latlut.errors import EngineError
from latlut.machine.gpus import gpu_absence_reason
from latlut.operators.workloads import Workload

_OPTIONS = {
    "cuda_graph": CUDA_GRAPH,
    "cold_l2": EngineOption(("off", "on"), "flush the GPU's cache before each run, untimed"),
    "tf32": EngineOption(("off", "on"), "TF32 arithmetic for fp32"),
    "workspace_mib": EngineOption(
        ("all", "16", "64", "256", "1024", "4096"), "scratch memory of a layer, MiB"
    ),
    "optimization_level": EngineOption(
        ("3", "0", "1", "2", "4", "5"), "effort of the builder, 0 to 5"
    ),
}


class TensorRtEngine(TensorRtLibrary):
    """TensorRT 8.6 to 11 on an NVIDIA GPU."""

    name = "tensorrt"
    title = "TensorRT"
    precisions = ("fp32", "fp16", "int8")
    session_type = TensorRtSession
    option_choices = _OPTIONS

    module_name = "tensorrt"
    install_command: ClassVar[str] = (
        "pip install 'latlut[tensorrt]'  or  pip install 'tensorrt>=10'  (a driver of CUDA 12 "
        "needs tensorrt-cu12 in its place); for Pascal, the GTX 10 series, the 8.6 line, with "
        f"Python 3.11 at most: {INSTALL_8_6}"
    )

    @classmethod
    def availability(cls) -> Availability:
        """Whether module, driver, GPU and device memory are all here; the first that is not."""
        if find_spec(cls.module_name) is None:
            return Availability(
                False, None, f"the package {cls.module_name} is not installed", cls.install_command
            )
        try:
            release = release_of(import_module(cls.module_name))
        except (ImportError, OSError) as error:
            return Availability(
                False,
                None,
                f"{cls.module_name} is installed but cannot be imported: {error}",
                cls.install_command,
            )
        reason, remedy = cls._what_is_missing(release)
        return Availability(not reason, release.version, reason, remedy)

    @classmethod
    def _what_is_missing(cls, release: Release) -> tuple[str, str]:
        """(reason, remedy), empty where nothing is missing."""
        if release.numbers < OLDEST[cls.module_name]:
            return f"{cls.title} {release.version} is older than latlut drives", cls.install_command
        cuda = driver_cuda_version()
        if cuda is None or not cuda_devices():
            why = gpu_absence_reason() or "the driver shows CUDA no device (CUDA_VISIBLE_DEVICES?)"
            return (
                f"{cls.title} {release.version} is installed, but no GPU can be used: {why}",
                "install NVIDIA's driver until nvidia-smi lists the GPU, or choose another "
                "engine: --engine onnxruntime --cpu",
            )
        needed = release.cuda_major
        if needed is not None and cuda[0] < needed:
            stem = cls.module_name.replace("_", "-")
            return (
                f"the driver is too old: it runs CUDA up to {cuda[0]}.{cuda[1]}, "
                f"{cls.title} {release.version} is built for CUDA {needed}",
                f"update NVIDIA's driver, or install the build for the driver: "
                f"pip install {stem}-cu{cuda[0]}",
            )
        if memory_type() is None:
            return NO_MEMORY, (
                "install PyTorch's build for CUDA, or, with a CUDA toolkit, "
                "pip install 'pycuda>=2024.1'"
            )
        return "", ""

    @classmethod
    def device_names(cls) -> tuple[str, ...]:
        """Every GPU that CUDA shows to this process."""
        return device_names()

    def _find_device(self, name: str) -> Device:
        if name == "cpu":
            raise EngineError(f"{self.title} runs on GPUs only: name one with --gpu")
        device = find_device(name)
        if device is None:
            known = ", ".join(device_names())
            raise EngineError(f"{self.title} has no device {name!r}; it has {known}")
        module = import_module(self.module_name)
        capability = compute_capability(cuda_index(device))
        release_of(module).check_gpu(device.model, capability)
        check_capability(module, capability)
        return device

    def load_plan(self, workload: Workload, plan: bytes) -> Session:
        """A session that runs a serialised engine, such as ``built(...).serialize()`` gives.

        Args:
            workload: what the engine was built from; gives the inputs and what to compare with.
            plan: the content of the file.

        Raises:
            EngineError: see ``deserialized``.
        """
        return self._started(PlanSession(self, workload), None, plan)


class TensorRtRtxEngine(TensorRtEngine):
    """TensorRT for RTX: builds ahead for a GPU's generation and compiles kernels when loaded."""

    name = "tensorrt-rtx"
    title = "TensorRT-RTX"
    module_name = "tensorrt_rtx"
    # "Timing cache operations are no-ops in TensorRT-RTX", says the library since 1.2.
    has_timing_cache = False
    install_command = "pip install tensorrt-rtx-cu13  (drivers for CUDA 12: tensorrt-rtx-cu12)"
